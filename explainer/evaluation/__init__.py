"""The scoreboard: methods x images -> rows -> a table of results.

:func:`evaluate` measures every method on every image and writes each row to
a ``.jsonl`` file as soon as it is known; :mod:`explainer.evaluation.summary` turns rows
into means, intervals and differences. Killed at any moment, the same call
goes on where it was.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from explainer import metrics
from explainer.classifiers import evaluating, probabilities, unfrozen
from explainer.data.base import Batch, LabelledImages, collate
from explainer.evaluation.images import (
    Chosen,
    Settings,
    describe_data,
    device_of,
    select,
    to_device,
)
from explainer.evaluation.jsonl import Row, RowFile
from explainer.evaluation.methods import (
    Contender,
    EvaluationError,
    attribute,
    describe_row,
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


def measure(
    classifier: nn.Module,
    batch: Batch,
    targets: Tensor,
    class_masks: Tensor,
    fill: Tensor,
    settings: Settings,
    markers: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return every metric of the merged target masks, each ``(B,)``.

    ``targets`` is ``(B, C)``, ``class_masks`` ``(B, C, H, W)`` in [0, 1];
    the images of the batch have masks. ``fill`` is what a mask shows where
    it is 0 (:func:`~explainer.masks.make_fill`). ``class_iou``, ``(B, C)``,
    is the exception: the IoU at 0.5 of each class by itself. With
    ``markers`` ``(B, H, W)``, the pixels of a planted shortcut, also
    ``shortcut_share``.
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

    def score(masked: Tensor) -> Tensor:
        p = probabilities(classifier, classifier(masked))
        return (p * targets).sum(1) / targets.sum(1)

    logits = classifier(composite(images, m, fill))
    table["saliency"] = metrics.saliency(m, logits, targets)
    if settings.steps:
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
    """Return the result of a call, its seconds and its peak memory."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    reset_peak_memory()
    start = now()
    result = call()
    return result, now() - start, peak_memory_mb()


def _is_sound(row: Row) -> bool:
    """Tell whether a row is a method's settings or one image's results."""
    if "settings" in row:
        return row.keys() == {"method", "settings"} and (
            isinstance(row["method"], str)
            and isinstance(row["settings"], dict)
        )
    return is_result(row) and metrics.METRICS.keys() <= row.keys()


