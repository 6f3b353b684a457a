"""Explain one's own pictures: files in, files out."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from explainer.checkpoints import Pair
from explainer.data import DataError, Photos, load_photo, size_within
from explainer.figures import overlay
from explainer.files import write_atomically
from explainer.masks import composite, make_fill

MAX_DRAWN = 12_000_000
"""Pixels of an overlay and of a mask, as many as most phones take."""


def _save(image: Tensor, path: Path) -> None:
    """Write ``(3, H, W)`` or ``(H, W)`` in [0, 1] as a PNG, whole."""
    pixels = (image.clamp(0, 1) * 255).round().byte().cpu()
    if pixels.ndim == 3:
        pixels = pixels.permute(1, 2, 0)
    content = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(content, "PNG")
    write_atomically(path, content.getvalue())


@torch.no_grad()
def explain_photo(pair: Pair, path: Path, folder: Path) -> dict[str, Any]:
    """Explain one picture.

    Writes ``<stem>_overlay.png`` and, for each class that the classifier
    finds (:func:`~explainer.classifiers.found`), ``<stem>_<class>.png`` into
    ``folder``. The masks are made at the size the pair was trained at and
    scaled to the picture's; a picture of more than :data:`MAX_DRAWN` pixels
    is drawn smaller.

    Returns
    -------
    The picture's name, the classes found, and for each of them its
    probability ``before`` and ``after`` masking and its mask's file.

    Raises
    ------
    DataError
        When the file is no picture.
    DiskError
        When the disk refuses what is written.
    """
    device = pair.classifier.mean.device
    picture = load_photo(path, size_within(path, MAX_DRAWN))
    images = load_photo(path, pair.size)[None].to(device)
    before = pair.predict(images)
    targets = pair.found(images).to(images)
    masks = pair.explain(images, targets)
    found = targets[0].nonzero()[:, 0].tolist()
    record: dict[str, Any] = {
        "photo": str(path),
        "found": [pair.classes[c] for c in found],
        "classes": {},
    }
    large = torch.zeros(len(found), *picture.shape[-2:])
    fill = make_fill("mean", images, pair.classifier)
    for i, c in enumerate(found):
        large[i] = F.interpolate(
            masks[:, c : c + 1],
            picture.shape[-2:],
            mode="bilinear",
            align_corners=False,
        )[0, 0]
        after = pair.predict(composite(images, masks[:, c : c + 1], fill))
        file = folder / f"{path.stem}_{pair.classes[c]}.png"
        _save(large[i], file)
        record["classes"][pair.classes[c]] = {
            "before": float(before[0, c]),
            "after": float(after[0, c]),
            "mask": str(file),
        }
    drawn = overlay(picture, large)
    _save(drawn, folder / f"{path.stem}_overlay.png")
    return record


def explain_photos(
    pair: Pair, paths: Sequence[Path], folder: Path
) -> list[dict[str, Any]]:
    """Explain pictures, or all pictures of folders.

    Returns a record of each as :func:`explain_photo` does. Raises
    :class:`DataError` when two pictures would share their files.
    """
    files = [file for path in paths for file in Photos(path).paths]
    stems = [file.stem for file in files]
    shared = sorted({stem for stem in stems if stems.count(stem) > 1})
    if shared:
        raise DataError(
            f"several pictures are named {', '.join(shared)}; explain them "
            "into different folders"
        )
    return [explain_photo(pair, file, folder) for file in files]
