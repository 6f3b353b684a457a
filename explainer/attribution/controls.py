"""Controls: masks that ignore the image, and the annotated masks.

A metric that ranks a method below a control that ignores the image does not
measure what the method found.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def constant(value: float) -> Callable[..., Tensor]:
    """Return the method whose target masks are ``value`` everywhere."""

    def control(
        classifier: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> Tensor:
        mask = images.new_full(images.shape[-2:], value)
        return mask * targets[:, :, None, None]

    control.__doc__ = f"Return {value:g} everywhere, whatever is shown."
    return control


zero = constant(0.0)
half = constant(0.5)
one = constant(1.0)


def ellipse(
    classifier: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    size: float = 0.75,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """Return a centred ellipse as the mask of each target class.

    This control scores well because photographers centre their subject. The
    semi-axes are ``size`` times half the height and width. At 0.75 the
    ellipse covers 44% of the image. A pixel is 1 if its centre lies inside.
    """
    height, width = images.shape[-2:]
    y, x = (
        (2 * torch.arange(n, device=images.device) + 1 - n) / n
        for n in (height, width)
    )
    inside = (y[:, None] ** 2 + x**2 <= size**2).to(images.dtype)
    return inside * targets[:, :, None, None]


def ground_truth(
    classifier: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    truth: Tensor,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """Return the annotated masks ``truth``, ``(B, C, H, W)``."""
    return truth.to(images) * targets[:, :, None, None]