@dataclass(frozen=True)
class _Bench:
    """Where methods are measured one after the other."""

    classifier: nn.Module
    data: LabelledImages
    images: Sequence[Chosen]
    settings: Settings
    card: Mapping[str, Any]
    file: RowFile

    def run(
        self, name: str, contender: Contender, progress: bool
    ) -> list[Row]:
        """Measure what is not on disk yet; return all of a method's rows."""
        images = self.images[: contender.limit]
        size = contender.batch_size or self.settings.batch_size
        done = self._recorded(name, {**self.card, **describe_row(contender)})
        with tqdm(total=len(images), desc=name, disable=not progress) as bar:
            for start in range(0, len(images), size):
                part = images[start : start + size]
                if any(image.index not in done for image in part):
                    # The whole batch again, so that nothing hangs on where
                    # a run was killed; only what is missing is written.
                    rows = self._measured(name, contender, part)
                    self.file.append(
                        row for row in rows if row["index"] not in done
                    )
                    done = self._rows_of(name)
                bar.update(len(part))
        return [done[image.index] for image in images]

    def _rows_of(self, name: str) -> dict[int, Row]:
        """Return a method's rows on disk by image index."""
        return {
            row["index"]: row
            for row in self.file.rows
            if row["method"] == name and "index" in row
        }

    def _recorded(
        self, name: str, settings: Mapping[str, Any]
    ) -> dict[int, Row]:
        """Return a method's rows on disk, after checking their origin.

        A line before a method's first row tells the settings of its rows;
        rows of other settings or other images must not be mixed with ours.
        """
        lines = [r for r in self.file.rows if r["method"] == name]
        if not lines:
            self.file.append([{"method": name, "settings": settings}])
            return {}
        theirs = lines[0].get("settings", {})
        differing = [
            k
            for k in sorted({*theirs, *settings})
            if theirs.get(k) != settings.get(k)
        ]
        done = self._rows_of(name)
        if any(
            image.name != done[image.index]["name"]
            for image in self.images
            if image.index in done
        ):
            differing.append("images")
        if differing:
            raise EvaluationError(
                f"{self.file.path} holds rows of {name} that were made with "
                f"other settings ({', '.join(differing)}); delete it, or "
                "write the results elsewhere"
            )
        return done

    def _measured(
        self, name: str, contender: Contender, chosen: Sequence[Chosen]
    ) -> list[Row]:
        """Measure one batch of images; return a row an image."""
        classifier, data = self.classifier, self.data
        device = device_of(classifier)
        indices = [image.index for image in chosen]
        batch = to_device(collate([data[i] for i in indices]), device)
        targets = torch.stack([image.targets for image in chosen]).to(device)
        settings = self.settings
        class_masks, seconds, memory = _timed(
            lambda: attribute(
                name, contender, classifier, batch, targets, settings.seed
            ),
            device,
        )
        noise = per_image(settings.seed, indices, "noise")
        markers = _markers(data, indices)
        with torch.no_grad():
            table = measure(
                classifier,
                batch,
                targets,
                class_masks,
                make_fill(settings.fill, batch.images, classifier, noise),
                settings,
                None if markers is None else markers.to(device),
            )
        values = {key: column.tolist() for key, column in table.items()}
        per_class = values.pop("class_iou")

        def named(flags: Tensor) -> list[str]:
            return [
                c for c, on in zip(data.classes, flags, strict=True) if on
            ]

        return [
            {
                "method": name,
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
                    for c, value in zip(
                        data.classes, per_class[i], strict=True
                    )
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
    """Measure methods on images and write the table of results.

    What is drawn for an image depends on the seed and on its index in the
    dataset alone: its row is the same in any batch, under any ``limit``.

    Parameters
    ----------
    methods:
        The rows of the table by name; differences are taken to the one
        named "explainer", if it is there.
    classifier:
        F, maps ``(B, 3, H, W)`` in [0, 1] to logits ``(B, C)``; its device
        is where everything runs.
    data:
        Images of one size with masks; its classes are the classifier's.
    out:
        The table, a ``.json`` file, written at the end as a whole. The rows
        are in the ``.jsonl`` file beside it: they are never measured twice,
        also not for more images (``limit``) or more methods later.
    settings:
        What all methods have in common; by default the paper's way.
    limit:
        At most so many images for every method: the first with a target.
    notes:
        What the card should say besides.
    progress:
        Show a bar for each method.

    Returns
    -------
    The content of ``out``: see :func:`explainer.evaluation.summary.summarise`, and
    under ``card`` what the results were made with.

    Raises
    ------
    EvaluationError
        When no image is left, a method returns no masks in [0, 1], or the
        rows on disk belong to another experiment.
    RowsError
        When the rows on disk are damaged.
    """
    settings = settings or Settings()
    if "card" in methods or not methods:
        raise EvaluationError(
            "name at least one method, and none of them 'card'"
        )
    if out.suffix != ".json":
        raise EvaluationError(f"results go to a .json file, not to {out}")
    file = RowFile(out.with_suffix(".jsonl"))
    file.check(_is_sound)
    made_with = environment()
    with evaluating(classifier):
        chosen = select(classifier, data, settings, limit)
        if not chosen.images:
            raise EvaluationError(
                f"none of the {len(data)} images has a target class and a "
                "mask; choose another split or other classes"
            )
        common = {
            "data": describe_data(data),
            "classifier": describe(unfrozen(classifier)),
            "resolution": list(chosen.resolution),
            "explainer": made_with["explainer"],
            **describe(settings),
        }
        bench = _Bench(
            classifier, data, chosen.images, settings, common, file
        )
        table = {
            name: bench.run(name, contender, progress)
            for name, contender in methods.items()
        }
    results = summarise(table, seed=settings.seed)
    results["card"] = {
        **common,
        "n": len(chosen.images),
        "skipped": chosen.no_class,
        "skipped_without_mask": chosen.no_mask,
        "images_with_other_objects": chosen.other_objects,
        "methods": {
            name: {**describe_row(contender), "n": len(table[name])}
            for name, contender in methods.items()
        },
        "command": command_line(),
        **(notes or {}),
        **made_with,
    }
    write_json(out, results)
    return results
