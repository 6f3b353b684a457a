"""From image files to tensors: decode, resize, flip, crop.

Whatever moves an image moves its mask: images are resized bilinearly with
antialiasing, masks by nearest neighbour, so that no class id is invented.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from explainer.data.base import Batch, DataError, check_file

MAX_BYTES = 500_000_000
"""No picture that can be read here has so large a file."""

Pixels = NDArray[np.uint8]
Size = int | tuple[int, int]
"""Height and width in pixels; one number stands for both."""


@contextmanager
def decoding(path: str | Path) -> Iterator[None]:
    """Turn whatever goes wrong with an image file into a :class:`DataError`.

    Decoders raise nearly every exception there is on damaged input, hence
    the broad net; only decoding belongs inside this block.
    """
    try:
        check_file(path, MAX_BYTES)
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
    """Scale an image (bilinear, antialiased) or a mask (nearest).

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


def flip(batch: Batch, generator: torch.Generator | None = None) -> Batch:
    """Mirror each image of a batch, and its mask, with probability 1/2.

    The same generator state flips the same images; with None the global one
    decides.
    """
    n = len(batch.images)
    coin = torch.rand(n, generator=generator) < 0.5
    coin = coin.to(batch.images.device)

    def mirrored(x: Tensor) -> Tensor:
        return torch.where(coin.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)

    return batch._replace(
        images=mirrored(batch.images),
        masks=None if batch.masks is None else mirrored(batch.masks),
    )


def crop(
    batch: Batch, least: float, generator: torch.Generator | None = None
) -> Batch:
    """Cut a window out of each image, and its mask; enlarge it to the whole.

    A window has a share of the image's height and width that is uniform
    between ``least``, in (0, 1], and 1, and lies anywhere inside. Images
    are interpolated, masks keep their ids. Labels are kept, although what
    they name may have been cut off: choose ``least`` large. With None the
    global generator decides.
    """
    if not 0 < least <= 1:
        raise ValueError(f"a window's share lies in (0, 1], not {least}")
    images, n = batch.images, len(batch.images)
    share, x, y = torch.rand(3, n, generator=generator)
    share = least + (1 - least) * share
    # Rows of the maps from the window's coordinates, in [-1, 1], to the
    # image's; the window's centre keeps it inside.
    zero, free = torch.zeros(n), 1 - share
    rows = [share, zero, free * (2 * x - 1), zero, share, free * (2 * y - 1)]
    maps = torch.stack(rows, 1).view(n, 2, 3)
    shape = [n, 1, *images.shape[-2:]]
    grid = F.affine_grid(maps, shape, align_corners=False).to(images)

    def window(x: Tensor, mode: str) -> Tensor:
        # What lies within half a pixel of the border repeats the border.
        return F.grid_sample(x, grid, mode, "border", align_corners=False)

    masks = batch.masks
    if masks is not None:
        ids = masks[:, None].to(images.dtype)
        masks = window(ids, "nearest")[:, 0].to(masks.dtype)
    return batch._replace(images=window(images, "bilinear"), masks=masks)
