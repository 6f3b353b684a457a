"""COCO 2014: photographs, labels and class masks from its annotations.

Lin et al., *Microsoft COCO: Common Objects in Context*, ECCV 2014. The paper
splits train2014 into its own training and validation parts. It tests on
val2014, and measures masks on 2,000 of these images. Objects are drawn by
COCO's own ``pycocotools``.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
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
from explainer.data.transforms import Size, decoding, resize, to_tensor
from explainer.errors import Registry
from explainer.metrics import VOID

COCO_CLASSES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train"),
    *("truck", "boat", "traffic light", "fire hydrant", "stop sign"),
    *("parking meter", "bench", "bird", "cat", "dog", "horse", "sheep"),
    *("cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella"),
    *("handbag", "tie", "suitcase", "frisbee", "skis", "snowboard"),
    *("sports ball", "kite", "baseball bat", "baseball glove"),
    *("skateboard", "surfboard", "tennis racket", "bottle", "wine glass"),
    *("cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza"),
    *("donut", "cake", "chair", "couch", "potted plant", "bed"),
    *("dining table", "toilet", "tv", "laptop", "mouse", "remote"),
    *("keyboard", "cell phone", "microwave", "oven", "toaster", "sink"),
    *("refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)
"""The 80 classes that COCO names, in the order of their ids."""

UNUSED_IDS = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)


def _paper_classes() -> tuple[str, ...]:
    names = iter(COCO_CLASSES)
    return tuple(
        f"unused {i}" if i in UNUSED_IDS else next(names) for i in range(91)
    )


COCO_PAPER_CLASSES = _paper_classes()
"""The paper's 91 outputs, one per id from 0 to 90: 11 never occur."""

PARTS = Registry(
    "split of COCO 2014",
    {"train": "train2014", "val": "train2014", "test": "val2014"},
)
"""The part of COCO that each split is taken from."""
VALIDATION_SHARE = 0.1
SAMPLE = 2000

# Over https the bucket's own name fails: its certificate is Amazon's.
_HOSTS = (
    "https://s3.amazonaws.com/images.cocodataset.org",
    "http://images.cocodataset.org",
)


def _archive(path: str, sha256: str, size: int) -> Archive:
    urls = tuple(f"{host}/{path}" for host in _HOSTS)
    return Archive(Path(path).name, sha256, urls, size)


ANNOTATIONS = _archive(
    "annotations/annotations_trainval2014.zip",
    "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
    252_872_794,
)
IMAGES = {
    "train2014": _archive(
        "zips/train2014.zip",
        "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
        13_510_573_713,
    ),
    "val2014": _archive(
        "zips/val2014.zip",
        "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
        6_645_013_297,
    ),
}

Bits = NDArray[np.bool_]


def download_coco(folder: Path, part: str) -> None:
    """Download the images and annotations of "train2014" or "val2014".

    The annotations come last: if they exist, the part is complete. The
    archives stay in ``folder``; they may be deleted.
    """
    extract(fetch(IMAGES[part], folder), folder)
    wanted = (f"annotations/instances_{part}.json",)
    extract(fetch(ANNOTATIONS, folder), folder, only=wanted)


def run_lengths(compressed: str | bytes) -> list[int]:
    """Return the run lengths that pycocotools writes as a string.

    A number is written in groups of five bits, lowest first. Each group is
    one character, counted from "0". If more groups follow, 32 is added. The
    highest bit of the last group is the sign. From the fourth number on, the
    difference from the number two places before is written. Raises
    ValueError for other characters and for an unfinished number.
    """
    if isinstance(compressed, str):
        compressed = compressed.encode("ascii")
    counts: list[int] = []
    value = shift = 0
    for code in compressed:
        group = code - 48
        if not 0 <= group < 64 or shift > 60:
            raise ValueError("its compressed run lengths are damaged")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its compressed run lengths are cut off")
    return counts


