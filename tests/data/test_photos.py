"""Pictures of every kind, whole and broken."""

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from explainer.data import (
    DataError,
    LabelledPhotos,
    Photos,
    describe_data,
    load_photo,
)
from explainer.data import photos as photos_module

RED, WHITE = (1.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def colour(image: torch.Tensor, y: int, x: int) -> tuple[float, ...]:
    return tuple(round(v, 2) for v in image[:, y, x].tolist())


def test_rgb_as_it_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    path = save(tmp_path / "a.png", Image.fromarray(pixels))
    image = load_photo(path)
    assert image.shape == (3, 4, 6)
    assert image.dtype == torch.float32
    wanted = torch.tensor(pixels).permute(2, 0, 1) / 255
    assert torch.equal(image, wanted)
    assert torch.equal(load_photo(str(path)), wanted)


@pytest.mark.parametrize("size", [7, (7, 9)])
def test_size(tmp_path: Path, size: int | tuple[int, int]) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (30, 20)))
    height, width = (size, size) if isinstance(size, int) else size
    assert load_photo(path, size).shape == (3, height, width)


def test_the_camera_rotation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 8), "white")
    image.paste("red", (0, 0, 8, 8))  # red on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned 90 degrees clockwise
    path = save(tmp_path / "a.png", image, exif=exif)
    upright = load_photo(path)
    assert upright.shape == (3, 16, 8)
    assert colour(upright, 2, 4) == RED  # left has become top
    assert colour(upright, 13, 4) == WHITE


def test_grey_becomes_rgb(tmp_path: Path) -> None:
    image = load_photo(save(tmp_path / "a.png", Image.new("L", (2, 2), 51)))
    assert colour(image, 0, 0) == (0.2, 0.2, 0.2)
    image = load_photo(save(tmp_path / "b.png", Image.new("1", (2, 2), 1)))
    assert colour(image, 0, 0) == WHITE


def test_16_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    grey = np.array([[0, 13107], [32768, 65535]], np.uint16)
    path = save(tmp_path / "a.png", Image.fromarray(grey))
    image = load_photo(path)
    wanted = torch.tensor([[0, 0.2], [0.5, 1]])
    assert torch.allclose(image, wanted.expand(3, 2, 2), atol=0.003)


def test_palette_and_cmyk(tmp_path: Path) -> None:
    red = Image.new("RGB", (8, 8), "red")
    path = save(tmp_path / "a.png", red.convert("P"))
    assert colour(load_photo(path), 4, 4) == RED
    path = save(tmp_path / "a.tif", red.convert("CMYK"))
    assert colour(load_photo(path), 4, 4) == RED
    path = save(tmp_path / "a.jpg", red.convert("CMYK"), quality=100)
    assert load_photo(path)[:, 4, 4].tolist() == pytest.approx(RED, abs=0.03)


def test_transparent_parts_show_white(tmp_path: Path) -> None:
    rgba = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
    rgba.putpixel((1, 0), (0, 0, 0, 0))
    rgba.putpixel((2, 0), (255, 0, 0, 51))  # a fifth of red on white
    image = load_photo(save(tmp_path / "a.png", rgba))
    assert colour(image, 0, 0) == RED
    assert colour(image, 0, 1) == WHITE
    assert colour(image, 0, 2) == (1.0, 0.8, 0.8)
    grey = Image.new("LA", (1, 1), (0, 0))
    assert colour(load_photo(save(tmp_path / "b.png", grey)), 0, 0) == WHITE
    indexed = Image.new("P", (2, 1), 0)
    indexed.putpalette([0, 0, 0, 255, 0, 0])
    indexed.putpixel((1, 0), 1)
    path = save(tmp_path / "c.png", indexed, transparency=0)
    assert colour(load_photo(path), 0, 0) == WHITE
    assert colour(load_photo(path), 0, 1) == RED


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue", "lime")]
    for name in ("a.gif", "a.webp", "a.png"):
        path = tmp_path / name
        frames[0].save(path, save_all=True, append_images=frames[1:])
        image = load_photo(path)[:, 0, 0]
        assert image.tolist() == pytest.approx(RED, abs=0.02)


@pytest.mark.parametrize("width_height", [(1, 1), (20_000, 10), (3, 9_000)])
def test_odd_sizes(tmp_path: Path, width_height: tuple[int, int]) -> None:
    for name in ("a.png", "a.jpg"):
        picture = Image.new("RGB", width_height, "white")
        path = save(tmp_path / name, picture)
        assert load_photo(path).shape == (3, *width_height[::-1])
        image = load_photo(path, 24)
        assert image.shape == (3, 24, 24)
        assert image.mean() > 0.99


