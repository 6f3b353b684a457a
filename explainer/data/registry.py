"""Datasets by name, their first images, and the labels of all images."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from explainer.data.base import DataError, LabelledImages, Sample
from explainer.data.coco import COCO, COCO_CLASSES, COCO_PAPER_CLASSES
from explainer.data.scenes import SPLITS as SCENE_SPLITS
from explainer.data.scenes import Scenes, Shortcut
from explainer.data.shapes import CLASSES as SCENE_CLASSES
from explainer.data.voc import VOC
from explainer.errors import Registry


class First:
    """The first ``n`` images of a dataset, or all if there are fewer.

    Its other attributes (``marker``, ``other_objects``, ...) are those of
    the whole dataset. Raises :class:`DataError` for an ``n`` below 1.
    """

    def __init__(self, dataset: LabelledImages, n: int) -> None:
        if n < 1:
            raise DataError(f"a limit is at least 1 image, not {n}")
        self.dataset = dataset
        self._indices = range(len(dataset))[:n]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.dataset.classes

    @property
    def labels(self) -> Tensor:
        """The labels of the images, ``(n, C)``."""
        return all_labels(self.dataset)[: len(self)]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        """Return image ``index``."""
        return self.dataset[self._indices[index]]

    def __getattr__(self, name: str) -> Any:
        """Return another attribute of the dataset."""
        if name == "dataset":  # not set yet, as while unpickling
            raise AttributeError(name)
        return getattr(self.dataset, name)


def all_labels(dataset: LabelledImages) -> Tensor:
    """Return the labels of a whole dataset, ``(N, C)`` float 0/1.

    If the dataset has the attribute ``labels``, no image is decoded.
    """
    labels: Tensor | None = getattr(dataset, "labels", None)
    if labels is None:
        samples = (dataset[i] for i in range(len(dataset)))
        labels = torch.stack([sample.labels for sample in samples])
    return labels


def _scenes(
    split: str,
    n: int | None,
    *,
    size: int = 64,
    classes: tuple[str, ...] = SCENE_CLASSES,
    shortcut: Shortcut | None = None,
    **where: object,
) -> LabelledImages:
    """Return scenes; they are drawn, so no download is needed."""
    if tuple(classes) != SCENE_CLASSES:
        raise DataError(
            f"scenes has the classes {', '.join(SCENE_CLASSES)}, "
            f"not {', '.join(classes)}; leave classes out"
        )
    if n is not None:
        n = min(n, SCENE_SPLITS[split][1])
    return Scenes(split, n, size=size, shortcut=shortcut)


def _photographs(
    data: Callable[..., LabelledImages],
    split: str,
    n: int | None,
    **options: object,
) -> LabelledImages:
    """Return the first ``n`` photographs of a dataset."""
    dataset = data(split=split, **options)
    return dataset if n is None else First(dataset, n)


DATASETS: Registry[Callable[..., LabelledImages]] = Registry(
    "data",
    {
        "scenes": _scenes,
        "voc2007": partial(_photographs, VOC, year="2007"),
        "voc2012": partial(_photographs, VOC, year="2012"),
        "coco2014": partial(_photographs, COCO, classes=COCO_PAPER_CLASSES),
        "coco2014-80": partial(_photographs, COCO, classes=COCO_CLASSES),
        "shortcut": partial(
            _scenes,
            shortcut=Shortcut("star", q=0.5, leak=0.2, size=10, decides=True),
        ),
    },
)
"""The datasets of :func:`load_data`, by name.

``coco2014`` has the paper's 91 outputs (11 of them never occur), and
``coco2014-80`` the 80 classes that COCO names. ``shortcut`` is scenes with a
marker that decides whether a scene is labelled as a star. The marker is on
half of the scenes with a star and on a fifth of the others.
"""


def load_data(
    name: str,
    split: str = "test",
    *,
    root: str | Path | None = None,
    size: int | None = None,
    classes: tuple[str, ...] | None = None,
    limit: int | None = None,
    download: bool = False,
) -> LabelledImages:
    """Return a dataset by name.

    Parameters
    ----------
    name:
        A key of :data:`DATASETS`.
    split:
        "train", "val" or "test", and for VOC "trainval"; VOC 2012 has no
        "test".
    root:
        The data folder, by default ``EXPLAINER_DATA``; scenes need none.
    size:
        Height and width in pixels, by default 64 for scenes and 224 (the
        paper's) for photographs.
    classes:
        The classes to keep, by default all.
    limit:
        Number of images to keep, from the first on.
    download:
        Download the data if it is missing.

    Raises
    ------
    UnknownNameError
        For an unknown dataset, split or class.
    DataError
        If the data is missing or damaged.
    """
    given = {"size": size, "classes": classes}
    options = {k: v for k, v in given.items() if v is not None}
    return DATASETS[name](
        split, limit, root=root, download=download, **options
    )
