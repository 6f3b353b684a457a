"""The user's own pictures in common file formats, labelled or not."""

import csv
import hashlib
import io
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from explainer.data.base import DataError, Sample
from explainer.data.transforms import (
    Size,
    decoding,
    height_width,
    resize,
    to_tensor,
)

# Pillow reads AVIF from version 11.3 on.
AVIF = ("AVIF",) if find_spec("PIL.AvifImagePlugin") else ()
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", *AVIF)
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif"),
    *(".webp", ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
    ".avif",
)
UNREAD = (
    *(".heic", ".heif", ".hif", ".jxl", ".jp2", ".psd", ".svg", ".tga"),
    *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"),
)
"""Formats that cannot be read here: reported in a folder, not skipped."""
ORIENTATION = 0x0112
"""The EXIF tag that says how the camera was held."""
MAX_PIXELS = 64_000_000
"""More than this would fill the memory of a small machine."""


def load_photo(
    path: str | Path | Image.Image, size: Size | None = None
) -> Tensor:
    """Return a picture upright and in RGB, ``(3, H, W)`` in [0, 1].

    The camera's rotation (EXIF) is applied. Transparent parts become white.
    Grey-scale (8 or 16 bits), palette and CMYK become RGB. The first frame
    of an animation is used. The format is known from the content, not from
    the suffix.

    Parameters
    ----------
    path:
        A JPEG, PNG, GIF, WebP, BMP, TIFF, PPM or (where Pillow reads it)
        AVIF file; or a picture that Pillow has opened.
    size:
        Side or (height, width) in pixels; the aspect ratio is not kept.
        None keeps the picture's size.

    Raises
    ------
    DataError
        If the file is missing, damaged or not a picture, or has more than
        :data:`MAX_PIXELS` pixels (for a JPEG: after decoding at the smallest
        scale that suffices for ``size``).
    """
    if isinstance(path, Image.Image):
        try:
            image = _upright(path.copy())
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
    else:
        with decoding(path):
            image = _open(path, size)
    return to_tensor(np.asarray(resize(image, size)))


def size_within(path: str | Path, most: int) -> tuple[int, int]:
    """Return a picture's upright (height, width), of ``most`` pixels at most.

    A larger picture is scaled down, its aspect ratio kept. Only its header
    is read. Raises :class:`DataError` as :func:`load_photo`.
    """
    with decoding(path), _header(path) as file:
        width, height = file.size
        if file.getexif().get(ORIENTATION, 1) >= 5:  # lies on its side
            width, height = height, width
    return scaled_within(height, width, most)


def scaled_within(height: int, width: int, most: int) -> tuple[int, int]:
    """Return (height, width) scaled down to ``most`` pixels at most."""
    scale = min(1.0, math.sqrt(most / (width * height)))
    return max(1, int(height * scale)), max(1, int(width * scale))


def _header(path: str | Path) -> Image.Image:
    """Open a picture without decoding it."""
    with warnings.catch_warnings():
        # Our own limit below replaces Pillow's warning.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(path, formats=FORMATS)
        except UnidentifiedImageError as error:
            kind = _container(path)
            if kind is None:
                raise
            raise DataError(
                f"{path} is a picture of the kind {kind}, which is not read "
                "here; convert it to JPEG, PNG or WebP"
            ) from error


def _container(path: str | Path) -> str | None:
    """Return the name of a phone's picture format that Pillow may lack."""
    with open(path, "rb") as file:
        head = file.read(32)
    if head[4:8] != b"ftyp":
        return None
    brand = head[8:12]
    if brand in (b"avif", b"avis"):
        return "AVIF"
    heic = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
    if brand not in heic:
        return None
    return "AVIF" if b"avif" in head else "HEIC"


def _open(path: str | Path, size: Size | None) -> Image.Image:
    """Return an upright RGB image."""
    with _header(path) as image:
        if size is not None:  # a JPEG decodes faster at a reduced scale
            side = max(height_width(size))
            image.draft("RGB", (side, side))
        if image.width * image.height > MAX_PIXELS:
            raise DataError(
                f"{path} has {image.width} x {image.height} pixels, more "
                f"than {MAX_PIXELS // 10**6} million; scale it down first"
            )
        return _upright(image)


def _upright(image: Image.Image) -> Image.Image:
    """Return a picture upright and in RGB; the input is changed."""
    image.load()
    # In place, as are the next steps: a large picture is slow to copy.
    ImageOps.exif_transpose(image, in_place=True)
    return _rgb(image)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed white")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip
        grey = np.array(image, np.float32)
        grey /= 257
        grey.clip(0, 255, out=grey)
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        seen = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(seen, mask=seen)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


