"""A tiny VOC folder with random pixels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explainer.data import VOC_CLASSES, VOID

WIDTH, HEIGHT = 24, 16


def annotation(objects: Sequence[str], difficult: bool = False) -> str:
    """Return a VOC annotation; persons have parts, as in VOC."""
    part = "<part><name>head</name></part>"
    items = "".join(
        f"<object><name>{name}</name><difficult>{int(difficult)}</difficult>"
        f"{part if name == 'person' else ''}</object>"
        for name in objects
    )
    return f"<annotation><folder>VOC</folder>{items}</annotation>"


def mask_of(names: Sequence[str]) -> np.ndarray:
    """Return ids with a block of 6 x 4 pixels a name, bordered by void."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    for i, name in enumerate(names):
        ids[1:9, 8 * i : 8 * i + 6] = VOID
        ids[2:8, 8 * i + 1 : 8 * i + 5] = VOC_CLASSES.index(name) + 1
    return ids


def save_mask(path: Path, ids: np.ndarray) -> None:
    """Save ids as a palette PNG whose colours are not the ids."""
    image = Image.fromarray(ids).convert("P")
    image.putdata(ids.ravel().tolist())  # undo the conversion's mapping
    palette = np.random.default_rng(0).integers(0, 256, 768, np.uint8)
    image.putpalette(palette.tolist())
    image.save(path)


@pytest.fixture
def tiny_voc(tmp_path: Path) -> Path:
    """Return a data root with five images of 24 x 16 pixels.

    train holds a (dog), b (dog and person) and c (car); test holds d (cat,
    difficult) and e (cow and sheep); b and e are segmented.
    """
    root = tmp_path / "tiny"
    folder = root / "VOCdevkit" / "VOC2007"
    for name in ("Annotations", "JPEGImages", "SegmentationClass"):
        (folder / name).mkdir(parents=True)
    objects = {
        "a": ["dog", "dog"],
        "b": ["dog", "person"],
        "c": ["car"],
        "d": ["cat"],
        "e": ["cow", "sheep"],
    }
    rng = np.random.default_rng(1)
    for name, present in objects.items():
        pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "JPEGImages" / f"{name}.jpg")
        text = annotation(present, difficult=name == "d")
        (folder / "Annotations" / f"{name}.xml").write_text(text)
        if name in "be":
            path = folder / "SegmentationClass" / f"{name}.png"
            save_mask(path, mask_of(present))
    for challenge, split, names in (
        ("Main", "train", "abc"),
        ("Main", "test", "de"),
        ("Segmentation", "train", "b"),
        ("Segmentation", "test", "e"),
    ):
        path = folder / "ImageSets" / challenge / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))
    return root
