"""Strange and broken files at the command line: a result or a sentence.

Each is read in a process of its own, so that its memory can be told and a
process that hangs can be ended. The readers' own tests look closer at what
the pictures become.
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
GIGABYTES = 4 * 10**9


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


def sparse(path: Path, start: bytes) -> None:
    """Write a file of gigabytes that takes no room on the disk."""
    path.write_bytes(start)
    os.truncate(path, GIGABYTES)


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


def npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.full((8, 8, 3), np.nan))


def loop(path: Path) -> None:
    other = path.with_suffix(".other")
    path.symlink_to(other)
    other.symlink_to(path)


WEBP = b"RIFF\xf0\xff\xff\xffWEBPVP8 "
GIF = b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,"
BROKEN: dict[str, bytes | Callable[[Path], object]] = {
    "empty.jpg": b"",
    "cut.jpg": noise("JPEG")[:900],
    "text with a wrong ending.png": b"this is no picture\n",
    "nan.tif": float_tiff,
    "array.png": npy,
    "bomb.png": png_header(20_000, 20_000),
    "small bomb.png": png_header(9_000, 9_000),
    "short.png": png_header(7_000, 7_000),
    "screen.gif": GIF + bytes(40),
    "gigabytes.webp": lambda path: sparse(path, WEBP),
    "gigabytes.ppm": lambda path: sparse(path, b"P6 8000 8000 255\n"),
    "zeros.jpg": lambda path: path.symlink_to("/dev/zero"),
    "folder.jpg": lambda path: path.mkdir(),
    "pipe.jpg": lambda path: os.mkfifo(path),
    "loop.jpg": loop,
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
    asked = path
    if name == "folder.jpg":
        flat("RGB", "red").save(path / "inside.png")
        asked = tmp_path  # the folder that holds it
    ended = warm.explainer(
        *("explain", asked, "--preset", "scenes"),
        *("--out", tmp_path / "out"),
    )
    assert str(path) in ended.sentence
    assert ended.memory < MEMORY
    assert not (tmp_path / "out").exists()


def test_a_name_of_other_bytes_is_named(warm: Any, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    Path(path).touch()
    ended = warm.explainer("explain", path, "--preset", "scenes")
    assert "/caf\\udce9.png cannot be decoded" in ended.sentence


# --- annotations ---------------------------------------------------------

LAUGHS = "".join(
    f'<!ENTITY l{i} "{10 * f"&l{i - 1};"}">' for i in range(1, 12)
)
BILLION = f"""<?xml version="1.0"?>
<!DOCTYPE annotation [<!ENTITY l0 "ha">{LAUGHS}]>
<annotation><object><name>&l11;</name></object></annotation>"""
BLOWUP = f"""<!DOCTYPE a [<!ENTITY a "{"a" * 90_000}">]>
<annotation><object><name>{"&a;" * 90_000}</name></object></annotation>"""
DEEP = "<a>" * 140_000 + "</a>" * 140_000

VOC = "from explainer.data.voc import read_objects as read"
COCO = "from explainer.data.coco import read_annotations as read"
TABLE = "from explainer.data import LabelledPhotos as read"
ROWS = "from explainer.evaluation.jsonl import RowFile as read"
WEIGHTS = "from explainer.checkpoints import read_weights as read"
JSON = "from explainer.files import read_json as read"

ANNOTATIONS: dict[str, tuple[str, str, Any]] = {
    "a billion laughs": (VOC, "a.xml", BILLION),
    "a quadratic blow-up": (VOC, "a.xml", BLOWUP),
    "deep elements": (VOC, "a.xml", DEEP),
    "elements without end": (VOC, "a.xml", "<annotation><object>" * 40_000),
    "gigabytes of XML": (VOC, "a.xml", lambda p: sparse(p, b"<annotation>")),
    "a pipe of XML": (VOC, "a.xml", lambda p: os.mkfifo(p)),
    "XML in a loop": (VOC, "a.xml", loop),
    "endless XML": (VOC, "a.xml", lambda p: p.symlink_to("/dev/zero")),
    "deep lists": (COCO, "a.json", "[" * 10**6),
    "gigabytes of JSON": (COCO, "a.json", lambda p: sparse(p, b"[")),
    "a pipe of JSON": (COCO, "a.json", lambda p: os.mkfifo(p)),
    "JSON in a loop": (COCO, "a.json", loop),
    "a gigabyte's table": (TABLE, "labels.csv", lambda p: sparse(p, b"file")),
    "deep cards": (JSON, "a.json", '{"a":' * 10**6),
    "gigabytes of weights": (
        WEIGHTS,
        "a.safetensors",
        lambda p: sparse(p, b"\xff" * 7 + b"\0"),
    ),
    "rows of lists": (ROWS, "a.jsonl", "[" * 10**5 + "\n"),
}


@pytest.mark.parametrize("kind", ANNOTATIONS)
def test_broken_annotations_are_named(
    warm: Any, tmp_path: Path, kind: str
) -> None:
    reader, name, how = ANNOTATIONS[kind]
    path = tmp_path / name
    if isinstance(how, str):
        path.write_text(how)
    else:
        how(path)
    asked = tmp_path if reader == TABLE else path
    code = f"from pathlib import Path; {reader}; read(Path({str(asked)!r}))"
    ended = warm.run(python=code)
    assert str(path) in ended.sentence
    assert len(ended.sentence) < 600
    assert ended.memory < MEMORY


@pytest.mark.parametrize("row", ["{}", '{"image": 3}', '{"index": 0}'])
@pytest.mark.parametrize(
    ("command", "file"),
    [("evaluate", "a.jsonl"), ("class-scores", "a.jsonl")],
)
def test_a_row_that_is_none_is_named(
    warm: Any, tmp_path: Path, command: str, file: str, row: str
) -> None:
    (tmp_path / file).write_text(f"{row}\n")
    ended = warm.explainer(
        *(command, "--preset", "scenes", "--methods", "zero"),
        *("--limit", "2", "--json", tmp_path / "a.json"),
    )
    assert str(tmp_path / file) in ended.sentence
    assert not (tmp_path / "a.json").exists()
    assert (tmp_path / file).read_text() == f"{row}\n"


LARGE = """
from pathlib import Path
from explainer.data import VOC

print(VOC(Path({root!r}), "train", size=8)[0].image.shape)
"""


def test_a_large_photograph_of_a_dataset_fits(
    warm: Any, tmp_path: Path
) -> None:
    """Of 169 million pixels: a few more are refused."""
    folder = tmp_path / "VOCdevkit" / "VOC2007"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    (folder / "Annotations" / "a.xml").write_text(
        "<annotation><object><name>cat</name></object></annotation>"
    )
    path = folder / "JPEGImages" / "a.jpg"
    flat("L", 90, (13_000, 13_000)).save(path)
    ended = warm.run(python=LARGE.format(root=str(tmp_path)))
    assert "[3, 8, 8]" in ended.said
    assert ended.memory < MEMORY
    content = bytearray(path.read_bytes())
    frame = content.index(b"\xff\xc0")  # its height and width follow
    content[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    ended = warm.run(python=LARGE.format(root=str(tmp_path)))
    assert f"{path} is too large to decode safely" in ended.sentence
