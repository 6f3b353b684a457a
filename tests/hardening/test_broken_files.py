"""Strange and broken files at the command line: a result or a sentence.

Each is read in a process of its own, so that its memory can be told. The
readers' own tests look closer at what the pictures become.
"""

import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

MEMORY = 2 * 2**30


def flat(mode: str, colour: Any, size: tuple[int, int] = (60, 40)) -> Any:
    return Image.new(mode, size, colour)


def noise(format: str, mode: str = "RGB") -> bytes:
    content = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert(mode).save(content, format)
    return content.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a PNG of 64 pixels whose header promises others."""
    content = io.BytesIO()
    flat("1", 1, (8, 8)).save(content, "PNG")
    data = bytearray(content.getvalue())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def large_png(path: Path, side: int) -> None:
    """Write a transparent PNG, as large as one may be, row by row."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    packer = zlib.compressobj(1)
    row = b"\0" + b"\x90" * (4 * side)
    rows = b"".join(packer.compress(row) for _ in range(side))
    header = 2 * side.to_bytes(4, "big") + b"\x08\x06\0\0\0"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", rows + packer.flush())
        + chunk(b"IEND", b"")
    )


# --- pictures that are strange, and can be explained ---------------------


def strange_pictures(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = flat("P", 1)
    palette.putpalette([0, 0, 255, 255, 0, 0])
    frames = [flat("RGB", "blue")]
    grey = np.full((40, 60), 40_000, np.uint16)
    flat("RGB", "red", (1, 1)).save(folder / "one pixel.png")
    flat("RGB", "red", (20_000, 10)).save(folder / "20,000 x 10.jpg")
    palette.save(folder / "palette.png", transparency=0)
    Image.fromarray(grey).save(folder / "16 bits.png")
    flat("CMYK", (0, 255, 255, 0)).save(folder / "ink.jpg")
    flat("RGB", "red").save(folder / "rotated.jpg", exif=exif)
    flat("RGBA", (255, 0, 0, 9)).save(folder / "transparent.png")
    flat("RGB", "red").save(
        folder / "animated.gif", save_all=True, append_images=frames
    )
    flat("RGB", "red").save(folder / "suffix.jpg", "PNG")
    flat("RGB", "red").save(folder / "кот и 猫.png")
    flat("RGB", "red").save(os.fsencode(folder) + b"/caf\xe9.png", "PNG")


def test_strange_pictures_are_explained(warm: Any, tmp_path: Path) -> None:
    folder = tmp_path / "Bilder von früher"
    folder.mkdir()
    strange_pictures(folder)
    out = tmp_path / "out"
    ended = warm.explainer(
        "explain", folder, "--preset", "scenes", "--out", out
    )
    assert ended.code == 0, ended.said
    assert len(ended.said.splitlines()) == 11
    overlays = {p.name for p in out.glob("*_overlay.png")}
    assert len(overlays) == 11
    assert "кот и 猫_overlay.png" in overlays
    assert ended.memory < MEMORY


def test_the_largest_picture_fits(warm: Any, tmp_path: Path) -> None:
    large_png(tmp_path / "large.png", 8000)
    out = tmp_path / "out"
    ended = warm.explainer(
        *("explain", tmp_path / "large.png"),
        *("--preset", "scenes", "--out", out),
    )
    assert ended.code == 0, ended.said
    assert ended.memory < MEMORY
    with Image.open(out / "large_overlay.png") as drawn:
        assert 11_900_000 < drawn.width * drawn.height <= 12_000_000
        assert drawn.width == drawn.height


# --- what is no picture --------------------------------------------------


def float_tiff(path: Path) -> None:
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(path)


BROKEN: dict[str, bytes | Callable[[Path], object]] = {
    "empty.jpg": b"",
    "cut.jpg": noise("JPEG")[:900],
    "text with a wrong ending.png": b"this is no picture\n",
    "nan.tif": float_tiff,
    "bomb.png": png_header(20_000, 20_000),
    "short.png": png_header(7_000, 7_000),
    "разбито 壊れた.png": noise("PNG")[:900],
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_picture_is_named(
    warm: Any, tmp_path: Path, name: str
) -> None:
    path, how = tmp_path / name, BROKEN[name]
    if isinstance(how, bytes):
        path.write_bytes(how)
    else:
        how(path)
    ended = warm.explainer(
        *("explain", path, "--preset", "scenes"),
        *("--out", tmp_path / "out"),
    )
    assert str(path) in ended.sentence
    assert ended.memory < MEMORY
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "file"),
    [("evaluate", "a.jsonl"), ("class-scores", "a.jsonl")],
)
def test_a_row_that_is_none_is_named(
    warm: Any, tmp_path: Path, command: str, file: str
) -> None:
    (tmp_path / file).write_text('{"image": 3}\n')
    ended = warm.explainer(
        *(command, "--preset", "scenes", "--methods", "zero"),
        *("--limit", "2", "--json", tmp_path / "a.json"),
    )
    assert str(tmp_path / file) in ended.sentence
    assert not (tmp_path / "a.json").exists()
    assert (tmp_path / file).read_text() == '{"image": 3}\n'
