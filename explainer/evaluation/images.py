"""What an evaluation looks at: its settings and its images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from explainer.classifiers import evaluating, found
from explainer.data.base import Batch, LabelledImages, collate
from explainer.metrics import Void
from explainer.provenance import describe


@dataclass(frozen=True)
class Settings:
    """What all methods of a table have in common.

    ``targets``: explain the classes in the image's labels, or those that the
    classifier finds (:func:`~explainer.classifiers.found`).
    ``void`` and ``fill``: see :func:`~explainer.metrics.ground_truth` and
    :func:`~explainer.masks.make_fill`. ``steps`` of insertion and deletion;
    0 leaves these two out, the dearest metrics by far.
    """

    targets: Literal["labels", "predicted"] = "labels"
    void: Void = "ignore"
    fill: str = "mean"
    steps: int = 10
    seed: int = 0
    batch_size: int = 16

    def __post_init__(self) -> None:
        """Refuse what does not exist before hours are spent."""
        if self.targets not in ("labels", "predicted"):
            raise ValueError(
                f"targets are 'labels' or 'predicted', not {self.targets!r}"
            )
        if self.void not in ("ignore", "object"):
            raise ValueError(
                f"void is 'ignore' or 'object', not {self.void!r}"
            )
        if self.batch_size < 1:
            raise ValueError("a batch holds at least one image")


@dataclass(frozen=True)
class Chosen:
    """An image to measure; ``right`` if all its labels are predicted right.

    ``targets`` is ``(C,)``, 1 for the classes to explain.
    """

    index: int
    name: str
    targets: Tensor
    right: bool


@dataclass
class Selection:
    """The images of an evaluation, and how many were passed over."""

    images: list[Chosen] = field(default_factory=list)
    no_class: int = 0
    no_mask: int = 0
    other_objects: int | None = None
    resolution: tuple[int, int] = (0, 0)


def device_of(module: nn.Module) -> torch.device:
    """Return where a module lives; the CPU if it holds no tensor."""
    for tensor in chain(module.parameters(), module.buffers()):
        return tensor.device
    return torch.device("cpu")


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch's tensors."""
    return batch._replace(
        images=batch.images.to(device),
        labels=batch.labels.to(device),
        masks=None if batch.masks is None else batch.masks.to(device),
    )


def batches(
    data: LabelledImages, indices: Sequence[int], size: int
) -> Iterator[tuple[int, Batch]]:
    """Yield (position of the first, batch) over some images of a dataset."""
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
    """Choose the first ``limit`` images that have a target and a mask.

    The images passed over on the way are counted: ``no_class`` have none of
    the classes (or none is predicted), ``no_mask`` no segmentation. Of those
    chosen, ``other_objects`` show segmented objects that are no class of the
    dataset and count as background; None where the dataset cannot tell.
    The classifier answers in eval mode, and is left in the mode it was in.
    """
    chosen = Selection()
    others = getattr(data, "other_objects", None)
    device = device_of(classifier)
    wanted = len(data) if limit is None else limit
    for first, batch in batches(data, range(len(data)), settings.batch_size):
        if len(chosen.images) >= wanted:
            break
        with evaluating(classifier):
            logits = classifier(batch.images.to(device))
        predicted = found(classifier, logits).cpu()
        labels = batch.labels > 0
        right = (predicted == labels).all(1)
        targets = labels if settings.targets == "labels" else predicted
        for i in range(len(labels)):
            if len(chosen.images) == wanted:
                break
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
                height, width = batch.images.shape[-2:]
                chosen.resolution = (height, width)
    if others is not None:
        chosen.other_objects = sum(
            bool(others(image.index)) for image in chosen.images
        )
    return chosen


def describe_data(data: LabelledImages) -> dict[str, Any]:
    """Return what a card says of a dataset: type, size and how it was made.

    Of its attributes those are named that the package's datasets have in
    common.
    """
    known = ("year", "split", "size", "seed", "shortcut")
    return {
        "type": type(data).__name__,
        "images": len(data),
        "classes": list(data.classes),
        **{k: describe(getattr(data, k)) for k in known if hasattr(data, k)},
    }