def rasterise(segmentation: Any, height: int, width: int) -> Bits:
    """Return the pixels of an annotation, ``(height, width)`` bool.

    ``segmentation`` is a list of polygons ``[x0, y0, x1, y1, ...]``, of
    which the union is returned, or run lengths ``{"size": [height, width],
    "counts": [...]}``. Run lengths count pixels that are alternately off and
    on, column by column, plain or compressed (:func:`run_lengths`). The
    point (0, 0) is the corner of the first pixel. Raises an Exception for
    anything else.
    """
    if isinstance(segmentation, dict):
        size, runs = segmentation["size"], segmentation["counts"]
        if isinstance(runs, str | bytes):
            runs = run_lengths(runs)
        # pycocotools writes beyond the image where the runs do not fit.
        fitting = min(runs, default=0) >= 0 and sum(runs) == height * width
        if list(size) != [height, width] or not fitting:
            raise ValueError("its run lengths are not of the image's size")
        shapes = [{"size": size, "counts": runs}]
    else:  # a polygon of two points has no area, and four numbers mean a box
        shapes = [points for points in segmentation if len(points) >= 6]
    if not shapes:
        return np.zeros((height, width), bool)
    parts = pycocotools.mask.frPyObjects(shapes, height, width)
    bits: Bits = pycocotools.mask.decode(pycocotools.mask.merge(parts)) > 0
    return bits


@dataclass(frozen=True)
class _Object:
    """An annotation: its class, its pixels, and whether it is a crowd."""

    name: str
    segmentation: Any
    crowd: bool


@dataclass(frozen=True)
class _Image:
    file: str
    height: int
    width: int
    objects: list[_Object]


def _compact(segmentation: Any) -> Any:
    """Return polygons as arrays, which need a quarter of the memory."""
    if isinstance(segmentation, list):
        return [np.asarray(points, np.float64) for points in segmentation]
    return segmentation


def read_annotations(path: Path) -> list[_Image]:
    """Return the images of an ``instances_*.json`` in the order of their ids.

    For train2014 this takes about 2 GB of memory while the file is read.

    Raises
    ------
    DataError
        If the file is missing, is not a COCO annotation, contradicts itself
        or has an unknown class.
    """
    if not path.is_file():
        raise DataError(
            f"{path} does not exist: the data folder is the one that "
            "contains coco2014/annotations; download it (download=True) or "
            "correct the data folder"
        )
    with reading(path, "COCO annotations", "restore it from COCO"):
        content = json.loads(path.read_bytes())
        names = {c["id"]: c["name"] for c in content["categories"]}
        images = {
            image["id"]: _Image(
                str(image["file_name"]),
                int(image["height"]),
                int(image["width"]),
                [],
            )
            for image in sorted(content["images"], key=lambda i: i["id"])
        }
        for item in content["annotations"]:
            found = _Object(
                names[item["category_id"]],
                _compact(item["segmentation"]),
                bool(item.get("iscrowd", 0)),
            )
            images[item["image_id"]].objects.append(found)
    for name in names.values():
        if name not in COCO_CLASSES:
            raise DataError(
                f"{path} has a category {name!r}, which is not one of COCO's "
                "80 classes; correct or remove it"
            )
    return list(images.values())


def _chosen(
    images: Sequence[_Image], split: str, seed: int, sample: int | None
) -> list[int]:
    """Return the indices of the images of a split, in ascending order."""
    pool = list(range(len(images)))
    if split == "test" and sample is None:
        return pool
    if split == "test":
        pool = [i for i in pool if images[i].objects]
    # NumPy's legacy stream never changes, so the split stays the same.
    order = np.random.RandomState(seed).permutation(len(pool))
    n_val = round(VALIDATION_SHARE * len(pool))
    part = {
        "train": order[n_val:],
        "val": order[:n_val],
        "test": order[:sample],
    }[split]
    return [pool[i] for i in sorted(part)]


