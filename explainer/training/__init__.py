"""Training a classifier, and the Explainer of a classifier.

Both use one loop. :mod:`explainer.training.loop` describes a run's folder and
how an interrupted run resumes.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from explainer.classifiers import evaluating, frozen, layout_of, unfrozen
from explainer.data import Batch, LabelledImages, all_labels, describe_data
from explainer.losses import (
    Loss,
    LossWeights,
    classification_loss,
    explainer_loss,
)
from explainer.masks import composite, make_fill, random_masks
from explainer.provenance import describe
from explainer.streams import Streams, uniform
from explainer.training.loop import (
    History,
    Loop,
    Run,
    TrainingConfig,
    TrainingError,
    without_masks,
)

__all__ = [
    "MaskedInputs",
    "Run",
    "TrainingConfig",
    "TrainingError",
    "average_precision",
    "fit_classifier",
    "fit_explainer",
    "logits_and_labels",
    "mean_average_precision",
]


@dataclass(frozen=True)
class MaskedInputs:
    """Random masking of a classifier's training images.

    A share ``masked`` of the images is covered in part by a random mask and
    keeps its labels. A share ``blank`` is covered entirely and gets no label.
    ``fill`` is what covers them, see :func:`explainer.masks.make_fill`.
    Targets are moved by ``smoothing`` towards 1/2. This departs from the
    paper, whose classifiers are not trained on masked images.
    """

    masked: float = 0.0
    blank: float = 0.0
    fill: str = "mean"
    smoothing: float = 0.0


@torch.no_grad()
def logits_and_labels(
    classifier: nn.Module,
    data: LabelledImages,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """Return a classifier's logits and the labels, ``(N, C)`` each.

    Both are on the CPU; ``device`` is the classifier's.
    """
    logits, labels = [], []
    with evaluating(classifier):
        for batch in DataLoader(
            data,  # type: ignore[arg-type]
            batch_size,
            collate_fn=without_masks,
        ):
            logits.append(classifier(batch.images.to(device)).cpu())
            labels.append(batch.labels)
    return torch.cat(logits), torch.cat(labels)


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the area under a class's curve of precision and recall.

    With the images in falling order of their score it is the sum of
    (R_k - R_{k-1}) P_k, where precision P_k and recall R_k are those of the
    first k images. Images with equal scores are taken together. ``scores``
    and ``labels`` (1 where the class is there) are ``(N,)``; the result is a
    scalar, NaN where no image has the class.
    """
    falling, order = scores.sort(descending=True)
    hits = labels[order].double().cumsum(0)
    k = torch.arange(1, len(hits) + 1, device=hits.device)
    falls = falling.diff() != 0
    last = torch.cat([falls, falls.new_ones(1)])  # of those with equal scores
    precision, recall = (hits / k)[last], (hits / hits[-1])[last]
    return (precision * recall.diff(prepend=recall.new_zeros(1))).sum()


def mean_average_precision(logits: Tensor, labels: Tensor) -> float:
    """Return the mean average precision over the classes that occur.

    ``logits`` and ``labels`` are ``(N, C)``; NaN where no class occurs.
    """
    per_class = [
        average_precision(logits[:, c], labels[:, c])
        for c in labels.any(0).nonzero()[:, 0].tolist()
    ]
    return float(torch.stack(per_class).mean()) if per_class else math.nan


def labelled(data: LabelledImages) -> tuple[LabelledImages, int]:
    """Return the images with any of the classes, and how many have none."""
    has_label = all_labels(data).sum(1) > 0
    dropped = int((~has_label).sum())
    if dropped == 0:
        return data, 0
    if dropped == len(data):
        raise TrainingError(
            "no image has any of the classes "
            f"{', '.join(data.classes)}; choose other classes or data"
        )
    subset = Subset(data, has_label.nonzero()[:, 0].tolist())  # type: ignore
    subset.classes = data.classes  # type: ignore[attr-defined]
    return subset, dropped  # type: ignore[return-value]


