"""The class-score table: does the mask of a class show that class alone?

For the test images that contain class r, show the classifier only what the
mask of class k keeps, and note its probability of class r (paper, section
4). It should stay high where k = r and fall elsewhere.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from explainer.attribution._common import evaluating
from explainer.bootstrap import mean_interval
from explainer.card import command_line, describe, environment
from explainer.classifiers import Frozen
from explainer.contenders import (
    Contender,
    EvaluationError,
    attribute,
    describe_row,
)
from explainer.data.base import LabelledImages
from explainer.files import write_json
from explainer.masks import composite, make_fill
from explainer.metrics import THRESHOLDS
from explainer.selection import (
    batches,
    describe_data,
    device_of,
    to_device,
)


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


def _columns(classes: Sequence[str], data: LabelledImages) -> Tensor:
    """Return the indices of the named classes among the dataset's."""
    unknown = [c for c in classes if c not in data.classes]
    if unknown or not classes:
        raise EvaluationError(
            f"no class {', '.join(unknown) or 'given'}; the data has "
            f"{', '.join(data.classes)}"
        )
    return torch.tensor([data.classes.index(c) for c in classes])


def masked_scores(
    classifier: nn.Module,
    images: Tensor,
    class_masks: Tensor,
    fill: Tensor,
) -> Tensor:
    """Return the softmax of images under each class's binarised mask.

    Averaged over the thresholds 0.1, ..., 0.9. ``images`` is
    ``(B, 3, H, W)``, ``class_masks`` ``(B, K, H, W)`` of the K classes; the
    result is ``(B, 1 + K, C)``, first the unmasked image.
    """
    b = len(images)
    thresholds = torch.tensor(THRESHOLDS).to(class_masks)
    columns = [classifier(images).softmax(1)]
    copies = len(THRESHOLDS)
    background = fill.expand_as(images).repeat(copies, 1, 1, 1)
    repeated = images.repeat(copies, 1, 1, 1)
    for mask in class_masks.unbind(1):  # (B, H, W): all thresholds at once
        binary = (mask > thresholds[:, None, None, None]).to(mask.dtype)
        masked = composite(
            repeated, binary.reshape(-1, 1, *mask.shape[1:]), background
        )
        p = classifier(masked).softmax(1)
        columns.append(p.reshape(copies, b, -1).mean(0))
    return torch.stack(columns, 1)


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
        As in :class:`~explainer.selection.Settings`.
    batch_size:
        Images at a time; the classifier sees nine times as many.

    Raises
    ------
    EvaluationError
        For a class that the data does not have, or no image of any.
    """
    names = list(data.classes if classes is None else classes)
    table = _columns(names, data)
    device = device_of(classifier)
    size = contender.batch_size or batch_size
    limits = [n for n in (limit, contender.limit) if n is not None]
    showing = (i for i in range(len(data)) if data[i].labels[table].any())
    indices = list(islice(showing, min(limits, default=None)))
    if not indices:
        raise EvaluationError(
            f"no image shows any of the classes {', '.join(names)}"
        )
    every = torch.zeros(len(data.classes))
    every[table] = 1
    scores, present = [], []
    with (
        evaluating(classifier),
        tqdm(
            total=len(indices), desc="class scores", disable=not progress
        ) as bar,
    ):
        for _, batch in batches(data, indices, size):
            present.append(batch.labels[:, table] > 0)
            batch = to_device(batch, device)
            targets = every.expand(len(batch.images), -1).to(device)
            masks = attribute(
                "the method", contender, classifier, batch, targets, seed
            )
            noise = torch.Generator(device).manual_seed(seed)
            background = make_fill(fill, batch.images, classifier, noise)
            with torch.no_grad():
                p = masked_scores(
                    classifier, batch.images, masks[:, table], background
                )
            scores.append(p[:, :, table].cpu())
            bar.update(len(batch.images))
    return _tabulate(names, torch.cat(scores), torch.cat(present), seed)


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


def _tables_on_disk(
    out: Path, common: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the tables of an earlier call, after checking their origin.

    ``common`` is what all tables share, ``settings`` what each method is
    asked with; tables of methods that are not asked for are kept.
    """
    if not out.exists():
        return {}
    try:
        tables: dict[str, Any] = json.loads(out.read_text())
        card = tables.pop("card")
        theirs = {name: table["settings"] for name, table in tables.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(
            f"{out} holds no class scores; write the results elsewhere"
        ) from error
    differing = [k for k in common if card.get(k) != common[k]]
    differing += [
        name
        for name in settings
        if theirs.get(name, settings[name]) != settings[name]
    ]
    if differing:
        raise EvaluationError(
            f"{out} holds class scores that were made with other settings "
            f"({', '.join(differing)}); delete it, or write the results "
            "elsewhere"
        )
    return tables


def class_score_tables(
    methods: Mapping[str, Contender],
    classifier: nn.Module,
    data: LabelledImages,
    *,
    out: Path,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    fill: str = "mean",
    seed: int = 0,
    notes: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure the tables of several methods and write them as JSON.

    The file is written anew, whole, after each method; the same call after
    an interruption goes on with the first method that is missing, also if
    methods were added to it.

    Parameters
    ----------
    methods:
        The rows of the comparison by name.
    classifier, data, classes, limit, fill, seed, progress:
        As in :func:`class_scores`.
    out:
        A ``.json`` file.
    notes:
        What the card should say besides.

    Returns
    -------
    The content of ``out``: under each method's name the fields of
    :class:`ClassScores`, the ``settings`` of the method and what it was
    ``made_with``; under ``card`` what all have in common.

    Raises
    ------
    EvaluationError
        As :func:`class_scores`, and where ``out`` holds something else.
    """
    if "card" in methods or not methods:
        raise EvaluationError(
            "name at least one method, and none of them 'card'"
        )
    if out.suffix != ".json":
        raise EvaluationError(f"results go to a .json file, not to {out}")
    bare = (
        classifier.classifier
        if isinstance(classifier, Frozen)
        else classifier
    )
    common = {
        "data": describe_data(data),
        "classifier": describe(bare),
        "classes": list(data.classes if classes is None else classes),
        "limit": limit,
        "fill": fill,
        "seed": seed,
    }
    settings = {
        name: {**describe_row(contender), "limit": contender.limit}
        for name, contender in methods.items()
    }
    tables = _tables_on_disk(out, common, settings)
    made_with = environment()
    card = {
        **common,
        **(notes or {}),
        "command": command_line(),
        **made_with,
    }
    for name, contender in methods.items():
        if name not in tables:
            table = class_scores(
                contender,
                classifier,
                data,
                classes=classes,
                limit=limit,
                fill=fill,
                seed=seed,
                progress=progress,
            )
            tables[name] = {
                **table.to_json(),
                "settings": settings[name],
                "made_with": made_with,
            }
        write_json(out, {**tables, "card": card})
    return {**tables, "card": card}
