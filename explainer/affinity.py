"""Let cells of an image that look alike share their logits.

The loss says little about where a mask must end: on photographs the true
outlines often cost more than a mask that takes some context along, since the
classifier reads that too. What fills the gap is a prior in the network.
This one is parameter-free: alike pixels belong together, the assumption
behind conditional random fields (Krähenbühl and Koltun, 2011), here as one
step of averaging as in non-local networks (Wang et al., 2018).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def average_cells(x: Tensor, cells: tuple[int, int]) -> Tensor:
    """Return the means of ``(B, D, h, w)`` over cells, ``(B, D, *cells)``.

    The values of ``F.adaptive_avg_pool2d``, as a matrix product along each
    axis: other runtimes have matrix products (:mod:`explainer.export`).
    """
    down, right = (
        _averaging(n, n_cells).to(x)
        for n, n_cells in zip(x.shape[-2:], cells, strict=True)
    )
    return down @ x @ right.T


def _averaging(n: int, n_cells: int) -> Tensor:
    """Return ``(n_cells, n)``: a row averages the pixels its cell touches."""
    cell, pixel = torch.arange(n_cells)[:, None], torch.arange(n)
    first = cell * n // n_cells
    end = ((cell + 1) * n + n_cells - 1) // n_cells
    return ((first <= pixel) & (pixel < end)) / (end - first)


def _unit(features: Tensor) -> Tensor:
    """Centre and scale each channel over the image, then each cell's norm."""
    centred = features - features.mean((2, 3), keepdim=True)
    spread = centred.square().mean((2, 3), keepdim=True).sqrt()
    return F.normalize(centred / (spread + 1e-5), dim=1)


@torch.no_grad()
def affinity(
    features: Sequence[Tensor],
    cells: tuple[int, int],
    temperature: float = 0.1,
    reach: float = 0.5,
) -> Tensor:
    """Return who listens to whom: ``(B, N, N)``, N cells, rows sum to 1.

    ``features`` are maps ``(B, D, h, w)`` of any sizes, each of the same
    say; they are brought to the grid ``cells``. The weight of cell j for
    cell i is the softmax over j of ``cos(f_i, f_j) / temperature -
    d_ij ** 2 / (2 * reach ** 2)``, with the distance d in widths of the
    image. No gradient flows through it: masks must not be able to bend it.
    """
    maps = [_unit(average_cells(f, cells)) for f in features]
    unit = F.normalize(torch.cat(maps, dim=1).flatten(2), dim=1)
    alike = unit.transpose(1, 2) @ unit / temperature
    rows, columns = (
        torch.arange(n, device=unit.device, dtype=unit.dtype) / n
        for n in cells
    )
    place = torch.cartesian_prod(rows, columns)
    far = torch.cdist(place, place).square() / (2 * reach**2)
    return (alike - far).softmax(dim=-1)


def share(
    logits: Tensor, weights: Tensor, cells: tuple[int, int], rounds: int = 2
) -> Tensor:
    """Average ``(B, C, h, w)`` logits over alike cells, ``rounds`` times.

    ``weights`` come from :func:`affinity` for the same ``cells``. Returns
    ``(B, C, *cells)``.
    """
    values = average_cells(logits, cells).flatten(2)
    for _ in range(rounds):
        values = values @ weights.transpose(1, 2)
    return values.reshape(*logits.shape[:2], *cells)
