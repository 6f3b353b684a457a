"""The metrics of a mask: one function per metric, one value per image.

Most metrics compare a target mask m, ``(B, H, W)`` or ``(B, 1, H, W)`` in
[0, 1], with the binary union g of the segmented objects, ``truth``
``(B, H, W)`` bool. Pixels where ``valid`` ``(B, H, W)`` bool is False are
ignored; None means that all are valid. :func:`ground_truth` returns both
from a dataset's masks. Every function returns ``(B,)`` without looping over
images. A metric that is undefined for an image is NaN. All metrics are NaN
for an image without valid pixels.

The first five metrics are the paper's (section 4). The authors' code also
computes F1, AUC and the two coverages. The rest comes from other papers.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from explainer.masks import complement, composite

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The paper's thresholds t for binary masks; a pixel is kept if m > t."""

LEAST_AREA = 0.05
"""The least mask area, as a fraction of the image, used in saliency."""

VOID = 255
"""Mask value of pixels that belong to no class and not to the background."""

Void = Literal["ignore", "object"]


def ground_truth(
    masks: Tensor, n_classes: int, void: Void = "ignore"
) -> tuple[Tensor, Tensor]:
    """Return ``truth`` and ``valid``, both ``(B, H, W)`` bool.

    ``masks`` is ``(B, H, W)`` with class ids as in
    :class:`~explainer.data.base.Sample`. The truth is the union of all
    objects of the ``n_classes`` classes. ``void="ignore"`` makes void pixels
    invalid (VOC has them around every object). ``"object"`` counts them as
    object, as in the authors' code.
    """
    truth = (masks >= 1) & (masks <= n_classes)
    is_void = masks == VOID
    if void == "object":
        return truth | is_void, torch.ones_like(is_void)
    if void == "ignore":
        return truth, ~is_void
    raise ValueError(f"void is 'ignore' or 'object', not {void!r}")


def class_truth(masks: Tensor, n_classes: int) -> Tensor:
    """Return each class's pixels, ``(B, C, H, W)`` bool, from class ids."""
    ids = torch.arange(1, n_classes + 1, device=masks.device)
    return masks[:, None] == ids[:, None, None]


