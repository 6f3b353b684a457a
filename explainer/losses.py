"""The four terms of the Explainer's loss, one function a term.

L = L_c + lambda_e L_e + lambda_a L_a + lambda_tv L_tv (paper, section 3).
No function loops over images or classes or waits for the device.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explainer.masks import (
    complement,
    composite,
    make_fill,
    non_target_mask,
    target_mask,
)


@dataclass(frozen=True)
class LossWeights:
    """How much each term counts, and the bounds of a class's area.

    The names follow the paper: ``entropy`` is lambda_e and ``smoothness``
    lambda_tv. The area term has three weights, as in the authors' code:
    ``target_area`` for A(m), ``non_target_area`` for A(n), ``bound`` for the
    sum of B(s_c), which is free of charge between the fractions ``a`` and
    ``b`` of the image. ``entropy_scale`` names the denominator of L_e.
    """

    classification: float = 1.0
    entropy: float = 1.0
    bound: float = 1.0
    target_area: float = 0.1
    non_target_area: float = 0.3
    smoothness: float = 1.0
    a: float = 0.05
    b: float = 0.3
    entropy_scale: Literal["paper", "undivided"] = "paper"

    def __post_init__(self) -> None:
        """Refuse bounds that no mask can meet."""
        if not 0 <= self.a <= self.b <= 1:
            raise ValueError(
                f"area bounds need 0 <= a <= b <= 1, not {self.a}, {self.b}"
            )


class Loss(NamedTuple):
    """The weighted total, and each term before its weight (scalars)."""

    total: Tensor
    terms: dict[str, Tensor]


def classification_loss(
    logits: Tensor, labels: Tensor, multi_label: bool = True
) -> Tensor:
    """Return L_c: the masked image should still be classified as labelled.

    The mean over images and classes of the binary cross-entropy (paper,
    eq. 2); for a single-label (softmax) classifier the cross-entropy, with
    the labels' share as target if an image has several.

    ``logits`` and ``labels`` are ``(B, C)``.
    """
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits, labels)
    share = labels / labels.sum(1, keepdim=True).clamp(min=1)
    return F.cross_entropy(logits, share)


def negative_entropy(
    logits: Tensor, scale: Literal["paper", "undivided"] = "paper"
) -> Tensor:
    """Return L_e: the complement should leave the classifier undecided.

    The mean over images of sum_c p[c] log p[c], with p the *softmax* of the
    logits ``(B, C)`` even for a multi-label classifier, as in the authors'
    code. ``scale="paper"`` divides by C, so the least value is -log(C)/C and
    a weight chosen for one number of classes does not carry over to
    another; ``"undivided"`` does not divide, and its least value is -log C.
    """
    log_p = F.log_softmax(logits, dim=1)
    total = (log_p.exp() * log_p).sum(1).mean()
    return total / logits.shape[1] if scale == "paper" else total


def area(mask: Tensor) -> Tensor:
    """Return A: the mean pixel value of a mask (paper, eq. 4)."""
    return mask.mean()


def area_bound(
    class_masks: Tensor, labels: Tensor, a: float, b: float
) -> Tensor:
    """Return the sum over present classes of B(s_c), averaged over images.

    B keeps a class's area between the fractions a and b of the image
    (paper, eq. 5 and 6): the largest a Z of the Z pixels are pulled to one,
    all but the largest b Z to zero. Sorting is not needed, only sums of the
    largest k_a and k_b values:

    B(s) = (k_a - sum top-k_a + sum all - sum top-k_b) / Z.

    ``class_masks`` is ``(B, C, H, W)``, ``labels`` ``(B, C)``. The authors'
    code sums over classes (although it reads as an average); so do we.
    """
    flat = class_masks.flatten(2)
    n_images, n_pixels = len(flat), flat.shape[-1]
    if flat.device.type == "cpu":
        # Absent classes need no ranking. On a GPU they get it all the same:
        # to select the others would make the host wait for the device.
        present = labels > 0
        flat, labels = flat[present], labels[present]
    k_a, k_b = int(a * n_pixels), int(b * n_pixels)
    top_b = flat.topk(k_b, dim=-1, sorted=False).values
    top_a = top_b.topk(k_a, dim=-1, sorted=False).values
    too_small = k_a - top_a.sum(-1)
    too_large = flat.sum(-1) - top_b.sum(-1)
    return ((too_small + too_large) * labels).sum() / (n_pixels * n_images)


def total_variation(mask: Tensor) -> Tensor:
    """Return TV: the mean absolute difference of neighbours (paper, eq. 7).

    Anisotropic, ``(B, C, H, W)``. As in the authors' code the border is
    reflected: the last row and column count a difference a second time.
    """
    down = mask.diff(dim=-2).abs()
    right = mask.diff(dim=-1).abs()
    again = down[..., -1, :].sum() + right[..., -1].sum()
    return (down.sum() + right.sum() + again) / mask.numel()


def explainer_loss(
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    class_masks: Tensor,
    weights: LossWeights,
    fill: str = "mean",
    generator: torch.Generator | None = None,
) -> Loss:
    """Return the Explainer's loss for a batch.

    Parameters
    ----------
    classifier:
        F, frozen; maps ``(B, 3, H, W)`` in [0, 1] to logits ``(B, C)``.
    images, labels:
        ``(B, 3, H, W)`` and ``(B, C)``.
    class_masks:
        S, ``(B, C, H, W)`` in [0, 1].
    weights:
        The weights of the terms and the bounds of the area.
    fill:
        What the masks show where they are 0: see
        :func:`explainer.masks.make_fill`; "noise" draws from ``generator``.

    Returns
    -------
    The total and the unweighted terms ``classification``, ``entropy``,
    ``bound``, ``target_area``, ``non_target_area`` and ``smoothness``.

    Raises
    ------
    ValueError
        For a fill that does not exist.
    """
    # Each mask in one piece: maxima and ranking run faster along it than
    # across the layout that convolutions leave.
    class_masks = class_masks.contiguous()
    m = target_mask(class_masks, labels)
    n = non_target_mask(class_masks, labels)
    background = make_fill(fill, images, classifier, generator)
    seen = composite(images, m, background)
    hidden = composite(images, complement(m), background)
    # One pass for both halves: small networks waste less of a wide machine.
    kept, left = classifier(torch.cat([seen, hidden])).chunk(2)
    multi_label = getattr(classifier, "multi_label", True)
    terms = {
        "classification": classification_loss(kept, labels, multi_label),
        "entropy": negative_entropy(left, weights.entropy_scale),
        "bound": area_bound(class_masks, labels, weights.a, weights.b),
        "target_area": area(m),
        "non_target_area": area(n),
        "smoothness": total_variation(m) + total_variation(n),
    }
    total = sum(
        (getattr(weights, name) * term for name, term in terms.items()),
        start=torch.zeros((), device=images.device),
    )
    return Loss(total, terms)
