"""The scoreboard: methods x images -> rows -> a table of results.

:func:`evaluate` measures every method on every image and writes each row to a
``.jsonl`` file as soon as it is known; :mod:`explainer.evaluation.summary`
turns rows into means, intervals and differences. If it is interrupted at any
moment, the same call resumes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from explainer import metrics
from explainer.classifiers import evaluating, probabilities, unfrozen
from explainer.data import Batch, LabelledImages, collate, describe_data
from explainer.evaluation.images import (
    Chosen,
    Settings,
    device_of,
    select,
    to_device,
)
from explainer.evaluation.jsonl import Row, measured_rows, open_rows
from explainer.evaluation.methods import (
    Contender,
    EvaluationError,
    attribute,
    check_request,
    measured_with,
)
from explainer.evaluation.summary import is_result, summarise
from explainer.files import write_json
from explainer.masks import composite, make_fill, target_mask
from explainer.provenance import (
    command_line,
    describe,
    environment,
    peak_memory_mb,
    reset_peak_memory,
)
from explainer.streams import per_image


def mean_probability(
    classifier: nn.Module, logits: Tensor, targets: Tensor
) -> Tensor:
    """Return the mean probability of the target classes, ``(B,)``.

    ``logits`` and ``targets`` (0 or 1) are ``(B, C)``.
    """
    p = probabilities(classifier, logits)
    return (p * targets).sum(1) / targets.sum(1)


def mask_metrics(
    classifier: nn.Module,
    batch: Batch,
    targets: Tensor,
    class_masks: Tensor,
    fill: Tensor,
    settings: Settings,
    markers: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return every metric of the merged target masks, each ``(B,)``.

    Only ``class_iou`` is ``(B, C)``: the IoU at threshold 0.5 per class, NaN
    if the class is not in the image.

    Parameters
    ----------
    classifier:
        F, in eval mode.
    batch:
        Images with masks.
    targets, class_masks:
        ``(B, C)``, and ``(B, C, H, W)`` in [0, 1].
    fill:
        What a mask shows where it is 0 (:func:`~explainer.masks.make_fill`).
    settings:
        Its ``void`` and ``steps``.
    markers:
        ``(B, H, W)``, the pixels of a planted shortcut. If given,
        ``shortcut_share`` is the share of the mask on them.
    """
    assert batch.masks is not None
    images, n_classes = batch.images, targets.shape[1]
    m = target_mask(class_masks, targets)
    truth, valid = metrics.ground_truth(batch.masks, n_classes, settings.void)
    table = {
        name: metric(m, truth, valid)
        for name, metric in metrics.METRICS.items()
    }
    each = metrics.class_truth(batch.masks, n_classes)
    table["class_iou"] = metrics.class_iou(class_masks, each, valid)
    if markers is not None:
        table["shortcut_share"] = metrics.share_on(m, markers)

    logits = classifier(composite(images, m, fill))
    table["saliency"] = metrics.saliency(m, logits, targets)
    if settings.steps:

        def score(masked: Tensor) -> Tensor:
            return mean_probability(classifier, classifier(masked), targets)

        rest = (images, m, fill, settings.steps)
        table["insertion"] = metrics.insertion(score, *rest)
        table["deletion"] = metrics.deletion(score, *rest)
    return table


def _markers(data: LabelledImages, indices: Sequence[int]) -> Tensor | None:
    """Return the pixels of a planted shortcut, if the dataset has one."""
    if getattr(data, "shortcut", None) is None:
        return None
    marker: Callable[[int], Tensor] = data.marker  # type: ignore[attr-defined]
    return torch.stack([marker(i) for i in indices])


