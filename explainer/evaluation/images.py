"""The settings and the images of an evaluation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn

from explainer.classifiers import evaluating, found
from explainer.data.base import Batch, LabelledImages, collate
from explainer.errors import UnknownNameError
from explainer.metrics import Void
from explainer.training import mean_average_precision


@dataclass(frozen=True)
class Settings:
    """The settings that all methods of a table share.

    Parameters
    ----------
    targets:
        Whether to explain the labelled classes, or those that the classifier
        finds (:func:`~explainer.classifiers.found`).
    void:
        See :func:`~explainer.metrics.ground_truth`.
    fill:
        See :func:`~explainer.masks.make_fill`.
    steps:
        Steps of insertion and deletion, by far the slowest metrics. With 0
        they are not measured.
    seed:
        Seed of all random draws.
    batch_size:
        Images at a time.
    """

    targets: Literal["labels", "predicted"] = "labels"
    void: Void = "ignore"
    fill: str = "mean"
    steps: int = 10
    seed: int = 0
    batch_size: int = 16

    def __post_init__(self) -> None:
        """Raise ValueError for an invalid setting."""
        if self.targets not in ("labels", "predicted"):
            raise UnknownNameError(
                "targets", self.targets, ("labels", "predicted")
            )
        if self.void not in ("ignore", "object"):
            raise UnknownNameError(
                "way with void", self.void, ("ignore", "object")
            )
        if self.batch_size < 1:
            raise ValueError("a batch holds at least one image")


@dataclass(frozen=True)
class Chosen:
    """An image to measure; ``right`` if exactly its labels are predicted.

    ``targets`` is ``(C,)``, 1 for the classes to explain.
    """

    index: int
    name: str
    targets: Tensor
    right: bool


@dataclass
class Selection:
    """The images of an evaluation, and how many were left out.

    ``no_class`` counts images without a target class, ``no_mask`` those
    without a segmentation. ``other_objects`` counts the chosen images with
    segmented objects of no class of the dataset, which count as background;
    None if the dataset does not record them. ``classifier_map`` is the
    classifier's mean average precision on all images up to the last chosen
    one, None if they show no class. ``resolution`` is the images' height and
    width in pixels.
    """

    images: list[Chosen] = field(default_factory=list)
    no_class: int = 0
    no_mask: int = 0
    other_objects: int | None = None
    classifier_map: float | None = None
    resolution: tuple[int, int] = (0, 0)

    @property
    def by_index(self) -> dict[int, Chosen]:
        """The chosen images by their index in the dataset."""
        return {image.index: image for image in self.images}


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a module; the CPU if it holds no tensor."""
    for tensor in chain(module.parameters(), module.buffers()):
        return tensor.device
    return torch.device("cpu")


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch with its tensors on a device."""
    return batch._replace(
        images=batch.images.to(device),
        labels=batch.labels.to(device),
        masks=None if batch.masks is None else batch.masks.to(device),
    )


def batches(
    data: LabelledImages, indices: Sequence[int], size: int
) -> Iterator[tuple[int, Batch]]:
    """Yield pairs: the position of a batch's first image, and the batch."""
    for start in range(0, len(indices), size):
        yield (
            start,
            collate([data[i] for i in indices[start : start + size]]),
        )


@torch.no_grad()
def select(
    classifier: nn.Module,
    data: LabelledImages,
    settings: Settings,
    limit: int | None = None,
) -> Selection:
    """Return the first ``limit`` images that have a target and a mask.

    The classifier is evaluated in eval mode. Its own mode is restored
    afterwards.
    """
    chosen = Selection()
    device = device_of(classifier)
    wanted = len(data) if limit is None else limit
    logits, labels = [], []
    for first, batch in batches(data, range(len(data)), settings.batch_size):
        if len(chosen.images) >= wanted:
            break
        with evaluating(classifier):
            answer = classifier(batch.images.to(device)).cpu()
        predicted = found(classifier, answer)
        present = batch.labels > 0
        right = (predicted == present).all(1)
        targets = present if settings.targets == "labels" else predicted
        height, width = batch.images.shape[-2:]
        chosen.resolution = (height, width)
        for i in range(len(present)):
            if len(chosen.images) == wanted:
                break
            logits.append(answer[i])
            labels.append(batch.labels[i])
            if not targets[i].any():
                chosen.no_class += 1
            elif batch.masks is None and data[first + i].mask is None:
                chosen.no_mask += 1
            else:
                chosen.images.append(
                    Chosen(
                        first + i,
                        batch.names[i],
                        targets[i].float(),
                        bool(right[i]),
                    )
                )
    others = getattr(data, "other_objects", None)
    if others is not None:
        chosen.other_objects = sum(
            bool(others(image.index)) for image in chosen.images
        )
    if any(map(torch.any, labels)):
        chosen.classifier_map = mean_average_precision(
            torch.stack(logits), torch.stack(labels)
        )
    return chosen
