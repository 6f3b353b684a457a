"""Two sanity checks of explanations.

*Does it find a planted shortcut?* If a classifier is known to rely only on a
marker, a correct explanation shows the marker and not the object.

*Does it depend on the classifier?* An explanation that hardly changes when
the classifier's weights are randomised describes the image, not the
classifier (Adebayo et al., *Sanity checks for saliency maps*, NeurIPS 2018).
A trained Explainer has to be trained again for the random classifier.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from explainer import metrics
from explainer.classifiers import (
    Frozen,
    evaluating,
    frozen,
    probabilities,
    unfrozen,
)
from explainer.data import LabelledImages, Scenes, Shortcut, collate
from explainer.evaluation.images import batches, device_of, to_device
from explainer.evaluation.methods import Contender, attribute
from explainer.masks import target_mask
from explainer.training import logits_and_labels

Rows = dict[str, list[float]]
"""Values per image by the name of the measure; see
:func:`explainer.evaluation.summary.estimate`."""


def reliance(
    classifier: nn.Module, shortcut: Shortcut, n: int = 500
) -> dict[str, dict[str, float]]:
    """Return how much a classifier relies on the marker and on the object.

    The values are mean probabilities of the shortcut's class on test scenes.
    The outer keys ``object`` and ``no object`` say whether the class is
    present, the inner keys ``marker`` and ``no marker`` whether the marker
    is.
    """
    everywhere = replace(shortcut, q=1.0, leak=1.0, decides=False)
    with_marker = Scenes("test", n, shortcut=everywhere)
    without = Scenes("test", n)
    c = without.classes.index(shortcut.class_name)
    has_object = without.labels[:, c] > 0
    device = device_of(classifier)
    table: dict[str, dict[str, float]] = {"object": {}, "no object": {}}
    for name, data in (("marker", with_marker), ("no marker", without)):
        logits, _ = logits_and_labels(classifier, data, device=device)
        p = probabilities(classifier, logits)[:, c]
        table["object"][name] = float(p[has_object].mean())
        table["no object"][name] = float(p[~has_object].mean())
    return table


def marked(data: Scenes, limit: int | None = None) -> list[int]:
    """Return the indices of the first ``limit`` images with the marker."""
    found: list[int] = []
    for i in range(len(data)):
        if limit is not None and len(found) == limit:
            break
        if data.marker(i).any():
            found.append(i)
    return found


def class_masks_of(
    name: str,
    contender: Contender,
    classifier: nn.Module,
    data: LabelledImages,
    indices: Sequence[int],
    class_index: int | None = None,
) -> Tensor:
    """Return a method's masks of some images, ``(N, C, H, W)`` on the CPU.

    It explains the labelled classes, or only the class ``class_index``.
    """
    found = []
    device = device_of(classifier)
    for _, part in batches(data, indices, contender.batch_size or 16):
        targets = part.labels
        if class_index is not None:
            targets = torch.zeros_like(targets)
            targets[:, class_index] = 1
        with evaluating(classifier):
            masks = attribute(
                name,
                contender,
                classifier,
                to_device(part, device),
                targets.to(device),
                seed=0,
            )
        found.append(masks.cpu())
    return torch.cat(found)


def on_marker(mask: Tensor, marker: Tensor, shape: Tensor) -> Rows:
    """Return how much of a class's mask lies on marker and object.

    ``mask``, ``marker`` and ``shape`` are ``(N, H, W)``; ``shape`` marks the
    objects of the class. Returned per image: ``marker`` and ``shape``, the
    shares of the mask's sum on them (NaN for an empty mask); ``even``, the
    marker's share of the image, which a constant mask would reach;
    ``pointing``, whether the largest pixel is on the marker.
    """
    on_shape = metrics.share_on(mask, shape)
    return {
        "marker": metrics.share_on(mask, marker).tolist(),
        "shape": on_shape.tolist(),
        "even": marker.float().mean((1, 2)).tolist(),
        "pointing": metrics.pointing_game(mask, marker).tolist(),
    }


def find_marker(
    methods: Mapping[str, Contender],
    classifier: nn.Module,
    data: Scenes,
    indices: Sequence[int],
) -> dict[str, Rows]:
    """Return :func:`on_marker` by method for images with the marker."""
    assert data.shortcut is not None
    c = data.classes.index(data.shortcut.class_name)
    marker = torch.stack([data.marker(i) for i in indices])
    ids = torch.stack([_ids(data, i) for i in indices])
    return {
        name: on_marker(
            class_masks_of(name, method, classifier, data, indices, c)[:, c],
            marker,
            ids == c + 1,
        )
        for name, method in methods.items()
    }


def _ids(data: LabelledImages, index: int) -> Tensor:
    mask = data[index].mask
    assert mask is not None
    return mask


def randomised(classifier: nn.Module, seed: int = 0) -> Frozen:
    """Return a frozen copy of a classifier with random weights.

    Each layer gets PyTorch's default initialisation, and the statistics of
    batch norm are reset. The original and the global random state are
    unchanged.
    """
    copy = deepcopy(unfrozen(classifier))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in copy.modules():
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
    return frozen(copy)


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return Spearman's rank correlation of masks ``(N, H, W)`` per image.

    The result is ``(N,)``: 1 for the same order of pixels, 0 for unrelated
    orders, NaN if a mask is constant.
    """
    from scipy.stats import spearmanr  # late: it takes a second

    a, b = first.flatten(1).double(), second.flatten(1).double()
    varies = (a.std(1) > 0) & (b.std(1) > 0)
    rho = torch.full((len(a),), torch.nan, dtype=a.dtype)
    for i in varies.nonzero()[:, 0].tolist():
        rho[i] = spearmanr(a[i].cpu(), b[i].cpu())[0]
    return rho


def fall_apart(
    before: Tensor,
    after: Tensor,
    data: LabelledImages,
    indices: Sequence[int],
) -> Rows:
    """Return how masks change when the classifier is randomised.

    ``before`` and ``after`` are class masks ``(N, C, H, W)`` of the images'
    labels, merged here. ``correlation`` is the :func:`rank_correlation` of
    the two. ``auc_before``, ``auc_after``, ``iou_before`` and ``iou_after``
    compare each with the true masks.
    """
    batch = collate([data[i] for i in indices])
    assert batch.masks is not None
    truth, valid = metrics.ground_truth(batch.masks, before.shape[1])
    old = target_mask(before, batch.labels)[:, 0]
    new = target_mask(after, batch.labels)[:, 0]
    rows = {"correlation": rank_correlation(old, new)}
    for name, mask in (("before", old), ("after", new)):
        rows[f"auc_{name}"] = metrics.auc(mask, truth, valid)
        rows[f"iou_{name}"] = metrics.mean_iou(mask, truth, valid)
    return {name: column.tolist() for name, column in rows.items()}