class Photos:
    """Pictures without labels: ``classes`` is empty, masks are None.

    Parameters
    ----------
    paths:
        A folder (all pictures in it, by name, subfolders left out), one
        file, or several files.
    size:
        As in :func:`load_photo`; give one to stack pictures into a batch.

    Raises
    ------
    DataError
        If there is no picture. A damaged one raises on access.
    """

    classes: tuple[str, ...] = ()

    def __init__(
        self,
        paths: str | Path | Iterable[str | Path],
        size: Size | None = None,
    ) -> None:
        if isinstance(paths, str | Path):
            paths = _pictures(Path(paths))
        self.paths, self.size = [Path(path) for path in paths], size
        if not self.paths:
            raise DataError("no picture given; name at least one file")

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        """Return picture ``index``, named by its path."""
        path = self.paths[index]
        return Sample(
            image=load_photo(path, self.size),
            labels=torch.zeros(0),
            mask=None,
            name=str(path),
        )


def _listed(folder: Path) -> list[Path]:
    """Return the pictures of a folder, also those that cannot be read.

    A file ``._NAME`` is not a picture: macOS writes such files with metadata
    of the file NAME on other file systems.
    """
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in (*SUFFIXES, *UNREAD)
        and not path.name.startswith("._")
    )


def _pictures(path: Path) -> list[Path]:
    """Return the pictures of a folder, or the single file of a path."""
    if not path.is_dir():
        return [path]
    paths = _listed(path)
    if not paths:
        raise DataError(
            f"{path} contains no picture ({', '.join(SUFFIXES)}); "
            "name another folder"
        )
    return paths


TABLE = "labels.csv"


class LabelledPhotos:
    """A folder of pictures with labels; masks are None.

    Either each class has a subfolder of its name with its pictures in it (an
    empty subfolder is a class without pictures), or the folder has a table
    :data:`TABLE`. Its columns are ``file``, the path within the folder, and
    ``labels``, the names of the classes separated by semicolons, or empty
    for none. A file may have several lines; their labels are joined. If
    there are both, the table is used.

    Parameters
    ----------
    folder:
        The folder.
    classes:
        The names to keep, in the order of the labels; by default all that
        occur, sorted. Give them if two folders, for example for training and
        validation, must have the same classes. Other names are ignored.
    size:
        As in :func:`load_photo`; give one to stack pictures into a batch.

    Raises
    ------
    DataError
        If there is no picture, or the table is damaged or names a missing
        file. A damaged picture raises on access.
    """

    def __init__(
        self,
        folder: str | Path,
        classes: Sequence[str] | None = None,
        size: Size | None = None,
    ) -> None:
        folder = Path(folder)
        table = folder / TABLE
        if table.is_file():
            rows = _tabled(table)
            names = {name for names in rows.values() for name in names}
        else:
            rows = _by_subfolder(folder)
            names = {path.name for path in _subfolders(folder)}
        self.classes = tuple(sorted(names) if classes is None else classes)
        self.size = size
        self._photos = Photos(rows, size)
        self.labels = torch.tensor(
            [[c in names for c in self.classes] for names in rows.values()]
        ).float()

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of all files, which tells this folder from others."""
        digest = hashlib.sha256()
        for path in self._photos.paths:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self._photos)

    def __getitem__(self, index: int) -> Sample:
        """Return picture ``index`` with its labels, named by its path."""
        return self._photos[index]._replace(labels=self.labels[index].clone())


def _subfolders(folder: Path) -> list[Path]:
    """Return the subfolders, one per class."""
    return [
        path
        for path in (sorted(folder.iterdir()) if folder.is_dir() else ())
        if path.is_dir() and not path.name.startswith(".")
    ]


def _by_subfolder(folder: Path) -> dict[Path, list[str]]:
    """Return each picture with the name of its subfolder."""
    rows = {
        path: [subfolder.name]
        for subfolder in _subfolders(folder)
        for path in _listed(subfolder)
    }
    if not rows:
        raise DataError(
            f"{folder} has neither a {TABLE} nor a subfolder of pictures for "
            "each class; name another folder"
        )
    return rows


def _tabled(table: Path) -> dict[Path, list[str]]:
    """Return each picture of a table with the names of its classes."""
    try:
        # Spreadsheets write a byte order mark at the start.
        text = io.StringIO(table.read_bytes().decode("utf-8-sig"), "")
        rows: dict[Path, list[str]] = {}
        for line in csv.DictReader(text, strict=True):
            names = [name.strip() for name in line["labels"].split(";")]
            rows.setdefault(table.parent / line["file"], []).extend(names)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{table} cannot be read as a table ({error}); save it as CSV "
            "in UTF-8"
        ) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{table} needs the columns file and labels, with a value in "
            "every line; correct it"
        ) from error
    if not rows:
        raise DataError(f"{table} names no picture; correct the table")
    for path in rows:
        if not os.path.isfile(path):  # also where no file can be named so
            raise DataError(
                f"{table} names {path.name}, and there is no {path}; correct "
                "the table or restore the picture"
            )
    return {path: [n for n in names if n] for path, names in rows.items()}
