"""From image files to tensors: decode, resize, flip.

A transform of an image is also applied to its mask. Images are resized
bilinearly with antialiasing, masks by nearest neighbour, so that class ids
are not mixed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from explainer.data.base import Batch, DataError
from explainer.streams import Generators, uniform

Pixels = NDArray[np.uint8]
Size = int | tuple[int, int]
"""Height and width in pixels; one number stands for both."""


@contextmanager
def decoding(path: str | Path) -> Iterator[None]:
    """Raise a :class:`DataError` for any error in reading an image file.

    Decoders raise many kinds of exceptions on damaged files.
    """
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{path} is too large to decode safely; scale it down first"
        ) from None
    except Exception as error:
        raise DataError(
            f"{path} cannot be decoded as an image "
            f"({type(error).__name__}): it is damaged, unreadable or of "
            "another kind; restore it or leave it out"
        ) from error


def height_width(size: Size) -> tuple[int, int]:
    """Return a size as (height, width), in pixels.

    Raises ValueError for less than one.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"a size is at least 1 pixel, not {size}")
    return height, width


def resize(
    image: Image.Image, size: Size | None, *, mask: bool = False
) -> Image.Image:
    """Return a scaled image (bilinear, antialiased) or mask (nearest).

    The aspect ratio is not kept, as in the paper; None keeps the size.
    """
    if size is None:
        return image
    height, width = height_width(size)
    how = Image.Resampling.NEAREST if mask else Image.Resampling.BILINEAR
    return image.resize((width, height), how)


def to_tensor(pixels: Pixels) -> Tensor:
    """Return ``(H, W, 3)`` bytes as ``(3, H, W)`` float in [0, 1]."""
    image = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
    return torch.from_numpy(image).div_(255)  # in place: pictures are large


def flip(batch: Batch, generator: Generators = None) -> Batch:
    """Return a batch whose images are mirrored with probability 1/2 each.

    Masks are mirrored with their images. ``generator`` is one for all
    images, one per image, or None for the global one.
    """
    coin = uniform(batch.images, (), generator) < 0.5

    def mirrored(x: Tensor) -> Tensor:
        where = coin.to(x.device).view(-1, *[1] * (x.ndim - 1))
        return torch.where(where, x.flip(-1), x)

    return batch._replace(
        images=mirrored(batch.images),
        masks=None if batch.masks is None else mirrored(batch.masks),
    )
