"""The class-score table: does the mask of a class show that class alone?

For the test images that contain class r, show the classifier only what the
mask of class k keeps, and note its probability of class r (paper, section
4). It should stay high where k = r and fall elsewhere.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from explainer.classifiers import evaluating
from explainer.data import LabelledImages, all_labels, collate
from explainer.evaluation.bootstrap import mean_interval
from explainer.evaluation.images import device_of, to_device
from explainer.evaluation.jsonl import Row, RowFile, is_number
from explainer.evaluation.methods import (
    Contender,
    EvaluationError,
    attribute,
)
from explainer.masks import composite, make_fill
from explainer.metrics import THRESHOLDS
from explainer.streams import per_image


@dataclass(frozen=True)
class ClassScores:
    """Softmax probabilities of class r (rows) under the mask of class k.

    ``columns`` is "none", the unmasked image, and the K classes; ``scores``
    and ``ci`` (bootstrap 95% intervals over images) have K rows of K + 1
    entries, None in a row without images; ``n`` counts the images of each
    row.
    """

    classes: list[str]
    columns: list[str]
    scores: list[list[float | None]]
    ci: list[list[tuple[float, float] | None]]
    n: list[int]

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON can hold it."""
        return asdict(self)


def diagonal_and_rest(
    scores: Sequence[Sequence[float | None]],
) -> tuple[float, float]:
    """Return the mean of the diagonal and that of all others but "none".

    ``scores`` is ``K x (1 + K)`` as in :class:`ClassScores`; rows without
    images are passed over. Masks that tell classes apart have a high first
    number and a low second one. NaN where there is nothing to average.
    """
    own: list[float] = []
    other: list[float] = []
    for r, row in enumerate(scores):
        for k, value in enumerate(row[1:]):
            if value is not None:
                (own if k == r else other).append(value)
    return _mean(own), _mean(other)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def columns_of(classes: Sequence[str], data: LabelledImages) -> Tensor:
    """Return the indices of the named classes among the dataset's."""
    unknown = [c for c in classes if c not in data.classes]
    if unknown or not classes:
        raise EvaluationError(
            f"no class {', '.join(unknown) or 'given'}; the data has "
            f"{', '.join(data.classes)}"
        )
    return torch.tensor([data.classes.index(c) for c in classes])


def distinct_views(shown: Tensor) -> tuple[Tensor, Tensor]:
    """Find the different ones among binary masks.

    ``shown`` is ``(B, K, T, H, W)`` bool: masks of K classes at T
    thresholds. What a higher threshold keeps lies within what a lower one
    keeps, so two masks of a class are equal if they are equally large; and
    all empty masks are equal, and all full ones, whatever their class.

    Returns
    -------
    ``(V, 3)``, image, class and threshold of one mask of each kind, and
    ``(B * K * T,)``, the kind that each mask is of.
    """
    area = shown.flatten(3).sum(3)
    which = torch.ones_like(area).nonzero()
    image, k, _ = which.T
    area = area.flatten()
    trivial = (area == 0) | (area == shown[0, 0, 0].numel())
    keys = torch.stack([image, torch.where(trivial, -1, k), area], 1)
    kinds, kind = torch.unique(keys, dim=0, return_inverse=True)
    one_of = torch.empty_like(kind[: len(kinds)])
    one_of[kind] = torch.arange(len(kind), device=kind.device)
    return which[one_of], kind


def masked_scores(
    classifier: nn.Module,
    images: Tensor,
    class_masks: Tensor,
    fill: Tensor,
    batch_size: int = 16,
) -> Tensor:
    """Return the softmax of images under each class's binarised mask.

    Averaged over the thresholds 0.1, ..., 0.9. ``images`` is
    ``(B, 3, H, W)``, ``class_masks`` ``(B, K, H, W)`` of the K classes; the
    result is ``(B, 1 + K, C)``, first the unmasked image. The classifier
    sees ``batch_size`` masked images at a time, and equal ones but once:
    good masks of absent classes are empty at every threshold.
    """
    thresholds = torch.tensor(THRESHOLDS).to(class_masks)
    shown = class_masks[:, :, None] > thresholds[:, None, None]
    views, kind = distinct_views(shown)
    background = fill.expand_as(images)
    scores = []
    for image, k, t in (part.T for part in torch.split(views, batch_size)):
        binary = shown[image, k, t][:, None].to(images.dtype)
        masked = composite(images[image], binary, background[image])
        scores.append(classifier(masked).softmax(1))
    p = torch.cat(scores)[kind].reshape(*shown.shape[:3], -1).mean(2)
    whole = classifier(images).softmax(1)
    return torch.cat([whole[:, None], p], 1)


