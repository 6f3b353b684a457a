"""Draw ``book/_static/photographs.webp``, the first picture of the book.

Run from anywhere, on an idle machine, with OMP_NUM_THREADS=1: ``python
tools/draw_photographs.py``. It takes minutes, and says above each mask how
many seconds the mask took. Captions in book/intro.md and README.md describe
it. The photographs are the cat and the astronaut of scikit-image and
matplotlib's portrait of Grace Hopper; all three are free (CC0 or public
domain). The networks are those that come with the package. VOC's and COCO's
photographs may not be published here.
"""

import io
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.cbook import get_sample_data
from PIL import Image
from skimage import data
from torch import Tensor

import explainer
from explainer.attribution import METHOD_TITLES, PAPER_METHODS
from explainer.evaluation.methods import BUDGETS, Options, contenders
from explainer.figures import spotlight, strip
from explainer.teaching.tables import rounded

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "book" / "_static" / "photographs.webp"
METHODS = (*PAPER_METHODS, "input_gradient")
SIZE = (300, 450)  # of a panel


def timed(
    photo: np.ndarray, target: str, method: str, budget: Options
) -> tuple[str, Tensor]:
    """Return a method's title with its seconds, and what its mask keeps."""
    pair = explainer.load("animals")
    rows = contenders(
        [method], preset="animals", classes=pair.classes, budget=budget
    )
    options = {
        **rows[method].options,
        "generator": torch.Generator().manual_seed(0),
        "target": target,
    }
    explainer.explain(photo, pair, method="explainer")  # warms up
    start = time.perf_counter()
    found = explainer.explain(photo, pair, method=method, **options)
    seconds = time.perf_counter() - start
    mask = F.interpolate(found.masks[None], SIZE, mode="bilinear")[0]
    kept = spotlight(scaled(photo), mask)
    title = METHOD_TITLES[method].removesuffix(" (ours)")
    return f"{title}, {rounded(seconds)} s", kept


def scaled(photo: np.ndarray) -> Tensor:
    """Return a photograph ``(H, W, 3)`` as a panel, ``(3, 300, 450)``."""
    pixels = torch.from_numpy(photo).movedim(-1, 0).float() / 255
    return F.interpolate(pixels[None], SIZE, mode="area")[0]


def main(
    path: Path = PICTURE, budget: Options = BUDGETS["photographs"]
) -> None:
    """Draw the photographs, and below each what the methods keep of it."""
    with get_sample_data("grace_hopper.jpg") as file:
        portrait = np.array(Image.open(file))  # one that can be written
    photos = {  # cut to the cat's aspect ratio
        "an astronaut": ("person", data.astronaut()[:341]),
        "a portrait": ("person", portrait[20:361]),
        "a cat": ("cat", data.chelsea()),
    }
    panels = [
        panel
        for name, (target, photo) in photos.items()
        for panel in (
            (name, scaled(photo)),
            *(timed(photo, target, method, budget) for method in METHODS),
        )
    ]
    picture = io.BytesIO()
    titles, images = zip(*panels, strict=True)
    strip(images, titles, columns=4).savefig(picture, dpi=200)
    Image.open(picture).convert("RGB").save(path, quality=85, method=6)
    print(path)


if __name__ == "__main__":
    main()
