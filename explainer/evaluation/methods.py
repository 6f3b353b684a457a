"""A method with its options, and how an evaluation calls it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

from torch import Tensor, nn

from explainer.attribution import Method
from explainer.data.base import Batch
from explainer.errors import UserError
from explainer.metrics import class_truth
from explainer.provenance import describe
from explainer.streams import generator


class EvaluationError(UserError):
    """An evaluation that cannot run; the message names the remedy."""


@dataclass(frozen=True)
class Contender:
    """A method with its options: one row of the table.

    ``method`` is any function of the package's call shape; it gets
    ``options`` as keywords, and the class masks of the images as ``truth``
    if it has a parameter of that name (the control ``ground_truth``).
    ``limit`` keeps a costly method to the first so many images, and
    ``batch_size`` overrides that of the settings.
    """

    method: Method
    options: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    batch_size: int | None = None


def attribute(
    name: str,
    contender: Contender,
    classifier: nn.Module,
    batch: Batch,
    targets: Tensor,
    seed: int,
) -> Tensor:
    """Run a method on a batch; return its checked masks ``(B, C, H, W)``.

    Every call gets a fresh generator of the same stream. As all methods
    share their random draws over a batch, an image's mask depends neither on
    its neighbours in the batch nor on what ran before; the price is that one
    unlucky draw is unlucky for all images.
    """
    options = dict(contender.options)
    if "truth" in signature(contender.method).parameters:
        if batch.masks is None:
            raise EvaluationError(
                f"{name} needs segmented images, and these have none: "
                f"{', '.join(batch.names)}"
            )
        options["truth"] = class_truth(batch.masks, targets.shape[1]).float()
    masks = contender.method(
        classifier,
        batch.images,
        targets,
        generator=generator(seed, "attribution"),
        **options,
    )
    wanted = (*targets.shape, *batch.images.shape[-2:])
    if masks.shape != wanted:
        raise EvaluationError(
            f"{name} returned masks of shape {tuple(masks.shape)} where "
            f"{wanted} was asked for"
        )
    # Written so that NaN fails as well.
    if not ((masks >= 0) & (masks <= 1)).all():
        raise EvaluationError(
            f"{name} returned masks with values outside of [0, 1] or NaN "
            f"for the images {', '.join(batch.names)}"
        )
    return masks.detach()


def describe_row(contender: Contender) -> dict[str, Any]:
    """Return what a card says of a method (its number of images apart)."""
    row = {
        "method": describe(contender.method),
        "options": describe(contender.options),
    }
    if contender.batch_size is not None:
        row["batch_size"] = contender.batch_size
    return row