def _timed(
    call: Callable[[], Tensor], device: torch.device
) -> tuple[Tensor, float, dict[str, float]]:
    """Return a call's result, its time in seconds and its peak memory."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    reset_peak_memory()
    start = now()
    result = call()
    return result, now() - start, peak_memory_mb()


def _measured(
    name: str,
    contender: Contender,
    classifier: nn.Module,
    data: LabelledImages,
    images: Mapping[int, Chosen],
    settings: Settings,
    indices: Sequence[int],
) -> list[Row]:
    """Return one row per image of the batch ``indices``."""
    device = device_of(classifier)
    chosen = [images[index] for index in indices]
    batch = to_device(collate([data[i] for i in indices]), device)
    targets = torch.stack([image.targets for image in chosen]).to(device)
    class_masks, seconds, memory = _timed(
        lambda: attribute(
            name, contender, classifier, batch, targets, settings.seed
        ),
        device,
    )
    noise = per_image(settings.seed, indices, "noise")
    markers = _markers(data, indices)
    with torch.no_grad():
        table = mask_metrics(
            classifier,
            batch,
            targets,
            class_masks,
            make_fill(settings.fill, batch.images, classifier, noise),
            settings,
            None if markers is None else markers.to(device),
        )
    values = {key: column.tolist() for key, column in table.items()}
    class_iou = values.pop("class_iou")

    def named(flags: Tensor) -> list[str]:
        return [c for c, on in zip(data.classes, flags, strict=True) if on]

    return [
        {
            "index": image.index,
            "name": image.name,
            "labels": named(batch.labels[i]),
            "targets": named(image.targets),
            "right": image.right,
            "seconds": seconds / len(chosen),
            **memory,
            **{key: column[i] for key, column in values.items()},
            "class_iou": {
                c: value
                for c, value in zip(data.classes, class_iou[i], strict=True)
                if value == value  # the class is in the image
            },
        }
        for i, image in enumerate(chosen)
    ]


def evaluate(
    methods: Mapping[str, Contender],
    classifier: nn.Module,
    data: LabelledImages,
    *,
    out: Path,
    settings: Settings | None = None,
    limit: int | None = None,
    notes: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Return the table of the methods' results; write it to ``out``.

    Random draws for an image depend only on the seed and on its index in the
    dataset. Its row is therefore the same in any batch and for any ``limit``.

    Parameters
    ----------
    methods:
        The rows of the table by name. Differences are relative to the one
        named "explainer", if present.
    classifier:
        F, maps ``(B, 3, H, W)`` in [0, 1] to logits ``(B, C)``. Everything
        runs on its device.
    data:
        Images of one size with masks; its classes are the classifier's.
    out:
        A ``.json`` file for the table, written at the end. The rows go to the
        ``.jsonl`` file beside it. Rows in that file are not measured again,
        even if a later call asks for more images or methods.
    settings:
        Settings of all methods; by default the paper's.
    limit:
        The number of images at most: the first that have a target.
    notes:
        Additional entries of the card.
    progress:
        Show a bar for each method.

    Returns
    -------
    The content of ``out``: see
    :func:`explainer.evaluation.summary.summarise`. ``card`` records how the
    results were made.

    Raises
    ------
    EvaluationError
        When no image is left, or a method returns no masks in [0, 1].
    RowsError
        When the rows on disk are damaged or belong to another experiment.
    OutOfTime
        When a time limit has passed; finished rows are kept.
    """
    settings = settings or Settings()
    check_request(methods, out)
    file = open_rows(
        out.with_suffix(".jsonl"),
        lambda row: is_result(row) and metrics.METRICS.keys() <= row.keys(),
    )
    made_with = environment()
    table = {}
    with evaluating(classifier):
        chosen = select(classifier, data, settings, limit)
        if not chosen.images:
            raise EvaluationError(
                f"none of the {len(data)} images has a target class and a "
                "mask; choose another split or other classes"
            )
        images = chosen.by_index
        common = {
            "data": describe_data(data),
            "classifier": describe(unfrozen(classifier)),
            "resolution": list(chosen.resolution),
            "explainer": made_with["explainer"],
            **describe(settings),
        }
        for name, contender in methods.items():
            how = (name, contender, classifier, data, images, settings)
            table[name] = measured_rows(
                file,
                name,
                {**common, **contender.card},
                list(images)[: contender.limit],
                partial(_measured, *how),
                batch_size=contender.batch_size or settings.batch_size,
                names={index: image.name for index, image in images.items()},
                progress=progress,
            )
    results = summarise(table, seed=settings.seed)
    results["card"] = {
        **common,
        "n": len(images),
        "skipped": chosen.no_class,
        "skipped_without_mask": chosen.no_mask,
        "images_with_other_objects": chosen.other_objects,
        "classifier_map": chosen.classifier_map,
        "methods": {
            name: {**contender.card, "n": len(table[name])}
            for name, contender in methods.items()
        },
        "measured_with": measured_with(classifier, methods),
        "command": command_line(),
        **(notes or {}),
        **made_with,
    }
    write_json(out, results)
    return results