def _flat(
    mask: Tensor, truth: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return mask, object and background pixels, ``(B, N)`` float each."""
    g = truth.flatten(1)
    v = torch.ones_like(g) if valid is None else valid.flatten(1)
    m = mask.flatten(1)
    return m, (g & v).to(m.dtype), (~g & v).to(m.dtype)


def _one_where_empty(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole, and 1 for 0 / 0: an empty mask is then right."""
    return torch.where(whole == 0, 1.0, part / whole)


def _overlap(
    mask: Tensor, truth: Tensor, valid: Tensor | None, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the true positives, false positives and false negatives."""
    m, g, background = _flat(mask, truth, valid)
    kept = (m > threshold).to(m.dtype)
    defined = torch.where((g + background).sum(1) > 0, 1.0, torch.nan)
    hits = (kept * g).sum(1) * defined
    return hits, (kept * background).sum(1), g.sum(1) - hits


def accuracy(
    mask: Tensor, truth: Tensor, valid: Tensor | None = None
) -> Tensor:
    """Return the share of pixels where ``m > 0.5`` agrees with g.

    Departure: the authors' soft accuracy, the mean of m g + (1 - m)(1 - g),
    has no threshold. For a binary g it equals 1 - :func:`mae`.
    """
    return 1 - mae((mask > 0.5).to(mask.dtype), truth, valid)


def iou(
    mask: Tensor,
    truth: Tensor,
    valid: Tensor | None = None,
    threshold: float = 0.5,
) -> Tensor:
    """Return the intersection over union of ``m > threshold`` and g.

    1 if both are empty.
    """
    hits, false, missed = _overlap(mask, truth, valid, threshold)
    return _one_where_empty(hits, hits + false + missed)


def mean_iou(
    mask: Tensor, truth: Tensor, valid: Tensor | None = None
) -> Tensor:
    """Return the mean of :func:`iou` over the :data:`THRESHOLDS`."""
    ious = [iou(mask, truth, valid, t) for t in THRESHOLDS]
    return torch.stack(ious).mean(0)


def mae(mask: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean of ``|m - g|``; lower is better."""
    m, g, background = _flat(mask, truth, valid)
    error = g * (1 - m) + background * m
    return error.sum(1) / (g + background).sum(1)


def f1(
    mask: Tensor,
    truth: Tensor,
    valid: Tensor | None = None,
    threshold: float = 0.5,
) -> Tensor:
    """Return F1 (Dice) of ``m > threshold`` and g; 1 if both are empty."""
    hits, false, missed = _overlap(mask, truth, valid, threshold)
    return _one_where_empty(2 * hits, 2 * hits + false + missed)


def mean_f1(
    mask: Tensor, truth: Tensor, valid: Tensor | None = None
) -> Tensor:
    """Return the mean of :func:`f1` over the :data:`THRESHOLDS`."""
    scores = [f1(mask, truth, valid, t) for t in THRESHOLDS]
    return torch.stack(scores).mean(0)


def auc(mask: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the area under the ROC curve of an image's pixels.

    It is the probability that the mask is higher on a random object pixel
    than on a random background pixel; ties count one half (Mann-Whitney).
    NaN if there is only object or only background.
    """
    m, g, background = _flat(mask, truth, valid)
    padded = torch.where(background > 0, m, torch.inf)
    below = padded.sort(1).values
    m = m.contiguous()
    rank = torch.searchsorted(below, m) + torch.searchsorted(
        below, m, right=True
    )
    # float32 cannot hold the sums of ranks exactly.
    wins = (rank.double() / 2 * g).sum(1)
    pairs = g.double().sum(1) * background.double().sum(1)
    return (wins / pairs).to(m.dtype)


def coverage(
    mask: Tensor, truth: Tensor, valid: Tensor | None = None
) -> Tensor:
    """Return the mean of m on the objects; NaN if there is none."""
    m, g, _ = _flat(mask, truth, valid)
    return (m * g).sum(1) / g.sum(1)


def background_coverage(
    mask: Tensor, truth: Tensor, valid: Tensor | None = None
) -> Tensor:
    """Return the mean of m on the background; NaN if there is none."""
    m, _, background = _flat(mask, truth, valid)
    return (m * background).sum(1) / background.sum(1)


def pointing_game(
    mask: Tensor, truth: Tensor, valid: Tensor | None = None
) -> Tensor:
    """Return 1 if the highest pixel of the mask lies on an object, else 0.

    Zhang et al., *Top-down Neural Attention by Excitation Backprop*, ECCV
    2016. Departure: no tolerance in pixels. If several pixels are highest,
    the result is the share of them on an object.
    """
    m, g, background = _flat(mask, truth, valid)
    allowed = g + background > 0
    best = torch.where(allowed, m, -torch.inf).amax(1, keepdim=True)
    highest = (allowed & (m == best)).to(m.dtype)
    return (highest * g).sum(1) / highest.sum(1)


def saliency(mask: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """Return log(max(mean(m), 0.05)) - log p; lower is better.

    It is low for a small mask that keeps the prediction (Dabkowski and Gal,
    NeurIPS 2017; the paper replaces their rectangle by the mask's mean).
    ``logits`` ``(B, C)`` are those of the masked image and ``targets``
    ``(B, C)`` its classes. p is the targets' summed *softmax* probability,
    even for a multi-label classifier. Departure: each class counts once; the
    authors' code sums over objects. The mask's mean includes void pixels,
    since saliency uses no annotation. NaN for an image without targets.
    """
    log_p = torch.where(targets > 0, logits.log_softmax(1), -torch.inf)
    size = mask.flatten(1).mean(1).clamp(min=LEAST_AREA)
    defined = (targets > 0).any(1)
    score = size.log() - log_p.logsumexp(1)
    return torch.where(defined, score, torch.nan)


def _ranks(mask: Tensor) -> Tensor:
    """Return each pixel's place in the mask's descending order, from 0.

    Equal pixels are ordered by one fixed shuffle, so that no region comes
    first. Raster order would start at the top.
    """
    flat = mask.flatten(1)
    n = flat.shape[1]
    shuffle = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    shuffle = shuffle.to(flat.device)
    order = flat[:, shuffle].argsort(dim=1, descending=True, stable=True)
    places = torch.arange(n, device=flat.device).expand_as(order)
    ranks = torch.empty_like(order).scatter_(1, shuffle[order], places)
    return ranks.reshape(len(mask), 1, *mask.shape[-2:])


def _curve(mask: Tensor, steps: int) -> list[Tensor]:
    """Return the binary masks of the first 0, 1/steps, ..., all pixels."""
    if steps < 1:
        raise ValueError(f"a curve has at least one step, not {steps}")
    ranks, n_pixels = _ranks(mask), mask[0].numel()
    return [
        (ranks * steps < k * n_pixels).to(mask.dtype)
        for k in range(steps + 1)
    ]


def _area_under(scores: list[Tensor]) -> Tensor:
    """Return a curve's integral over [0, 1] by the trapezoid rule."""
    return torch.trapezoid(torch.stack(scores), dim=0) / (len(scores) - 1)


def insertion(
    score: Callable[[Tensor], Tensor],
    images: Tensor,
    mask: Tensor,
    fill: Tensor,
    steps: int = 10,
) -> Tensor:
    """Return the area under the score as pixels appear; higher is better.

    RISE's metric (Petsiuk et al., BMVC 2018). The fill is replaced by the
    image in ``steps`` equal parts, highest mask values first. ``score``
    maps images to ``(B,)``, for example the probability of the target
    classes. RISE uses a blur as the fill for insertion.
    """
    return _area_under(
        [score(composite(images, m, fill)) for m in _curve(mask, steps)]
    )


def deletion(
    score: Callable[[Tensor], Tensor],
    images: Tensor,
    mask: Tensor,
    fill: Tensor,
    steps: int = 10,
) -> Tensor:
    """Return the area under the score as pixels vanish; lower is better.

    As :func:`insertion`, but the image is replaced by the fill.
    """
    return _area_under(
        [
            score(composite(images, complement(m), fill))
            for m in _curve(mask, steps)
        ]
    )


def class_iou(
    class_masks: Tensor, truth: Tensor, valid: Tensor | None = None
) -> Tensor:
    """Return :func:`iou` at 0.5 for each class, ``(B, C)``.

    ``class_masks`` and ``truth`` (see :func:`class_truth`) are
    ``(B, C, H, W)``. NaN for a class that has no pixel in an image. On
    images with several classes, the same mask for all classes scores low.
    """
    b, c = truth.shape[:2]
    v = torch.ones_like(truth[:, 0]) if valid is None else valid
    v = v[:, None].expand_as(truth).flatten(0, 1)
    g = truth.flatten(0, 1)
    scores = iou(class_masks.flatten(0, 1), g, v)
    present = (g & v).flatten(1).any(1)
    return torch.where(present, scores, torch.nan).reshape(b, c)


def share_on(mask: Tensor, marker: Tensor) -> Tensor:
    """Return the share of a mask's sum that lies on a planted shortcut.

    ``marker`` is ``(B, H, W)`` bool. NaN for an all-zero mask and for an
    image without the marker. For a constant mask it is the marker's share of
    the image.
    """
    m, on = mask.flatten(1), marker.flatten(1)
    share = (m * on).sum(1) / m.sum(1)
    return torch.where(on.any(1), share, torch.nan)


METRICS: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "accuracy": accuracy,
    "iou": mean_iou,
    "iou_50": iou,
    "mae": mae,
    "f1": mean_f1,
    "f1_25": lambda m, g, v: f1(m, g, v, 0.25),
    "f1_50": f1,
    "f1_75": lambda m, g, v: f1(m, g, v, 0.75),
    "auc": auc,
    "coverage": coverage,
    "background_coverage": background_coverage,
    "pointing_game": pointing_game,
}
"""The metrics of a mask against the truth, by their names in tables.

``iou`` is the paper's mean over thresholds, ``iou_50`` that at 0.5.
"""
