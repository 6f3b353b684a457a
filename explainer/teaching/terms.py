"""The effect of one term of the loss on a mask: its pull and its minimum.

A term is a function of the masks, ``term(masks)``; the classifier and the
images are fixed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import matplotlib
import torch
import torch.nn.functional as F
from torch import Tensor

from explainer.figures import (
    BRIGHTER,
    DARKER,
    STYLE,
    WIDTH,
    Picture,
    to_image,
)
from explainer.losses import area_bound
from explainer.teaching.pictures import plot

Term = Callable[[Tensor], Tensor]


def pull(term: Term, masks: Tensor) -> Tensor:
    """Return a term's pull on masks: -dL/dm times the number of pixels.

    It is positive where a brighter pixel lowers the term. ``masks`` is ``(B,
    C, H, W)``, ``term`` a mean over images. The factor B H W makes the pull
    independent of batch and resolution. For example, the pull of the area
    A(m) is -1 everywhere.
    """
    masks = masks.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(term(masks), masks)
    return -gradient * (masks.numel() / masks.shape[1])


def pooled(pull: Tensor, cells: int) -> Tensor:
    """Return a pull ``(..., H, W)`` averaged over cells x cells squares.

    The pull through a classifier varies from pixel to pixel. A smooth mask
    follows its mean over a neighbourhood.
    """
    return F.adaptive_avg_pool2d(pull, cells)


def resized(cells: Tensor, size: int) -> Tensor:
    """Return ``(B, C, n, n)`` at ``(B, C, size, size)``, bilinear."""
    return F.interpolate(
        cells, (size, size), mode="bilinear", align_corners=False
    )


def upper_half(masks: Tensor) -> Tensor:
    """Return masks ``(B, C, H, W)`` without what lies below their centre.

    The centre is the mean row of each mask.
    """
    rows = torch.arange(masks.shape[-2], device=masks.device)[:, None]
    centre = (masks * rows).sum((2, 3), keepdim=True)
    return masks * (masks.sum((2, 3), keepdim=True) * rows < centre)


def jittered(
    views: Tensor, generator: torch.Generator, pixels: int
) -> Tensor:
    """Return images ``(B, 3, H, W)``, all moved by the same random shift.

    The shift is up to ``pixels`` in both directions, and the images wrap
    around. It suppresses patterns of single pixels in a mask that is
    optimised for moving views.
    """
    way = torch.randint(
        -pixels,
        pixels + 1,
        (2,),
        generator=generator,
        device=generator.device,
    )
    return views.roll(tuple(way.tolist()), (2, 3))


def descend(
    term: Term,
    start: Tensor,
    size: int,
    *,
    steps: int = 40,
    learning_rate: float = 0.6,
) -> Tensor:
    """Return masks that minimise a term, ``(B, C, size, size)``.

    There is no network: Adam optimises one logit per cell. The term is a mean
    over images, and images do not affect each other. ``start`` ``(B, C, n,
    n)`` in [0, 1] holds the initial masks. The term sees masks of ``size`` by
    ``size`` pixels. For the whole loss there is
    :func:`explainer.teaching.playground.optimise_mask`.
    """
    logits = start.clamp(0.01, 0.99).logit().detach().requires_grad_()
    # Adam takes full steps even for tiny gradients, so a mask at its optimum
    # would drift; eps prevents this. The gradient is in units of the pull, so
    # that eps does not depend on the number of cells.
    optimiser = torch.optim.Adam([logits], learning_rate, eps=0.05)
    n_cells = start.numel() / start.shape[1]
    for _ in range(steps):
        loss = n_cells * term(resized(logits.sigmoid(), size))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return resized(logits.sigmoid(), size).detach()


@matplotlib.rc_context(STYLE)
def readings(
    views: Mapping[str, Tensor],
    probabilities: Mapping[str, Tensor],
    classes: Sequence[str],
    highlighted: Sequence[int],
) -> Picture:
    """Return a figure of images and their class probabilities, a row each.

    Parameters
    ----------
    views:
        B images ``(3, H, W)`` by name.
    probabilities:
        By title of a column of bars: ``(B, C)`` in [0, 1].
    classes:
        The names of the C classes.
    highlighted:
        The indices of the classes whose bars are blue; the others are grey.
    """
    n_rows, columns = len(views), list(probabilities)
    picture = Picture(
        figsize=(WIDTH, 0.3 + 1.35 * n_rows), layout="constrained"
    )
    axes = picture.subplots(n_rows, 1 + len(columns), squeeze=False)
    colours = [
        BRIGHTER if c in highlighted else "#999999"
        for c in range(len(classes))
    ]
    for row, (name, view) in zip(axes, views.items(), strict=True):
        row[0].imshow(to_image(view))
        row[0].set_ylabel(name, fontsize=10)
        row[0].set_xticks([])
        row[0].set_yticks([])
    for column, title in enumerate(columns, 1):
        axes[0, column].set_title(title)
        for ax, values in zip(
            axes[:, column], probabilities[title], strict=True
        ):
            ax.barh(range(len(classes)), values.tolist(), color=colours)
            ax.set_xlim(0, 1)
            ax.set_xticks([0, 0.5, 1])
            ax.tick_params(labelsize=8)
            names = classes if column == 1 else [""] * len(classes)
            ax.set_yticks(range(len(classes)), names)
            ax.invert_yaxis()
    return picture


class SortedMask(NamedTuple):
    """A mask's pixels from bright to dark beside its bounds, all ``(Z,)``.

    ``too_small`` and ``too_large`` are the two halves of B: the mean of
    ``q_min - r`` where positive, and of ``r - q_max`` where positive.
    """

    r: Tensor
    q_min: Tensor
    q_max: Tensor
    too_small: float
    too_large: float


def sorted_mask(mask: Tensor, a: float, b: float) -> SortedMask:
    """Return a mask's sorted pixels and the bounds of its area.

    The paper's own form of B (eq. 5 and 6), with r the sorted mask: q_min is
    one for the first a Z of the Z pixels, q_max for the first b Z, and zero
    after that. The halves of B are those of
    :func:`explainer.losses.area_bound`. For b = 1 no mask is too large, for a
    = 0 none is too small. ``mask`` is ``(H, W)``.
    """
    r = mask.detach().flatten().sort(descending=True).values
    place = torch.arange(len(r), device=r.device)
    q_min = (place < int(a * len(r))).to(r)
    q_max = (place < int(b * len(r))).to(r)
    too_small, too_large = area_bound(
        r.repeat(2, 1)[:, None, None],
        r.new_ones(2, 1),
        torch.tensor([a, 0], dtype=torch.float64),
        torch.tensor([1, b], dtype=torch.float64),
        "none",
    ).tolist()
    return SortedMask(r, q_min, q_max, too_small, too_large)


@matplotlib.rc_context(STYLE)
def bounds(masks: Mapping[str, SortedMask]) -> Picture:
    """Return a figure of sorted masks between their bounds, a panel each.

    The shaded area is B: blue where the mask is too small (below q_min) and
    should be brighter, vermilion where it is too large (above q_max).
    """
    picture = Picture(
        figsize=(WIDTH, 0.5 + 1.75 * len(masks)), layout="constrained"
    )
    axes = picture.subplots(len(masks), 1, squeeze=False, sharex=True)[:, 0]
    for ax, (title, mask) in zip(axes, masks.items(), strict=True):
        x = [(i + 0.5) / len(mask.r) for i in range(len(mask.r))]
        r, low, high = (v.cpu().numpy() for v in mask[:3])
        ax.fill_between(x, r, low, where=low > r, color=BRIGHTER, alpha=0.35)
        ax.fill_between(x, high, r, where=r > high, color=DARKER, alpha=0.35)
        ax.plot(x, r, color="black", label="r(v(s)), sorted mask")
        ax.plot(x, low, "--", color=BRIGHTER, label="q_min")
        ax.plot(x, high, ":", color=DARKER, label="q_max")
        cost = mask.too_small + mask.too_large
        ax.set_title(
            f"{title}: B = {mask.too_small:.3f} + {mask.too_large:.3f} "
            f"= {cost:.3f}",
            fontsize=10,
        )
        ax.set_ylim(-0.04, 1.04)
    axes[-1].set_xlabel("pixels from bright to dark, share of the image")
    picture.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=3,
        fontsize=10,
    )
    return picture


def bounds_plot(mask: SortedMask) -> str:
    """Return a panel of :func:`bounds` as a data URI for the dials.

    The sorted mask and its bounds are drawn at 101 places.
    """
    at = [i * (len(mask.r) - 1) // 100 for i in range(101)]
    return plot(
        {
            "q_min": mask.q_min[at].tolist(),
            "q_max": mask.q_max[at].tolist(),
            "r(v(s))": mask.r[at].tolist(),
        },
        x="pixels from bright to dark",
        y="mask",
        above={
            ("q_min", "r(v(s))"): BRIGHTER,
            ("r(v(s))", "q_max"): DARKER,
        },
    )
