"""The four terms of the Explainer's loss, one function per term.

L = L_c + lambda_e L_e + lambda_a L_a + lambda_tv L_tv (paper, section 3).
No function loops over images or classes, or waits for the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explainer.errors import UnknownNameError
from explainer.masks import (
    complement,
    composite,
    make_fill,
    non_target_mask,
    target_mask,
)
from explainer.streams import Generators

Reduction = Literal["mean", "none"]
"""The mean over the images of a batch, or one value per image, ``(B,)``."""


def _reduced(per_image: Tensor, reduction: Reduction) -> Tensor:
    if reduction not in ("mean", "none"):
        raise UnknownNameError("reduction", reduction, ("mean", "none"))
    return per_image.mean() if reduction == "mean" else per_image


@dataclass(frozen=True)
class LossWeights:
    """The weight of each term, and the bounds of a class's area.

    The names follow the paper: ``entropy`` is lambda_e and ``smoothness``
    lambda_tv. The area term has three weights, as in the authors' code:
    ``target_area`` for A(m), ``non_target_area`` for A(n), and ``bound`` for
    the sum of B(s_c). B is zero for areas between the fractions ``a`` and
    ``b`` of the image. ``entropy_scale`` names the denominator of L_e.
    ``edges`` is a departure: above 0, a mask may end at an edge of the image
    at lower cost (:func:`total_variation`); 0 is the paper's.

    Each number may also be a tensor ``(B,)`` with one value per image:
    :meth:`stack` makes such weights.
    """

    classification: float | Tensor = 1.0
    entropy: float | Tensor = 1.0
    bound: float | Tensor = 1.0
    target_area: float | Tensor = 0.1
    non_target_area: float | Tensor = 0.3
    smoothness: float | Tensor = 1.0
    a: float | Tensor = 0.05
    b: float | Tensor = 0.3
    edges: float | Tensor = 0.0
    entropy_scale: Literal["paper", "undivided"] = "paper"

    def __post_init__(self) -> None:
        """Raise for bounds that no mask can meet."""
        a, b = (
            torch.as_tensor(x, dtype=torch.float64) for x in (self.a, self.b)
        )
        if not bool(((a >= 0) & (a <= b) & (b <= 1)).all()):
            raise ValueError(
                f"area bounds need 0 <= a <= b <= 1, not {self.a}, {self.b}"
            )

    @classmethod
    def stack(cls, each: Sequence["LossWeights"]) -> "LossWeights":
        """Return the weights of a batch from those of its images.

        Each number becomes a tensor ``(B,)``, in double precision because
        ``a`` and ``b`` count pixels. Raises ValueError if the images differ
        in ``entropy_scale``: a batch has only one.
        """
        scales = {weights.entropy_scale for weights in each}
        if len(scales) != 1:
            raise ValueError(
                "weights of one batch need one entropy_scale, not "
                f"{sorted(scales)}"
            )
        values: dict[str, Any] = {"entropy_scale": scales.pop()}
        for name in (f.name for f in fields(cls) if f.name not in values):
            numbers = [getattr(weights, name) for weights in each]
            values[name] = torch.tensor(numbers, dtype=torch.float64)
        return cls(**values)


class Loss(NamedTuple):
    """The weighted total, and each term before its weight.

    Scalars, or ``(B,)`` with ``reduction="none"``.
    """

    total: Tensor
    terms: dict[str, Tensor]


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    multi_label: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return L_c: the masked image should still be classified as labelled.

    L_c is the mean over images and classes of the binary cross-entropy
    (paper, eq. 2). For a single-label (softmax) classifier it is the
    cross-entropy; several labels of an image get equal target
    probabilities.

    ``logits`` and ``labels`` are ``(B, C)``.
    """
    if multi_label:
        per_class = F.binary_cross_entropy_with_logits(
            logits, labels, reduction="none"
        )
        return _reduced(per_class.mean(1), reduction)
    share = labels / labels.sum(1, keepdim=True).clamp(min=1)
    per_image = F.cross_entropy(logits, share, reduction="none")
    return _reduced(per_image, reduction)


def negative_entropy(
    logits: Tensor,
    scale: Literal["paper", "undivided"] = "paper",
    reduction: Reduction = "mean",
) -> Tensor:
    """Return L_e: the complement should leave the classifier undecided.

    L_e is the mean over images of sum_c p[c] log p[c]. As in the authors'
    code, p is the *softmax* of the logits ``(B, C)`` even for a multi-label
    classifier. ``scale="paper"`` divides by C. Its least value is
    -log(C)/C, so its weight must be chosen anew for another number of
    classes. ``"undivided"`` does not divide; its least value is -log C.
    """
    log_p = F.log_softmax(logits, dim=1)
    per_image = (log_p.exp() * log_p).sum(1)
    if scale == "paper":
        per_image = per_image / logits.shape[1]
    return _reduced(per_image, reduction)