def test_a_picture_with_too_many_pixels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos_module, "MAX_PIXELS", 10_000)
    png = save(tmp_path / "a.png", Image.new("RGB", (200, 100)))
    with pytest.raises(DataError, match=r"a\.png has 200 x 100 pixels"):
        load_photo(png, 16)
    # A JPEG decodes straight to a smaller scale.
    jpeg = save(tmp_path / "a.jpg", Image.new("RGB", (200, 100)))
    assert load_photo(jpeg, 16).shape == (3, 16, 16)
    with pytest.raises(DataError, match="scale it down"):
        load_photo(jpeg)


@pytest.mark.filterwarnings("error")
def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    # A real header that promises more pixels than Pillow itself accepts,
    # and one that Pillow merely warns of.
    for side in (20_000, 12_000):
        content = io.BytesIO()
        Image.new("1", (8, 8)).save(content, "PNG")
        data = bytearray(content.getvalue())
        data[16:24] = 2 * side.to_bytes(4, "big")
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
        path = tmp_path / f"{side}.png"
        path.write_bytes(data)
        with pytest.raises(DataError, match=rf"{side}\.png .*scale it down"):
            load_photo(path, 16)


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4), "red")
    path = save(tmp_path / "a.jpg", image, format="PNG")
    assert colour(load_photo(path), 0, 0) == RED


def broken_files(folder: Path) -> list[Path]:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    paths = []
    for name in ("cut.jpg", "cut.png", "cut.gif", "cut.webp", "cut.tif"):
        path = save(folder / name, Image.fromarray(noise))
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        paths.append(path)
    for name, content in (
        ("empty.jpg", b""),
        ("text.png", b"this is no picture"),
        ("script.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n"),
    ):
        (folder / name).write_bytes(content)
        paths.append(folder / name)
    (folder / "folder.jpg").mkdir()
    return [*paths, folder / "folder.jpg"]


def test_broken_files_are_named(tmp_path: Path) -> None:
    for path in broken_files(tmp_path):
        with pytest.raises(DataError) as caught:
            load_photo(path, 16)
        message = str(caught.value)
        assert str(path) in message
        assert "cannot be decoded" in message
        assert "\n" not in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jpg does not exist"):
        load_photo(tmp_path / "none.jpg")


def test_photos_of_a_folder_a_file_a_list(tmp_path: Path) -> None:
    for name, fill in (("b.PNG", "red"), ("a.jpg", "white")):
        save(tmp_path / name, Image.new("RGB", (9, 5), fill))
    (tmp_path / "notes.txt").write_text("no picture")
    photos = Photos(tmp_path, size=8)
    assert len(photos) == 2
    names = [sample.name for sample in photos]
    assert names == [str(tmp_path / n) for n in ("a.jpg", "b.PNG")]
    image, labels, mask, _ = photos[1]
    assert image.shape == (3, 8, 8)
    assert colour(image, 0, 0) == RED
    assert photos.classes == ()
    assert labels.shape == (0,)
    assert mask is None

    assert len(Photos(tmp_path / "a.jpg")) == 1
    several = Photos([tmp_path / "b.PNG", str(tmp_path / "a.jpg")])
    assert colour(several[0].image, 0, 0) == RED
    assert several[0].image.shape == (3, 5, 9)
    with pytest.raises(IndexError):
        several[2]


def test_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contains no picture"):
        Photos(tmp_path)
    with pytest.raises(DataError, match="no picture given"):
        Photos([])
    missing = Photos(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="does not exist"):
        missing[0]


def put(path: Path, fill: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(path, Image.new("RGB", (6, 4), fill))


def test_subfolders_are_labels(tmp_path: Path) -> None:
    for name in ("dog/b.png", "cat/a.jpg", "cat/z.png", ".hidden/x.png"):
        put(tmp_path / name)
    put(tmp_path / "loose.png")
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    photos = LabelledPhotos(tmp_path, size=4)
    assert photos.classes == ("cat", "dog")
    assert photos.labels.tolist() == [[1, 0], [1, 0], [0, 1]]
    assert photos.labels.dtype == torch.float32
    sample = photos[2]
    assert sample.name == str(tmp_path / "dog" / "b.png")
    assert sample.labels.tolist() == [0, 1]
    assert sample.image.shape == (3, 4, 4)
    assert sample.mask is None
    assert len(photos) == len(list(photos)) == 3
    # A folder that lacks a class can be given the other folder's list.
    again = LabelledPhotos(tmp_path, classes=("horse", "dog"))
    assert again.labels.tolist() == [[0, 0], [0, 0], [0, 1]]


def test_a_table_of_several_labels(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "deep" / "b.png", "blue")
    put(tmp_path / "c.png")
    table = tmp_path / "labels.csv"
    table.write_text(
        "file,labels,seen by\n"
        "deep/b.png,dog; cat,Ann\n"
        "a.png,cat,Bob\n"
        '"c.png",,Ann\n',
        encoding="utf-8-sig",
    )
    photos = LabelledPhotos(tmp_path)
    assert photos.classes == ("cat", "dog")
    assert photos.labels.tolist() == [[1, 1], [1, 0], [0, 0]]
    assert colour(photos[0].image, 0, 0) == (0.0, 0.0, 1.0)


def test_a_table_with_a_line_per_label(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        put(tmp_path / name)
    (tmp_path / "labels.csv").write_text(
        "file,labels\na.png,cat\nb.png,dog\na.png,dog\nb.png,dog\n"
    )
    photos = LabelledPhotos(tmp_path)
    assert photos.classes == ("cat", "dog")
    assert photos.labels.tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("name,labels\na.png,cat\n", "needs the columns file and labels"),
        ("file,labels\na.png\n", "needs the columns file and labels"),
        ("file,labels\nb.png,cat\n", r"names b\.png, and there is no"),
        ('file,labels\n"a.png,cat\n', "cannot be read as a table"),
        ("file,labels\n", r"labels\.csv names no picture"),
    ],
)
def test_a_damaged_table_is_named(
    tmp_path: Path, content: str, complaint: str
) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(DataError, match=complaint):
        LabelledPhotos(tmp_path)


