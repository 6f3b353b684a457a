"""Draw ``book/_static/scenes.png``, the picture of README and book.

Run from anywhere: ``python tools/draw_scenes.py``. The scenes are the first
of the test split with two classes or more, all of them found; the masks are
those of the weights that come with the package.
"""

from pathlib import Path

from explainer.checkpoints import load
from explainer.data import Scenes, collate
from explainer.figures import draw

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "book" / "_static" / "scenes.png"


def main(path: Path = PICTURE, n: int = 6) -> None:
    """Draw the first ``n`` such scenes."""
    pair, test = load("scenes"), Scenes("test")
    batch = collate([test[i] for i in range(10 * n)])
    found = pair.found(batch.images)
    wanted = (found == batch.labels).all(1) & (batch.labels.sum(1) >= 2)
    images = batch.images[wanted][:n]
    draw(images, pair.explain(images), pair.classes).savefig(path)
    print(path)


if __name__ == "__main__":
    main()
