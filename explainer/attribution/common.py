"""What several attribution methods share."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from explainer.classifiers import evaluating as evaluating
from explainer.errors import Registry


def seeded(generator: torch.Generator | None) -> torch.Generator:
    """Return the generator, or a fresh one of seed 0 on the CPU.

    So a method never draws from the global random state. Draw on the
    generator's own device and move the result: then the same CPU generator
    gives the same numbers whatever device the images are on.
    """
    return generator or torch.Generator().manual_seed(0)


def occurring(targets: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield each class of targets ``(B, C)`` with the rows that have it."""
    for c in targets.any(0).nonzero().flatten().tolist():
        yield c, targets[:, c].nonzero().flatten()


def channels_last(images: Tensor) -> Tensor:
    """Return images in the memory layout that suits convolutions."""
    return images.contiguous(memory_format=torch.channels_last)


def min_max(maps: Tensor) -> Tensor:
    """Scale every map of ``(..., H, W)`` to [0, 1] by its own range.

    A constant map says nothing about where, and becomes zero.
    """
    low = maps.amin((-2, -1), keepdim=True)
    span = maps.amax((-2, -1), keepdim=True) - low
    return (maps - low) / torch.where(span > 0, span, 1)


def _by_maximum(maps: Tensor) -> Tensor:
    """Divide every map by its largest value; what is negative becomes 0."""
    positive = maps.clamp(min=0)
    top = positive.amax((-2, -1), keepdim=True)
    return positive / torch.where(top > 0, top, 1)


SCALINGS: Registry[Callable[[Tensor], Tensor]] = Registry(
    "scaling",
    {
        "min_max": min_max,
        "max": _by_maximum,
        "none": lambda maps: maps.clamp(0, 1),
    },
)
"""The last step of a method, from maps ``(..., H, W)`` to masks in [0, 1]."""


def final_scaling(
    scaling: str, power: float = 1.0
) -> Callable[[Tensor], Tensor]:
    """Return what makes masks in [0, 1] of a method's maps.

    One of the :data:`SCALINGS`, and then a power: above 1 it lowers all that
    is not near 1. Neither changes the order of an image's pixels (but for
    what is clipped), and both move the thresholds by which masks are judged.
    Raises ValueError for another name and for a power that is not positive.
    """
    scale = SCALINGS[scaling]
    if not power > 0:
        raise ValueError(f"the power of a mask is positive, not {power}")
    return lambda maps: scale(maps) ** power