def area(mask: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Return A, the mean pixel value of masks ``(B, ...)`` (paper, eq. 4)."""
    return _reduced(mask.flatten(1).mean(1), reduction)


def area_bound(
    class_masks: Tensor,
    labels: Tensor,
    a: float | Tensor,
    b: float | Tensor,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return the sum over present classes of B(s_c), averaged over images.

    B keeps a class's area between the fractions a and b of the image
    (paper, eq. 5 and 6). Of the Z pixels, the largest a Z are pulled to one
    and all but the largest b Z to zero. With k_a = a Z and k_b = b Z,

    B(s) = (k_a - sum top-k_a + sum all - sum top-k_b) / Z.

    ``class_masks`` is ``(B, C, H, W)``, ``labels`` ``(B, C)``; a and b are
    numbers, or one per image ``(B,)``. As in the authors' code, B is summed
    over classes, not averaged.
    """
    flat = class_masks.flatten(2)
    n_pixels = flat.shape[-1]
    # Absent classes need no ranking. On a GPU they are ranked too: selecting
    # the others would make the host wait for the device.
    ranked = labels > 0 if flat.device.type == "cpu" else ...
    flat = flat[ranked]
    k_a: int | Tensor
    k_b: int | Tensor
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        k_a, k_b = (
            (torch.as_tensor(share, dtype=torch.float64) * n_pixels)
            .long()
            .to(labels.device)
            .reshape(-1, 1)
            .expand_as(labels)[ranked]
            for share in (a, b)
        )
        falling = flat.sort(-1, descending=True).values
        place = torch.arange(n_pixels, device=flat.device)
        top_a, top_b = (falling * (place < k[..., None]) for k in (k_a, k_b))
    else:  # the same k for all images needs no sorting
        k_a, k_b = int(a * n_pixels), int(b * n_pixels)
        top_b = flat.topk(k_b, dim=-1, sorted=False).values
        top_a = top_b.topk(k_a, dim=-1, sorted=False).values
    too_small = k_a - top_a.sum(-1)
    too_large = flat.sum(-1) - top_b.sum(-1)
    bounds = flat.new_zeros(labels.shape)
    bounds[ranked] = too_small + too_large
    return _reduced((bounds * labels).sum(1) / n_pixels, reduction)


def total_variation(
    mask: Tensor,
    reduction: Reduction = "mean",
    images: Tensor | None = None,
    edges: float | Tensor = 0.0,
) -> Tensor:
    """Return TV: the mean absolute difference of neighbours (paper, eq. 7).

    TV is anisotropic; masks are ``(B, C, H, W)``. As in the authors' code
    the border is reflected, so the last difference of each row and column
    counts twice.

    Departure, with ``images`` ``(B, 3, H, W)``: a difference is weighted by
    ``exp(-edges |I(u) - I(v)|)``, with the mean absolute difference over the
    channels, so that a mask may end at an edge of the image. ``edges`` is
    one number, or one per image ``(B,)``.
    """
    steps = []
    for dim in (-2, -1):
        step = mask.diff(dim=dim).abs()
        if images is not None:
            change = images.diff(dim=dim).abs().mean(1, keepdim=True)
            rate = torch.as_tensor(edges).to(change).reshape(-1, 1, 1, 1)
            step = step * torch.exp(-rate * change)
        steps.append(step)
    down, right = steps
    differences = (down, right, down[..., -1, :], right[..., -1])
    sums = torch.stack([d.flatten(1).sum(1) for d in differences])
    return _reduced(sums.sum(0) / mask[0].numel(), reduction)


def explainer_loss(
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    class_masks: Tensor,
    weights: LossWeights,
    fill: str = "mean",
    generator: Generators = None,
    reduction: Reduction = "mean",
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
        The weights of the terms and the bounds of the area, for all images
        or per image (:meth:`LossWeights.stack`). A batch may then hold the
        same image with different weights.
    fill:
        The pixels shown where masks are 0: see
        :func:`explainer.masks.make_fill`; "noise" draws from ``generator``.
    reduction:
        "mean" over the images, or "none" for values per image.

    Returns
    -------
    The total and the unweighted terms ``classification``, ``entropy``,
    ``bound``, ``target_area``, ``non_target_area`` and ``smoothness``:
    scalars, or ``(B,)`` with ``reduction="none"``.

    Raises
    ------
    ValueError
        For a fill or a reduction that does not exist.
    """
    # Contiguous masks: maxima and ranking are faster than in the layout
    # that convolutions return.
    class_masks = class_masks.contiguous()
    m = target_mask(class_masks, labels)
    n = non_target_mask(class_masks, labels)
    background = make_fill(fill, images, classifier, generator)
    seen = composite(images, m, background)
    hidden = composite(images, complement(m), background)
    # One pass for both halves: small networks use a GPU better that way.
    kept, left = classifier(torch.cat([seen, hidden])).chunk(2)
    multi_label = getattr(classifier, "multi_label", True)
    edgeless = isinstance(weights.edges, float | int) and weights.edges == 0
    variation = partial(
        total_variation,
        reduction="none",
        images=None if edgeless else images,
        edges=weights.edges,
    )
    terms = {
        "classification": classification_loss(
            kept, labels, multi_label, "none"
        ),
        "entropy": negative_entropy(left, weights.entropy_scale, "none"),
        "bound": area_bound(
            class_masks, labels, weights.a, weights.b, "none"
        ),
        "target_area": area(m, "none"),
        "non_target_area": area(n, "none"),
        "smoothness": variation(m) + variation(n),
    }
    total = torch.zeros((), device=images.device)
    for name, term in terms.items():
        weight = getattr(weights, name)
        if isinstance(weight, Tensor):
            weight = weight.to(term)
        total = total + weight * term
    return Loss(
        _reduced(total, reduction),
        {name: _reduced(term, reduction) for name, term in terms.items()},
    )
