"""The class-score table: does the mask of a class show only that class?

For the test images that contain class r, the classifier sees only what the
mask of class k keeps, and its probability of class r is recorded (paper,
section 4). It should stay high where k = r and fall elsewhere.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from explainer.classifiers import evaluating, unfrozen
from explainer.data import (
    LabelledImages,
    all_labels,
    collate,
    describe_data,
)
from explainer.evaluation.images import device_of, to_device
from explainer.evaluation.jsonl import (
    Row,
    is_number,
    measured_rows,
    open_rows,
)
from explainer.evaluation.methods import (
    Contender,
    EvaluationError,
    attribute,
    check_request,
    measured_with,
)
from explainer.evaluation.summary import estimate
from explainer.files import read_json, write_json
from explainer.masks import composite, make_fill
from explainer.metrics import THRESHOLDS
from explainer.provenance import command_line, describe, environment
from explainer.streams import per_image

LEAST_OWN, MOST_OTHER = 0.8, 0.25
"""A network separates the classes if each mask shows its own class with at
least the first probability, and every other with at most the second."""


def diagonal_and_rest(
    scores: Sequence[Sequence[float | None]],
) -> tuple[float, float]:
    """Return the mean of the diagonal and the mean off the diagonal.

    ``scores`` is ``K x (1 + K)`` as in :func:`class_score_tables`; the column
    "none" and rows without images are left out. Masks that separate the
    classes have a high first value and a low second one. NaN where there is
    nothing to average.
    """
    own, other = own_and_other(scores)
    return _mean(own), _mean(other)


def own_and_other(
    scores: Sequence[Sequence[float | None]],
) -> tuple[list[float], list[float]]:
    """Return the diagonal's class scores and all others, as lists.

    ``scores`` as in :func:`diagonal_and_rest`, which averages them.
    """
    own: list[float] = []
    other: list[float] = []
    for r, row in enumerate(scores):
        for k, value in enumerate(row[1:]):
            if value is not None:
                (own if k == r else other).append(value)
    return own, other


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _among(classes: Sequence[str], data: LabelledImages) -> Tensor:
    """Return the indices of the named classes among the dataset's."""
    unknown = [c for c in classes if c not in data.classes]
    if unknown or not classes:
        raise EvaluationError(
            f"no class {', '.join(unknown) or 'given'}; the data has "
            f"{', '.join(data.classes)}"
        )
    return torch.tensor([data.classes.index(c) for c in classes])


