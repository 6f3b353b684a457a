"""Pictures from files or memory, as tensors ``(3, H, W)`` in [0, 1].

A picture is a path, a Pillow image, a NumPy array or a tensor.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from explainer.classifiers import ImageError, check_images
from explainer.data.base import DataError
from explainer.data.photos import (
    Photos,
    load_photo,
    scaled_within,
    size_within,
)
from explainer.errors import UserError

MAX_DRAWN = 12_000_000
"""Largest number of pixels of an overlay or a mask; most phones use fewer."""

Picture = str | Path | Image.Image | Tensor | np.ndarray[Any, Any]


def named_pictures(images: Any) -> tuple[list[tuple[str, Picture]], bool]:
    """Return photographs with their names, and whether it is a single one.

    ``images`` is a path, a folder (all its pictures), a Pillow image, an
    array ``(H, W, 3)`` or a tensor ``(3, H, W)``, a batch of these, or
    several of any kind. A photograph without a path is named by its
    position.
    """
    if isinstance(images, str | Path):
        single = not Path(images).is_dir()
        return [(str(p), p) for p in Photos(images).paths], single
    if isinstance(images, Tensor | np.ndarray) and images.ndim == 4:
        images = list(images)
    if isinstance(images, Image.Image | Tensor | np.ndarray):
        return [("image_0", images)], True
    if not isinstance(images, Iterable):
        raise UserError(
            "images are paths, pictures of Pillow, NumPy arrays (H, W, 3) or "
            f"tensors (3, H, W), not {type(images).__name__}"
        )
    items: list[tuple[str, Picture]] = []
    for image in images:
        for name, source in named_pictures(image)[0]:
            own = isinstance(source, Path)
            items.append((name if own else f"image_{len(items)}", source))
    if not items:
        raise DataError("no picture given; name at least one")
    return items, False


def _channels_first(source: Tensor | np.ndarray[Any, Any]) -> Tensor:
    """Return an array or a tensor as ``(3, H, W)`` in [0, 1]."""
    kind, shape = "(3, H, W)", tuple(source.shape)
    if isinstance(source, np.ndarray):
        kind = "(H, W, 3)"
        source = source[..., None] if source.ndim == 2 else source
        # A copy that PyTorch takes: writable, in this machine's byte order.
        own = source.dtype.newbyteorder("=")
        source = torch.from_numpy(np.array(source, own, order="C"))
        source = source.movedim(-1, 0)
    if source.ndim != 3 or len(source) not in (1, 3, 4):
        raise ImageError(
            f"a picture is {kind}, not {shape}: a NumPy array has its "
            "colours last, a tensor first"
        )
    image = source.detach().cpu()
    if not image.is_floating_point():
        if image.dtype != torch.uint8:
            raise ImageError(
                "a picture holds bytes from 0 to 255 (uint8) or floating-"
                f"point numbers from 0 to 1, not {image.dtype}; convert it"
            )
        image = image / 255
    image = image.float()
    if len(image) == 4:  # transparent parts become white
        image = image[3:] * image[:3] + 1 - image[3:]
    image = image.expand(3, -1, -1)
    check_images(image[None])
    return image


def to_pixels(source: Picture, size: tuple[int, int] | None) -> Tensor:
    """Return a photograph ``(3, H, W)`` in [0, 1], scaled if asked."""
    if isinstance(source, str | Path | Image.Image):
        return load_photo(source, size)
    image = _channels_first(source)
    if size is None or image.shape[-2:] == size:
        return image
    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[
        0
    ].clamp(0, 1)


def own_size(source: Picture) -> Tensor:
    """Return a photograph at its own size, up to :data:`MAX_DRAWN` pixels."""
    if isinstance(source, str | Path):
        return load_photo(source, size_within(source, MAX_DRAWN))
    image = to_pixels(source, None)
    height, width = image.shape[-2:]
    if height * width <= MAX_DRAWN:
        return image
    return to_pixels(source, scaled_within(height, width, MAX_DRAWN))
