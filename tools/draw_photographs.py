"""Draw ``book/_static/photographs.webp``, the picture of the README.

Run from anywhere: ``python tools/draw_photographs.py``. The photographs are
the cat and the astronaut of scikit-image, which are free (CC0 and public
domain); the masks are those of the weights that come with the package. VOC's
and COCO's photographs may not be published here.
"""

from pathlib import Path

from PIL import Image
from skimage import data

import explainer

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "book" / "_static" / "photographs.webp"
WIDTH, HEIGHT, GAP = 450, 300, 6


def main(path: Path = PICTURE) -> None:
    """Draw a row per photograph: the image, E's mask, Grad-CAM."""
    photos = [
        Image.fromarray(data.chelsea()),
        Image.fromarray(data.astronaut()[:341]),  # the cat's aspect ratio
    ]
    masks = explainer.explain(photos)
    heat = explainer.explain(photos, method="grad_cam")
    columns = [photos, masks.draw(), heat.draw(heatmap=True)]
    sheet = Image.new(
        "RGB",
        (
            len(columns) * (WIDTH + GAP) - GAP,
            len(photos) * (HEIGHT + GAP) - GAP,
        ),
        "white",
    )
    for i, column in enumerate(columns):
        for k, image in enumerate(column):
            place = i * (WIDTH + GAP), k * (HEIGHT + GAP)
            sheet.paste(image.resize((WIDTH, HEIGHT)), place)
    sheet.save(path, quality=85, method=6)
    print(path)


if __name__ == "__main__":
    main()