def distinct_views(shown: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct ones among binary masks, and the index of each.

    ``shown`` is ``(B, K, T, H, W)`` bool: masks of K classes at T thresholds.
    A mask at a higher threshold lies within the mask at a lower one, so two
    masks of one class are equal if their areas are. Empty masks are equal for
    all classes, and so are full ones.

    Returns
    -------
    ``(V, 3)``, image, class and threshold of each distinct mask, and
    ``(B * K * T,)``, for each mask its row in the first tensor.
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
    """Return softmax scores under each class's binarised mask.

    The scores are ``(B, 1 + K, C)``, those of the unmasked image first,
    averaged over the thresholds 0.1, ..., 0.9. ``images`` is ``(B, 3, H,
    W)``, ``class_masks`` ``(B, K, H, W)`` of the K classes; ``fill`` as in
    :func:`~explainer.masks.composite`. The classifier sees ``batch_size``
    masked images at a time. Equal ones are classified once, which saves time
    since good masks of absent classes are empty at every threshold.
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


def _measured(
    name: str,
    contender: Contender,
    classifier: nn.Module,
    data: LabelledImages,
    table: Tensor,
    fill: str,
    seed: int,
    indices: Sequence[int],
) -> list[Row]:
    """Return one row per image of a batch: ``(1 + K, K)`` probabilities."""
    device = device_of(classifier)
    batch = to_device(collate([data[i] for i in indices]), device)
    targets = torch.zeros_like(batch.labels)
    targets[:, table] = 1
    masks = attribute(name, contender, classifier, batch, targets, seed)
    noise = per_image(seed, indices, "noise")
    background = make_fill(fill, batch.images, classifier, noise)
    with torch.no_grad():
        p = masked_scores(
            classifier, batch.images, masks[:, table], background
        )
    return [
        {"index": index, "scores": scores}
        for index, scores in zip(
            indices, p[:, :, table].tolist(), strict=True
        )
    ]


def _tabulate(
    names: Sequence[str], rows: Sequence[Row], present: Tensor, seed: int
) -> dict[str, Any]:
    """Return a method's table: averages over each class's images."""
    scores = torch.tensor([row["scores"] for row in rows]).double()
    cells = [
        [
            estimate(column.tolist(), seed)
            for column in scores[present[:, r], :, r].T
        ]
        for r in range(len(names))
    ]
    return {
        "classes": list(names),
        "columns": ["none", *names],
        "scores": [[cell["mean"] for cell in row] for row in cells],
        "ci": [[cell["ci"] for cell in row] for row in cells],
        "n": present.sum(0).tolist(),
    }


def _is_sound(row: Row, k: int) -> bool:
    """Return whether a row read from disk holds an image's scores."""
    scores = row.get("scores")
    return (
        isinstance(scores, list)
        and len(scores) == 1 + k
        and all(isinstance(p, list) and len(p) == k for p in scores)
        and all(is_number(value) for p in scores for value in p)
    )


def _on_disk(
    out: Path | None, common: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the tables on disk, and the checkpoints they were measured with.

    ``common`` is what all tables share. Raises :class:`EvaluationError` if
    the file holds tables of other settings, or no tables.
    """
    if out is None or not out.exists():
        return {}, {}
    tables = read_json(out)
    card = tables.pop("card", None)
    if not isinstance(card, dict) or not all(
        isinstance(table, dict) and "settings" in table
        for table in tables.values()
    ):
        raise EvaluationError(
            f"{out} holds no class scores; write the results elsewhere"
        )
    differing = [k for k in common if card.get(k) != common[k]]
    if differing:
        raise EvaluationError(
            f"{out} holds class scores that were made with other settings "
            f"({', '.join(differing)}); delete it, or write the results "
            "elsewhere"
        )
    return tables, card.get("measured_with", {})


def class_score_tables(
    methods: Mapping[str, Contender],
    classifier: nn.Module,
    data: LabelledImages,
    *,
    out: Path | None = None,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    fill: str = "mean",
    seed: int = 0,
    batch_size: int = 8,
    notes: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Return the class-score tables of methods; write them to a file.

    A method returns masks of *all* classes of the table, present in the image
    or not. An image with several of the classes counts in several rows.

    The file is rewritten after each method. The rows of single images are in
    the ``.jsonl`` file beside it. After an interruption the same call
    resumes. Other methods in the file are kept.

    Parameters
    ----------
    methods:
        Methods by name; their ``limit`` and ``batch_size`` apply.
    classifier, data:
        As in :func:`explainer.evaluation.evaluate`; no masks are needed.
    out:
        A ``.json`` file; None writes nothing.
    classes:
        The classes of the table; by default all.
    limit:
        The number of images at most: the first that show one of the classes.
    fill, seed:
        As in :class:`~explainer.evaluation.images.Settings`.
    batch_size:
        Images at a time.
    notes:
        Additional entries of the card.
    progress:
        Show a bar for each method.

    Returns
    -------
    The content of the file. Under each method's name: ``classes``, the K
    classes; ``columns``, "none" for the unmasked image and the classes;
    ``scores``, K x (1 + K), the mean probability (softmax) of the row's
    class under the mask of the column's, and ``ci``, its bootstrap 95%
    interval over images, both None in a row without images; ``n``, the
    images of each row; ``settings``, and what the table was ``made_with``.
    Under ``card`` what all have in common.

    Raises
    ------
    EvaluationError
        If the data lacks a class, no image shows any of them, or ``out``
        holds something else.
    RowsError
        If the rows beside it are damaged or of other settings.
    OutOfTime
        If a time limit has passed; finished rows are kept.
    """
    check_request(methods, out)
    names = list(data.classes if classes is None else classes)
    table = _among(names, data)
    common = {
        "data": describe_data(data),
        "classifier": describe(unfrozen(classifier)),
        "classes": names,
        "limit": limit,
        "fill": fill,
        "seed": seed,
    }
    tables, checkpoints = _on_disk(out, common)
    labels = all_labels(data)[:, table] > 0
    showing = labels.any(1).nonzero()[:, 0].tolist()[:limit]
    if not showing:
        raise EvaluationError(
            f"no image shows any of the classes {', '.join(names)}"
        )
    sound = partial(_is_sound, k=len(names))
    file = open_rows(out and out.with_suffix(".jsonl"), sound)
    made_with = environment()
    card = {
        **common,
        "measured_with": checkpoints | measured_with(classifier, methods),
        **(notes or {}),
        "command": command_line(),
        **made_with,
    }
    for name, contender in methods.items():
        settings = {**contender.card, "limit": contender.limit}
        indices = showing[: contender.limit]
        how = (name, contender, classifier, data, table, fill, seed)
        with evaluating(classifier):
            rows = measured_rows(
                file,
                name,
                {**common, **settings},
                indices,
                partial(_measured, *how),
                batch_size=contender.batch_size or batch_size,
                progress=progress,
            )
        tables[name] = {
            **_tabulate(names, rows, labels[indices], seed),
            "settings": settings,
            "made_with": made_with,
        }
        if out is not None:
            write_json(out, {**tables, "card": card})
    return {**tables, "card": card}
