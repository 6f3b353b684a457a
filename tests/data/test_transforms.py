"""Decode, resize, flip: by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from explainer.data import Batch, DataError, flip
from explainer.data.transforms import (
    decoding,
    height_width,
    resize,
    to_tensor,
)


def test_to_tensor_moves_channels_first_and_scales() -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[1, 2] = (255, 0, 51)
    image = to_tensor(pixels)
    assert image.shape == (3, 2, 3)
    assert image.is_contiguous()
    assert image[:, 1, 2].tolist() == pytest.approx([1, 0, 0.2])
    assert image.sum() == pytest.approx(1.2)


def test_resize_takes_height_first() -> None:
    image = Image.new("L", (8, 4))
    assert resize(image, (2, 6)).size == (6, 2)
    assert resize(image, 5).size == (5, 5)
    assert resize(image, None) is image
    assert height_width((2, 6)) == (2, 6)
    with pytest.raises(ValueError, match="at least 1"):
        resize(image, 0)


def test_an_image_is_averaged_a_mask_is_picked() -> None:
    # Columns of 0 and 200: halved, an antialiased image is grey in between,
    # a mask keeps to the ids that it had.
    columns = Image.fromarray(np.tile(np.array([0, 200], np.uint8), (8, 4)))
    grey = np.asarray(resize(columns, (4, 4)))
    assert np.ptp(grey[:, 1:-1]) == 0
    assert grey[0, 1] == 100
    ids = np.asarray(resize(columns, (4, 4), mask=True))
    assert set(ids.ravel().tolist()) <= {0, 200}


def batch_of(n: int) -> Batch:
    images = torch.rand(n, 3, 4, 5)
    masks = (images[:, 0] * 9).long()
    names = [str(i) for i in range(n)]
    return Batch(images, torch.ones(n, 2), masks, names)


def test_flip_mirrors_image_and_mask_together() -> None:
    batch = batch_of(64)
    flipped = flip(batch, torch.Generator().manual_seed(0))
    assert flipped.masks is not None
    assert batch.masks is not None
    mirrored = 0
    for i in range(64):
        same = torch.equal(flipped.images[i], batch.images[i])
        mirrored += not same
        if not same:
            assert torch.equal(flipped.images[i], batch.images[i].flip(-1))
            assert torch.equal(flipped.masks[i], batch.masks[i].flip(-1))
        else:
            assert torch.equal(flipped.masks[i], batch.masks[i])
    assert 16 < mirrored < 48
    assert flipped.names == batch.names
    assert torch.equal(flipped.labels, batch.labels)


def test_flip_repeats_with_its_generator() -> None:
    batch = batch_of(16)
    a = flip(batch, torch.Generator().manual_seed(3))
    b = flip(batch, torch.Generator().manual_seed(3))
    c = flip(batch, torch.Generator().manual_seed(4))
    assert torch.equal(a.images, b.images)
    assert not torch.equal(a.images, c.images)


def test_flip_without_masks() -> None:
    batch = batch_of(4)._replace(masks=None)
    assert flip(batch).masks is None


def test_decoding_names_the_file_whatever_happens(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(DataError, match="does not exist"), decoding(path):
        path.open()
    path.touch()
    for error in (ValueError("x"), SyntaxError("x"), EOFError("x")):
        cannot = pytest.raises(DataError, match=r"a\.png cannot be decoded")
        with cannot, decoding(path):
            raise error
    with pytest.raises(DataError, match="my own"), decoding(path):
        raise DataError("my own sentence")
    with pytest.raises(KeyboardInterrupt), decoding(path):
        raise KeyboardInterrupt
