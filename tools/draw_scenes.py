"""Draw ``book/_static/scenes.png``, the picture of README and book.

Run from anywhere: ``python tools/draw_scenes.py``. The scenes are the first
of the test split that the classifier gets right, the masks those of the
weights that come with the package.
"""

from pathlib import Path

from explainer.checkpoints import load
from explainer.data import Scenes, collate
from explainer.figures import draw

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "book" / "_static" / "scenes.png"


def main(path: Path = PICTURE, n: int = 6) -> None:
    """Draw the first ``n`` scenes in which every class is found."""
    pair = load("scenes")
    batch = collate([Scenes("test")[i] for i in range(4 * n)])
    found = pair.predict(batch.images) >= 0.5
    right = (found == (batch.labels > 0)).all(1).nonzero()[:n, 0]
    images = batch.images[right]
    draw(images, pair.explain(images), pair.classes).savefig(path)
    print(path)


if __name__ == "__main__":
    main()
