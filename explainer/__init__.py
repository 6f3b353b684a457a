"""Learned visual explanations of classifiers.

What a reader needs first; everything else is imported from its module.
"""

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