def fit_classifier(
    classifier: nn.Module,
    train: LabelledImages,
    val: LabelledImages,
    training: TrainingConfig,
    *,
    folder: Path | str,
    config: dict[str, object],
    masked_inputs: MaskedInputs = MaskedInputs(),
    on_validation: Callable[[History], None] | None = None,
    device: str | None = None,
    progress: bool = True,
) -> Run:
    """Train a classifier with binary cross-entropy or cross-entropy.

    Images with none of the classes are kept as negatives. ``config``
    describes how the classifier was built and is stored with the weights.
    ``folder`` is the output folder; an interrupted run in it is resumed.
    ``map`` in a validation's record is the mean average precision.
    ``on_validation`` is called with the history after each validation, for
    example to plot it. Raises the errors of
    :class:`~explainer.training.loop.Loop`.
    """
    multi_label = getattr(classifier, "multi_label", True)

    def batch_loss(net: nn.Module, batch: Batch, streams: Streams) -> Loss:
        images, labels = batch.images, batch.labels
        if net.training:
            images, labels = _cover(
                images, labels, masked_inputs, classifier, streams
            )
        value = classification_loss(net(images), labels, multi_label)
        return Loss(value, {})

    def score(net: nn.Module, device: torch.device) -> dict[str, float]:
        logits, labels = logits_and_labels(net, val, device=device)
        return {"map": mean_average_precision(logits, labels)}

    config = {
        **config,
        "masked_inputs": asdict(masked_inputs),
        "train": describe_data(train),
        "val": describe_data(val),
    }
    return Loop(
        classifier,
        batch_loss,
        train,
        val,
        training,
        folder=Path(folder),
        config={**config, "kind": "classifier"},
        score=score,
        on_validation=on_validation,
        device=device,
        progress=progress,
    ).run()


def _cover(
    images: Tensor,
    labels: Tensor,
    how: MaskedInputs,
    classifier: nn.Module,
    streams: Streams,
) -> tuple[Tensor, Tensor]:
    """Cover some images in part and some entirely (:class:`MaskedInputs`)."""
    if how.masked or how.blank:
        cover = streams("cover")
        chance = uniform(images, (1, 1, 1), cover)
        keep = random_masks(images, cover)
        keep = torch.where(chance >= how.blank + how.masked, 1.0, keep)
        blank = chance < how.blank
        keep = torch.where(blank, 0.0, keep)
        fill = make_fill(how.fill, images, classifier, streams("noise"))
        images = composite(images, keep, fill)
        labels = labels * (~blank)[:, :, 0, 0]
    return images, labels + how.smoothing * (0.5 - labels)


def fit_explainer(
    network: nn.Module,
    classifier: nn.Module,
    train: LabelledImages,
    val: LabelledImages,
    training: TrainingConfig,
    *,
    folder: Path | str,
    config: dict[str, object],
    loss: Callable[..., Loss] = explainer_loss,
    weights: object = LossWeights(),
    on_validation: Callable[[History], None] | None = None,
    device: str | None = None,
    progress: bool = True,
    **loss_options: object,
) -> Run:
    """Train an Explainer for a classifier from image labels alone.

    The classifier is frozen (in place); pixel masks are never read. Images
    with none of the classes are dropped and counted (``dropped`` in the
    configuration). ``loss`` and ``weights`` belong together; the default is
    the paper's loss. ``loss_options`` (for example ``fill="noise"``) are
    passed to it. Raises the errors of :class:`~explainer.training.loop.Loop`,
    and :class:`TrainingError` if no image has any of the classes.
    """
    explanandum = frozen(classifier)
    layout = layout_of(explanandum)
    if layout == torch.channels_last:  # others keep what they have
        explanandum.to(memory_format=layout)
    given = {
        "classifier": describe(unfrozen(classifier)),
        "train": describe_data(train),
        "val": describe_data(val),
    }
    train, dropped = labelled(train)
    val, _ = labelled(val)

    def batch_loss(net: nn.Module, batch: Batch, streams: Streams) -> Loss:
        class_masks = net(batch.images).sigmoid()
        explanandum.to(batch.images.device)
        return loss(
            explanandum,
            batch.images.contiguous(memory_format=layout),
            batch.labels,
            class_masks,
            weights,
            generator=streams("noise"),
            **loss_options,
        )

    return Loop(
        network,
        batch_loss,
        train,
        val,
        training,
        folder=Path(folder),
        config={
            **config,
            "kind": "explainer",
            "dropped": dropped,
            "loss": describe(loss),
            "weights": asdict(weights),  # type: ignore[call-overload]
            **loss_options,
            **given,
        },
        on_validation=on_validation,
        device=device,
        progress=progress,
    ).run()
