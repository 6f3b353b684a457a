"""Learned visual explanations of classifiers.

What a reader needs first; everything else is imported from its module. A
name is imported when it is first asked for, so ``import explainer`` alone
takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explainer.attribution import METHODS
    from explainer.checkpoints import Pair, load
    from explainer.classifiers import Classifier
    from explainer.data import Scenes, collate, load_data, load_photo
    from explainer.explanation import explain
    from explainer.figures import draw

__all__ = [
    "METHODS",
    "Classifier",
    "Pair",
    "Scenes",
    "collate",
    "draw",
    "explain",
    "load",
    "load_data",
    "load_photo",
]

_HOMES = {
    "explainer.attribution": ("METHODS",),
    "explainer.checkpoints": ("Pair", "load"),
    "explainer.classifiers": ("Classifier",),
    "explainer.data": ("Scenes", "collate", "load_data", "load_photo"),
    "explainer.explanation": ("explain",),
    "explainer.figures": ("draw",),
}


def __getattr__(name: str) -> Any:
    """Import one of the names above."""
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(home), name)
            globals()[name] = value  # not asked for again
            return value
    raise AttributeError(f"module 'explainer' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List also what has not been asked for yet."""
    return sorted({*globals(), *__all__})
