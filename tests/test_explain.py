"""One's own pictures: files in, files out."""

import io
from pathlib import Path
from typing import Any

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


def test_a_softmax_always_finds_one_class(tmp_path: Path) -> None:
    eye = Classifier(
        Colours(), CLASSES, mean=(0, 0, 0), std=(1, 1, 1), multi_label=False
    )
    pair = Pair(frozen(eye), Where(), CLASSES, SIZE)
    path = photo(
        tmp_path / "a.png",
        red=slice(0, 20),
        green=slice(20, 41),
        blue=slice(41, 60),
    )
    record = explain_photo(pair, path, tmp_path / "o")
    assert record["found"] == ["green"]
    # Logits 20 (share - 1/5): no class has a probability of 1/2.
    shares = torch.tensor([20.0, 21, 19]) / 60
    p = (20 * shares).softmax(0)[1].item()
    assert record["classes"]["green"]["before"] == pytest.approx(p, abs=0.02)
    assert p < 0.5


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


def flat(mode: str, colour: object, size: tuple[int, int] = (60, 40)) -> Any:
    return Image.new(mode, size, colour)  # type: ignore[arg-type]


def rotated() -> tuple[Image.Image, dict[str, object]]:
    """Red at the left, and the camera says: turn it to the right."""
    image = flat("RGB", "black")
    image.paste("red", (0, 0, 30, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    return image, {"exif": exif, "quality": 95}


def palette() -> Image.Image:
    image = flat("P", 1)
    image.putpalette([0, 0, 255, 255, 0, 0])  # 1 is red
    return image


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.full((40, 60), 65535, np.uint16))


EVERY = list(CLASSES)
FRAMES = {"save_all": True, "append_images": [flat("RGB", "blue")]}
KINDS: dict[str, tuple[str, Any, dict[str, Any], list[str]]] = {
    "none of the classes": ("a.png", flat("RGB", "black"), {}, []),
    "several": ("a.png", flat("RGB", "yellow"), {}, ["red", "green"]),
    "grey-scale": ("a.png", flat("L", 200), {}, EVERY),
    "one pixel": ("a.png", flat("RGB", "red", (1, 1)), {}, ["red"]),
    "one row": ("a.png", flat("RGB", "red", (3000, 1)), {}, ["red"]),
    "huge": ("a.jpg", flat("RGB", "red", (4000, 2500)), {}, ["red"]),
    "CMYK": ("a.jpg", flat("CMYK", (0, 255, 255, 0)), {}, ["red"]),
    "rotated": ("a.jpg", *rotated(), ["red"]),
    "transparent": ("a.png", flat("RGBA", (255, 0, 0, 0)), {}, EVERY),
    "animated": ("a.gif", flat("RGB", "red"), FRAMES, ["red"]),
    "16 bits": ("a.png", sixteen_bits(), {}, EVERY),
    "palette": ("a.png", palette(), {}, ["red"]),
    "one bit": ("a.png", flat("1", 1), {}, EVERY),
    "wrong suffix": ("a.jpg", flat("RGB", "red"), {"format": "PNG"}, ["red"]),
    "no suffix": ("a", flat("RGB", "red"), {"format": "PNG"}, ["red"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture(pair: Pair, kind: str, tmp_path: Path) -> None:
    name, image, options, found = KINDS[kind]
    path = tmp_path / name
    image.save(path, **options)
    (record,) = explain_photos(pair, [path], tmp_path / "out")
    assert record["found"] == found
    files = {f"a_{c}.png" for c in found} | {"a_overlay.png"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == files
    width, height = image.size
    upright = (height, width) if kind == "rotated" else (width, height)
    for file in (tmp_path / "out").iterdir():
        with Image.open(file) as written:
            assert written.size == upright
    for numbers in record["classes"].values():
        assert 0 <= numbers["after"] <= 1


def test_masks_lie_on_the_upright_picture(pair: Pair, tmp_path: Path) -> None:
    image, options = rotated()
    image.save(tmp_path / "a.jpg", **options)
    record = explain_photo(pair, tmp_path / "a.jpg", tmp_path / "out")
    mask = grey(record["classes"]["red"]["mask"])
    # What was at the left is on top.
    assert mask[:25].min() > 0.9
    assert mask[35:].max() < 0.1


def torn(format: str) -> bytes:
    content = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(content, format)
    return content.getvalue()[: len(content.getvalue()) // 2]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.jpg", b""),
        ("text.png", b"this is no picture\n"),
        ("page.jpg", b"<html><body>404</body></html>"),
        ("phone.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        ("cut.jpg", torn("JPEG")),
        ("cut.png", torn("PNG")),
        ("cut.gif", torn("GIF")),
        ("cut.tif", torn("TIFF")),
        ("cut.webp", torn("WEBP")),
    ],
)
def test_what_is_no_whole_picture_is_named(
    pair: Pair, name: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        explain_photos(pair, [path], tmp_path / "out")
    said = str(raised.value)
    assert str(path) in said
    assert "restore it or leave it out" in said
    assert "\n" not in said
    assert not (tmp_path / "out").exists()


def test_what_was_explained_before_a_damaged_one_stays(
    pair: Pair, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    photo(folder / "a.png", red=slice(0, 60))
    (folder / "b.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.jpg cannot be decoded"):
        explain_photos(pair, [folder], tmp_path / "out")
    files = {p.name for p in (tmp_path / "out").iterdir()}
    assert files == {"a_overlay.png", "a_red.png"}
