"""Two tests that an explanation can fail.

*Does it find a planted shortcut?* Where a classifier is known to look at a
marker and at nothing else, the marker is the truth about the explanation,
and the object is not.

*Does it fall apart with the classifier?* An explanation that hardly changes
when the classifier's weights are replaced by random ones was about the
image, not about the classifier (Adebayo et al., *Sanity checks for saliency
maps*, NeurIPS 2018). A trained explanation has to be trained again for the
random classifier.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torchmetrics.functional.regression import spearman_corrcoef

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
"""One value per image, by the name of what is measured; see
:func:`explainer.evaluation.summary.estimate`."""


def reliance(
    classifier: nn.Module, shortcut: Shortcut, n: int = 500
) -> dict[str, dict[str, float]]:
    """Return how much a classifier believes a marker, and how much a shape.

    The mean probability of the shortcut's class on test scenes: by
    ``object`` and ``no object``, whether the class is there, and within
    by ``marker`` and ``no marker``, whether the marker was planted.
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
    """Return the first ``limit`` images that carry the marker, by index."""
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

    It explains the labels, or the one class of ``class_index``.
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
    """Return where the mask of a cheated class lies.

    ``mask``, ``marker`` and ``shape`` are ``(N, H, W)``; ``shape`` is where
    objects of the class are. ``marker`` and ``shape`` are the shares of the
    mask's mass on them, NaN for an empty mask; ``even``, the marker's share
    of the image, is what a constant mask would reach; ``pointing`` is
    whether the highest pixel is on the marker.
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
    """Return :func:`on_marker` by method for images that are marked."""
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
    """Return a frozen copy of a classifier with every weight drawn anew.

    Each layer is initialised as PyTorch does it when it is built; batch norm
    forgets its statistics. The original stays as it is, and so does the
    global random state.
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
    """Return Spearman's correlation of masks ``(N, H, W)``, image by image.

    1 for the same order of pixels, 0 for none in common; NaN where a mask
    is constant and has no order.
    """
    a, b = first.flatten(1).double(), second.flatten(1).double()
    varies = (a.std(1) > 0) & (b.std(1) > 0)
    rho = torch.full((len(a),), torch.nan, dtype=a.dtype)
    if varies.any():
        found = spearman_corrcoef(a[varies].T, b[varies].T)
        rho[varies] = found.reshape(-1).to(rho)
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
    the two; ``auc_before``, ``auc_after`` and ``iou_before``, ``iou_after``
    measure each against the truth.
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