class COCO:
    """A split of COCO 2014 as a sequence of samples.

    "train" and "val" are parts of train2014, split nine to one by ``seed``
    (the authors' own split is not known). "test" is a sample of the images
    of val2014 that have an annotation.

    Labels are the annotated objects, including crowds, since the image shows
    them. A mask has one class per pixel. Where COCO's objects overlap, the
    object with *fewer* pixels is on top (a cup on a table). A crowd, which
    is outlined only roughly, is :data:`~explainer.metrics.VOID` below all
    objects.

    With ``classes`` given, labels and masks refer to these. Other objects
    are background, also where they cover one of the classes
    (``other_objects`` names them). Images with none of the classes are kept,
    with all labels zero.

    Parameters
    ----------
    root:
        The folder that contains ``coco2014/``, with COCO's ``train2014/``,
        ``val2014/`` and ``annotations/`` in it; by default the environment
        variable ``EXPLAINER_DATA``.
    split:
        "train", "val" or "test".
    classes:
        :data:`COCO_CLASSES`, the 80, or some of them in the order of the
        labels; or :data:`COCO_PAPER_CLASSES`, the paper's 91.
    size:
        Side or (height, width) in pixels; the aspect ratio is not kept, as
        in the paper. None leaves every image as it is.
    sample:
        Number of images of val2014 in "test"; None means all 40,504, with
        or without annotation.
    seed:
        Seed of the split and of the sample.
    download:
        Download the split if it is missing: 13.8 GB for "train" and "val",
        6.9 GB for "test", twice that on disk.

    Raises
    ------
    DataError
        If the data, the split or a class does not exist, or a file is
        damaged. Annotations are read at once, images on access.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "test",
        *,
        classes: Sequence[str] = COCO_CLASSES,
        size: Size | None = 224,
        sample: int | None = SAMPLE,
        seed: int = 42,
        download: bool = False,
    ) -> None:
        part = PARTS[split]
        self.classes = check_classes("COCO", classes, COCO_PAPER_CLASSES)
        self.split, self.size, self.seed = split, size, seed
        folder = data_root(root, "coco2014/") / "coco2014"
        annotations = folder / "annotations" / f"instances_{part}.json"
        if download and not annotations.is_file():
            download_coco(folder, part)
        images = read_annotations(annotations)
        self._folder = folder / part
        self._images = [
            images[i] for i in _chosen(images, split, seed, sample)
        ]
        if not self._images:
            raise DataError(
                f"{annotations} has no image for the split {split!r}; "
                "restore it from COCO"
            )
        self._column = {name: c for c, name in enumerate(self.classes)}
        self.labels = self._read_labels()

    def _read_labels(self) -> Tensor:
        """Return ``(N, C)`` float labels, from the annotations alone."""
        labels = torch.zeros(len(self), len(self.classes))
        for i, image in enumerate(self._images):
            for item in image.objects:
                if item.name in self._column:
                    labels[i, self._column[item.name]] = 1
        return labels

    def _draw_mask(self, image: _Image, path: Path) -> Image.Image:
        """Return the class ids of an image at its own size."""
        height, width = image.height, image.width
        try:
            ids = np.zeros((height, width), np.uint8)
            # Per pixel the size of the object drawn there, with a crowd
            # above all sizes: an object covers all that are not smaller.
            depths = np.full(ids.shape, 2 * ids.size + 1)
            for item in image.objects:
                shape = rasterise(item.segmentation, height, width)
                depth = shape.sum() + item.crowd * ids.size
                shape &= depth <= depths
                depths[shape] = depth
                known = item.name in self._column
                value = self._column[item.name] + 1 if known else 0
                ids[shape] = VOID if known and item.crowd else value
        except Exception as error:  # pycocotools raises plain ones
            raise DataError(
                f"the annotations of {path} have a segmentation that cannot "
                f"be drawn ({error}); restore them from COCO"
            ) from error
        return Image.fromarray(ids)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        """Return image ``index`` with its labels and mask."""
        index = range(len(self))[index]
        image = self._images[index]
        path = self._folder / Path(image.file).name
        with decoding(path), Image.open(path, formats=["JPEG"]) as file:
            picture = file.convert("RGB")
        if picture.size != (image.width, image.height):
            raise DataError(
                f"{path} is not of the size that its annotation says; "
                "restore both from COCO"
            )
        mask = resize(self._draw_mask(image, path), self.size, mask=True)
        return Sample(
            image=to_tensor(np.asarray(resize(picture, self.size))),
            labels=self.labels[index].clone(),
            mask=torch.tensor(np.asarray(mask)).long(),
            name=path.stem,
        )

    def other_objects(self, index: int) -> tuple[str, ...]:
        """Return the objects of an image that are not among ``classes``.

        They are background in the masks, so a method that finds them scores
        lower. A results table gives the number of such images.
        """
        image = self._images[range(len(self))[index]]
        names = sorted({item.name for item in image.objects})
        return tuple(name for name in names if name not in self.classes)