def class_scores(
    contender: Contender,
    classifier: nn.Module,
    data: LabelledImages,
    *,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    fill: str = "mean",
    seed: int = 0,
    batch_size: int = 8,
    file: RowFile | None = None,
    progress: bool = False,
) -> ClassScores:
    """Measure the class-score table of one method.

    The method is asked for the masks of *all* the classes of the table, in
    the image or not. An image with several of the classes counts in several
    rows.

    Parameters
    ----------
    contender:
        The method and its options; its ``limit`` and ``batch_size`` apply.
    classifier, data:
        As in :func:`explainer.evaluation.evaluate`; no masks are needed.
    classes:
        Names of the table's rows and columns; by default all.
    limit:
        At most so many images: the first that show one of the classes.
    fill, seed:
        As in :class:`~explainer.evaluation.images.Settings`.
    batch_size:
        Images at a time.
    file:
        Gets a row for each image; what has one is not measured again.

    Raises
    ------
    EvaluationError
        For a class that the data does not have, or no image of any.
    RowsError
        When the rows on disk are damaged.
    """
    names = list(data.classes if classes is None else classes)
    table = columns_of(names, data)
    size = contender.batch_size or batch_size
    indices = _showing(data, table, limit, contender.limit)
    if not indices:
        raise EvaluationError(
            f"no image shows any of the classes {', '.join(names)}"
        )
    rows: dict[int, Row] = {}
    if file:
        file.check(partial(_is_sound, k=len(names)))
        rows = {row["index"]: row for row in file.rows}
    with (
        evaluating(classifier),
        tqdm(
            total=len(indices), desc="class scores", disable=not progress
        ) as bar,
    ):
        for start in range(0, len(indices), size):
            part = indices[start : start + size]
            if any(index not in rows for index in part):
                # All of the batch again: then nothing hangs on where a run
                # was killed.
                scores = _scores_of(
                    contender, classifier, data, part, table, fill, seed
                )
                new = {
                    index: {"index": index, "scores": p.tolist()}
                    for index, p in zip(part, scores, strict=True)
                    if index not in rows
                }
                if file:
                    file.append(new.values())
                rows |= new
            bar.update(len(part))
    scores = torch.tensor([rows[index]["scores"] for index in indices])
    present = all_labels(data)[indices][:, table] > 0
    return _tabulate(names, scores, present, seed)


def _is_sound(row: Row, k: int) -> bool:
    """Tell whether a row is the settings or one image's scores."""
    if "settings" in row:
        return "index" in row and row["index"] is None
    scores = row.get("scores")
    return (
        isinstance(row.get("index"), int)
        and isinstance(scores, list)
        and len(scores) == 1 + k
        and all(isinstance(p, list) and len(p) == k for p in scores)
        and all(is_number(value) for p in scores for value in p)
    )


def _showing(
    data: LabelledImages, table: Tensor, *limits: int | None
) -> list[int]:
    """Return the first images with a class of the table, by their labels."""
    found = (all_labels(data)[:, table] > 0).any(1).nonzero()[:, 0].tolist()
    return found[: min((n for n in limits if n is not None), default=None)]


def _scores_of(
    contender: Contender,
    classifier: nn.Module,
    data: LabelledImages,
    indices: Sequence[int],
    table: Tensor,
    fill: str,
    seed: int,
) -> Tensor:
    """Return a batch's ``(B, 1 + K, K)`` probabilities of the K classes."""
    device = device_of(classifier)
    batch = to_device(collate([data[i] for i in indices]), device)
    targets = torch.zeros_like(batch.labels)
    targets[:, table] = 1
    masks = attribute(
        "the method", contender, classifier, batch, targets, seed
    )
    noise = per_image(seed, indices, "noise")
    background = make_fill(fill, batch.images, classifier, noise)
    with torch.no_grad():
        p = masked_scores(
            classifier, batch.images, masks[:, table], background
        )
    return p[:, :, table].cpu()


def _tabulate(
    names: list[str], scores: Tensor, present: Tensor, seed: int
) -> ClassScores:
    """Average over each class's images; ``scores`` is ``(N, 1 + K, K)``."""
    means: list[list[float | None]] = []
    ci: list[list[tuple[float, float] | None]] = []
    for r in range(len(names)):
        column = scores[present[:, r], :, r].double()
        if len(column):
            means.append(column.mean(0).tolist())
            ci.append([mean_interval(x, seed) for x in column.T.tolist()])
        else:
            means.append([None] * (len(names) + 1))
            ci.append([None] * (len(names) + 1))
    return ClassScores(
        classes=names,
        columns=["none", *names],
        scores=means,
        ci=ci,
        n=present.sum(0).tolist(),
    )
