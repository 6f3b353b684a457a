"""The samples of a dataset, and how they are stacked into batches.

Every dataset of this package is a sequence of :class:`Sample` with the names
of its classes in ``classes``. Nothing else is assumed of it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from explainer.errors import UnknownNameError, UserError
from explainer.metrics import VOID
from explainer.provenance import describe


class DataError(UserError, ValueError):
    """Data that cannot be used; the message names the file and the remedy."""


class Sample(NamedTuple):
    """One image with its labels, its mask and its name.

    ``image`` is ``(3, H, W)``, float in [0, 1]; ``labels`` is ``(C,)``,
    float 0 or 1; ``mask`` is ``(H, W)``, int64, with 0 for background,
    ``c + 1`` for class ``c`` and :data:`VOID`, or None without annotated
    pixels; ``name`` identifies the image within its dataset.
    """

    image: Tensor
    labels: Tensor
    mask: Tensor | None
    name: str


class Batch(NamedTuple):
    """Samples stacked: ``(B, 3, H, W)``, ``(B, C)``, ``(B, H, W)``, B names.

    ``masks`` is None when a sample of the batch has no mask.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor | None
    names: list[str]


class LabelledImages(Protocol):
    """The interface of a dataset for training and evaluation."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the C classes, in the order of the labels."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, index: int, /) -> Sample:
        """Return one image with its labels."""
        ...


def collate(samples: Sequence[Sample]) -> Batch:
    """Return samples of one size as a :class:`Batch`."""
    masks = [s.mask for s in samples if s.mask is not None]
    return Batch(
        images=torch.stack([s.image for s in samples]),
        labels=torch.stack([s.labels for s in samples]),
        masks=torch.stack(masks) if len(masks) == len(samples) else None,
        names=[s.name for s in samples],
    )


def labels_in(mask: Tensor, n_classes: int) -> Tensor:
    """Return ``(C,)`` float labels of the classes that occur in a mask."""
    present = torch.bincount(mask.flatten(), minlength=VOID + 1)
    return (present[1 : n_classes + 1] > 0).float()


@contextmanager
def reading(path: str | Path, what: str, remedy: str) -> Iterator[None]:
    """Raise a DataError for any error while a file is read.

    Its message names the file, what it should be and the remedy.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{path} cannot be read as {what} ({type(error).__name__}: "
            f"{error}); {remedy}"
        ) from error


def data_root(root: str | Path | None, contains: str) -> Path:
    """Return the data folder: ``root``, else ``EXPLAINER_DATA``.

    ``contains`` names the folder's content in the message of the
    :class:`DataError` raised if neither is given.
    """
    chosen = root or os.environ.get("EXPLAINER_DATA")
    if not chosen:
        raise DataError(
            "no data folder given: pass root (--root) or set EXPLAINER_DATA "
            f"to the folder that contains {contains}"
        )
    return Path(chosen).expanduser()


def check_classes(
    data: str, classes: Sequence[str], known: Sequence[str]
) -> tuple[str, ...]:
    """Return the requested classes as a tuple.

    Raises :class:`~explainer.errors.UnknownNameError` for an unknown class,
    and :class:`DataError` if there is none or one occurs twice.
    """
    for name in classes:
        if name not in known:
            raise UnknownNameError(f"class in {data}", name, known)
    if not classes or len(set(classes)) < len(classes):
        raise DataError(
            f"name each class of {data} once, and at least one; got "
            f"{tuple(classes)}"
        )
    return tuple(classes)


def describe_data(data: LabelledImages) -> dict[str, Any]:
    """Return a card's entries on a dataset: type, size and how it was made.

    These are the attributes that the package's datasets share.
    """
    known = ("year", "split", "size", "seed", "shortcut", "fingerprint")
    return {
        "type": type(data).__name__,
        "images": len(data),
        "classes": list(data.classes),
        **{k: describe(getattr(data, k)) for k in known if hasattr(data, k)},
    }
