"""One's own pictures: files in, files out."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from explainer.checkpoints import Pair
from explainer.classifiers import Classifier, frozen
from explainer.data import DataError
from explainer.explain import explain_photo, explain_photos

CLASSES = ("red", "green", "blue")
SIZE = 20


class Colours(nn.Module):
    """Logits: how much of each colour there is, above a fifth."""

    def forward(self, images: Tensor) -> Tensor:
        return 20 * (images.mean((2, 3)) - 0.2)


class Where(nn.Module):
    """Masks: where each colour is."""

    def forward(self, images: Tensor) -> Tensor:
        return 40 * (images - 0.5)


@pytest.fixture
def pair() -> Pair:
    eye = Classifier(Colours(), CLASSES, mean=(0, 0, 0), std=(1, 1, 1))
    return Pair(frozen(eye), Where(), CLASSES, SIZE)


def photo(path: Path, **colours: slice) -> Path:
    """Write 60 x 40 black pixels with columns of pure colours."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    for name, columns in colours.items():
        pixels[:, columns, CLASSES.index(name)] = 255
    Image.fromarray(pixels).save(path)
    return path


def grey(path: str) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image) / 255


def test_mask_and_probabilities_of_each_class_found(
    pair: Pair, tmp_path: Path
) -> None:
    path = photo(tmp_path / "two.png", red=slice(0, 30), blue=slice(30, 60))
    out = tmp_path / "deep" / "out"
    record = explain_photo(pair, path, out)
    assert record["photo"] == str(path)
    assert record["found"] == ["red", "blue"]
    assert {p.name for p in out.iterdir()} == {
        "two_overlay.png",
        "two_red.png",
        "two_blue.png",
    }
    red = record["classes"]["red"]
    mask = grey(red["mask"])
    assert mask.shape == (40, 60)  # the picture's size, not the network's
    assert mask[:, :27].min() > 0.95
    assert mask[:, 33:].max() < 0.05
    # Half of the picture is red, with and without the rest.
    expected = torch.tensor(20 * (0.5 - 0.2)).sigmoid().item()
    assert red["before"] == pytest.approx(expected, abs=1e-3)
    assert red["after"] == pytest.approx(expected, abs=1e-2)
    with Image.open(out / "two_overlay.png") as image:
        assert image.mode == "RGB"
        assert image.size == (60, 40)


def test_nothing_found_is_no_error(pair: Pair, tmp_path: Path) -> None:
    record = explain_photo(pair, photo(tmp_path / "dark.png"), tmp_path / "o")
    assert record["found"] == []
    assert record["classes"] == {}
    files = [path.name for path in (tmp_path / "o").iterdir()]
    assert files == ["dark_overlay.png"]


def test_folders_and_files(pair: Pair, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    photo(folder / "b.jpg", red=slice(0, 60))
    photo(folder / "a.png", blue=slice(0, 60))
    single = photo(tmp_path / "c.png", green=slice(0, 60))
    found = explain_photos(pair, [single, folder], tmp_path / "out")
    assert [Path(r["photo"]).name for r in found] == [
        "c.png",
        "a.png",
        "b.jpg",
    ]
    assert [r["found"] for r in found] == [["green"], ["blue"], ["red"]]


def test_pictures_never_overwrite_each_other(
    pair: Pair, tmp_path: Path
) -> None:
    one = photo(tmp_path / "cat.png", red=slice(0, 60))
    two = photo(tmp_path / "cat.jpg", red=slice(0, 60))
    with pytest.raises(DataError, match="several pictures are named cat"):
        explain_photos(pair, [one, two], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_picture_leaves_nothing(pair: Pair, tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(content, "JPEG")
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(content.getvalue()[:900])
    for path in (torn, tmp_path / "missing.jpg"):
        with pytest.raises(DataError, match=path.name):
            explain_photo(pair, path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
