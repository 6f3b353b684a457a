"""Learned visual explanations of classifiers.

What a reader needs first; everything else is imported from its module. A
name is imported when it is first asked for, so ``import explainer`` alone
takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explainer.checkpoints import Pair, load
    from explainer.data import Scenes, collate, load_data, load_photo
    from explainer.figures import draw

__all__ = [
    "Pair",
    "Scenes",
    "collate",
    "draw",
    "load",
    "load_data",
    "load_photo",
]

_HOMES = {
    "explainer.checkpoints": ("Pair", "load"),
    "explainer.data": ("Scenes", "collate", "load_data", "load_photo"),
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
