"""RISE: ask the classifier about thousands of randomly masked images."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from explainer.attribution.common import (
    evaluating,
    final_scaling,
    seeded,
)
from explainer.classifiers import probabilities
from explainer.masks import composite, mean_colour


def shifted_masks(
    grids: Tensor, shifts: Tensor, height: int, width: int
) -> Tensor:
    """Return masks ``(N, 1, H, W)`` from grids ``(N, h, w)``.

    Each grid is upsampled bilinearly to (h + 1) x (w + 1) cells. Then a
    window of the image's size is cut out, so that cell edges may lie
    anywhere. ``shifts`` ``(N, 2)`` is the window's offset in fractions of a
    cell, in [0, 1). Departure: cells measure ceil(H / h) x ceil(W / w)
    pixels. With the paper's floor the upsampled grid can be smaller than the
    window.
    """
    n, h, w = grids.shape
    cell_h, cell_w = math.ceil(height / h), math.ceil(width / w)
    large = F.interpolate(
        grids[:, None], ((h + 1) * cell_h, (w + 1) * cell_w), mode="bilinear"
    )
    device = grids.device
    top, left = (shifts * shifts.new_tensor([cell_h, cell_w])).long().T
    rows = top[:, None] + torch.arange(height, device=device)
    columns = left[:, None] + torch.arange(width, device=device)
    which = torch.arange(n, device=device)[:, None, None]
    return large[which, 0, rows[:, :, None], columns[:, None, :]][:, None]


def rise(
    classifier: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    n_masks: int = 1000,
    cells: int = 7,
    p: float = 0.5,
    score: Literal["probability", "logit"] = "probability",
    scaling: str = "min_max",
    power: float = 1.0,
    batch_size: int = 64,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """Return RISE's masks of the target classes.

    A pixel matters for a class if the class scores high when that pixel is
    shown. With N random masks M_i that show a pixel with probability p, and
    f_c the classifier's score of class c,

    S_c = 1 / (N p) sum_i f_c(x * M_i) M_i

    (Petsiuk et al., *RISE*, BMVC 2018, eq. 6). Each map is scaled to [0, 1]
    by its least and largest value.

    Parameters
    ----------
    classifier:
        Maps images to logits ``(B, C)``; no gradients are needed.
    images, targets:
        ``(B, 3, H, W)`` in [0, 1] and ``(B, C)``, 1 for a target class.
    n_masks:
        N. RISE's paper uses 4,000 for VGG-16 and 8,000 for ResNet-50,
        Stalder et al. 8,000 for both; the default is meant for a CPU.
    cells:
        Masks are upsampled from a grid of ``cells`` x ``cells``.
    p:
        The probability that a cell is shown, above 0 and below 1.
    score:
        f: the class's probability, or its logit.
    scaling, power:
        How the map becomes a mask, see
        :func:`~explainer.attribution.common.final_scaling`.
    batch_size:
        Masked images the classifier sees at once. It limits memory and
        changes no result.
    generator:
        Source of the masks; without one, a generator of seed 0. All images
        of the batch share the masks.
    progress:
        Show a bar with one step per ``batch_size`` masks.

    Returns
    -------
    Masks ``(B, C, H, W)`` in [0, 1].

    Notes
    -----
    S_c estimates the expected score given that a pixel is shown. As in the
    paper, the sum is divided by N p, the expected number of masks that show
    a pixel. (Near the border the true number differs a little.)

    Departures: hidden pixels have the classifier's mean colour, as in
    Stalder et al., not black; cells measure ceil(H / h) pixels, not the
    floor (:func:`shifted_masks`); the default N is far below the paper's;
    and the last scaling is Stalder et al.'s. Raises ValueError for an
    unknown ``score`` or ``scaling``, no masks or cells, and p of 0 or 1.
    """
    if score not in ("probability", "logit"):
        raise ValueError(f"no score {score!r}; known: probability, logit")
    if not 0 < p < 1:
        raise ValueError(f"p must be above 0 and below 1, not {p}")
    if min(n_masks, cells) < 1:
        raise ValueError(
            f"RISE needs at least one mask and one cell, not {n_masks} "
            f"and {cells}"
        )
    scaled = final_scaling(scaling, power)
    height, width = images.shape[-2:]
    # Only the small grids are drawn ahead; full masks exist for one step.
    draw = seeded(generator)
    grids = torch.rand(
        n_masks, cells, cells, generator=draw, device=draw.device
    )
    grids = (grids < p).to(images)
    shifts = torch.rand(n_masks, 2, generator=draw, device=draw.device)
    shifts = shifts.to(images.device)
    fill = mean_colour(classifier).to(images)
    importance = images.new_zeros(*targets.shape, height, width)
    with evaluating(classifier), torch.no_grad():
        for start in tqdm(
            range(0, n_masks, batch_size), disable=not progress
        ):
            step = slice(start, start + batch_size)
            masks = shifted_masks(grids[step], shifts[step], height, width)
            for i, image in enumerate(images):
                views = image.expand(len(masks), -1, -1, -1)
                f = classifier(composite(views, masks, fill))
                if score == "probability":
                    f = probabilities(classifier, f)
                f = f[:, : targets.shape[1]]
                importance[i] += torch.einsum(
                    "nc,nhw->chw", f * targets[i], masks[:, 0]
                )
    return scaled(importance / (n_masks * p)) * targets[:, :, None, None]