def test_a_table_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes("file,labels\ná.png,k".encode("l1"))
    with pytest.raises(DataError, match="UTF-8"):
        LabelledPhotos(tmp_path)


def test_folders_without_labels(tmp_path: Path) -> None:
    put(tmp_path / "loose.png")
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match=r"neither a labels\.csv nor"):
            LabelledPhotos(folder)
    (tmp_path / "cat").mkdir()  # and no picture in any
    with pytest.raises(DataError, match="nor a subfolder of pictures"):
        LabelledPhotos(tmp_path)


def test_folders_of_as_many_pictures_are_told_apart(tmp_path: Path) -> None:
    """So that no run or table of the one is taken for the other's."""
    for name, colour in (("one", "red"), ("two", "blue"), ("same", "red")):
        (tmp_path / name / "cat").mkdir(parents=True)
        picture = Image.new("RGB", (8, 8), colour)
        picture.save(tmp_path / name / "cat" / "a.png")
    one, two, same = (
        describe_data(LabelledPhotos(tmp_path / name))
        for name in ("one", "two", "same")
    )
    assert one == same != two


@pytest.mark.parametrize("classes", [None, ("cat", "dog", "horse")])
def test_an_empty_subfolder_is_a_class_without_pictures(
    tmp_path: Path, classes: tuple[str, ...] | None
) -> None:
    put(tmp_path / "cat" / "1.png")
    put(tmp_path / "dog" / "1.png")
    (tmp_path / "horse").mkdir()
    (tmp_path / "horse" / "notes.txt").write_text("photos to follow")
    data = LabelledPhotos(tmp_path, classes=classes, size=4)
    assert data.classes == ("cat", "dog", "horse")
    assert data.labels.tolist() == [[1, 0, 0], [0, 1, 0]]


# --- what phones and other systems leave ------------------------------------

APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        \0\2" + bytes(200)
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)


def test_a_macs_notes_are_no_pictures(tmp_path: Path) -> None:
    put(tmp_path / "cat" / "a.jpg")
    (tmp_path / "cat" / "._a.jpg").write_bytes(APPLE_DOUBLE)
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    assert [p.name for p in Photos(tmp_path / "cat").paths] == ["a.jpg"]
    assert len(LabelledPhotos(tmp_path)) == 1


@pytest.mark.parametrize("name", ["a.heic", "a.jpg", "a"])
def test_heic_is_named_whatever_its_suffix(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(HEIC)
    with pytest.raises(DataError, match=r"kind HEIC.*convert it to JPEG"):
        load_photo(tmp_path / name)


@pytest.mark.parametrize("name", ["a.HEIC", "b.cr2", "c.jxl", "d.JFIF"])
def test_no_picture_of_a_folder_is_passed_over(
    tmp_path: Path, name: str
) -> None:
    put(tmp_path / "z.png")
    (tmp_path / name).write_bytes(HEIC)
    assert [p.name for p in Photos(tmp_path).paths] == [name, "z.png"]


@pytest.mark.skipif(
    "AVIF" not in photos_module.FORMATS, reason="THIS PILLOW HAS NO AVIF"
)
def test_avif_is_read(tmp_path: Path) -> None:
    save(tmp_path / "a.avif", Image.new("RGB", (16, 8), "red"))
    red = load_photo(tmp_path / "a.avif")
    assert red.shape == (3, 8, 16)
    assert red[0].min() > 0.95
    assert red[1:].max() < 0.05
    assert len(Photos(tmp_path)) == 1


def test_a_picture_of_pillow_is_read_as_its_file_is(tmp_path: Path) -> None:
    image = Image.effect_noise((9, 6), 90).convert("RGB")
    path = save(tmp_path / "a.png", image)
    assert torch.equal(load_photo(image), load_photo(path))
    assert torch.equal(load_photo(image, 4), load_photo(path, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "held.jpg", exif=exif)
    held = Image.open(tmp_path / "held.jpg")
    assert load_photo(held).shape == (3, 9, 6)
    assert held.size == (9, 6)  # the owner's is left as it was
