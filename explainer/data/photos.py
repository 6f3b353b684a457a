"""One's own pictures: no labels, and every kind of file people have."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from explainer.data.base import DataError, Sample
from explainer.data.transforms import (
    Size,
    decoding,
    height_width,
    resize,
    to_tensor,
)

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".gif", ".webp"),
    *(".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
)
MAX_PIXELS = 64_000_000
"""More than this would fill the memory of a small machine."""


def load_photo(path: str | Path, size: Size | None = None) -> Tensor:
    """Read a picture as it is meant to be seen.

    The camera's rotation (EXIF) is applied, transparent parts show white,
    grey-scale (8 or 16 bits), palette and CMYK become RGB, of an animation
    the first frame counts. The content decides the format, not the suffix.

    Parameters
    ----------
    path:
        A JPEG, PNG, GIF, WebP, BMP, TIFF or PPM file.
    size:
        Side or (height, width) in pixels; the aspect ratio is not kept.
        None leaves the picture as large as it is.

    Returns
    -------
    Tensor
        ``(3, H, W)`` float in [0, 1].

    Raises
    ------
    DataError
        When the file is missing, damaged, no picture, or of more than
        :data:`MAX_PIXELS` pixels (a JPEG: after decoding it at a reduced
        scale that still suffices for ``size``).
    """
    with decoding(path):
        image = _open(path, size)
        pixels = np.asarray(resize(image, size))
    return to_tensor(pixels)


def _open(path: str | Path, size: Size | None) -> Image.Image:
    """Return an upright RGB image."""
    with warnings.catch_warnings():
        # Our own limit below replaces Pillow's warning.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        file = Image.open(path, formats=FORMATS)
    with file as image:
        if size is not None:  # a JPEG decodes faster at a reduced scale
            side = max(height_width(size))
            image.draft("RGB", (side, side))
        if image.width * image.height > MAX_PIXELS:
            raise DataError(
                f"{path} has {image.width} x {image.height} pixels, more "
                f"than {MAX_PIXELS // 10**6} million; scale it down first"
            )
        return _rgb(ImageOps.exif_transpose(image))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed white")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip
        grey = np.clip(np.asarray(image) / 257, 0, 255)
        image = Image.fromarray(np.rint(grey).astype(np.uint8))
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


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
        When there is no picture; a damaged one is found on reading it.
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


def _pictures(path: Path) -> list[Path]:
    """List the pictures of a folder, or the one file that a path names."""
    if not path.is_dir():
        return [path]
    paths = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(
            f"{path} contains no picture ({', '.join(SUFFIXES)}); "
            "name another folder"
        )
    return paths
