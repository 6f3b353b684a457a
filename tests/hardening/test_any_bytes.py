"""Whatever bytes a reader is given: a result that holds, or a UserError."""

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from explainer.checkpoints import read_weights
from explainer.data import LabelledPhotos, load_photo
from explainer.data.coco import read_annotations
from explainer.data.download import extract
from explainer.data.voc import read_objects
from explainer.errors import UserError
from explainer.evaluation.jsonl import RowFile
from explainer.files import read_json

some = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@st.composite
def damaged(draw: Callable[..., Any], whole: bytes) -> bytes:
    """Draw a file with a few bytes changed, or without its end."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 6))):
        where = draw(st.integers(0, len(content) - 1))
        new = draw(st.binary(min_size=1, max_size=4))
        content[where : where + len(new)] = new
    end = draw(st.one_of(st.none(), st.integers(0, len(content))))
    return bytes(content[:end])


def files(whole: bytes) -> st.SearchStrategy[bytes]:
    return st.one_of(st.binary(max_size=100), damaged(whole))


def survives(reader: Callable[[Path], object], path: Path) -> object:
    """Read a file; the only error there may be is one sentence."""
    said = None
    try:
        return reader(path)
    except UserError as error:
        said = str(error)
    assert str(path.parent) in said
    assert "\n" not in said
    return None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder: that of a test would be one for all examples."""
    return tmp_path_factory.mktemp("any")


def picture(format: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format)
    return content.getvalue()


@pytest.mark.filterwarnings("ignore")  # Pillow's, on damaged metadata
@pytest.mark.parametrize(
    "format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"]
)
def test_pictures(place: Path, format: str) -> None:
    @some
    @given(files(picture(format)))
    def check(content: bytes) -> None:
        path = place / "a"
        path.write_bytes(content)
        image = survives(lambda p: load_photo(p, 8), path)
        if image is not None:
            assert isinstance(image, torch.Tensor)
            assert image.shape == (3, 8, 8)
            assert 0 <= image.min() <= image.max() <= 1

    check()


def archive(kind: str) -> bytes:
    content = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.writestr("a/b", b"data" * 50)
        return content.getvalue()
    with tarfile.open(fileobj=content, mode="w") as tar:
        info = tarfile.TarInfo("a/b")
        info.size = 200
        tar.addfile(info, io.BytesIO(b"data" * 50))
    return content.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives(place: Path, kind: str) -> None:
    @some
    @given(files(archive(kind)))
    def check(content: bytes) -> None:
        path = place / f"a.{kind}"
        path.write_bytes(content)
        target = place / "deep" / "target"
        target.mkdir(parents=True, exist_ok=True)
        outside = {p.name for p in place.iterdir()} | {f"{path.name}.lock"}
        survives(lambda p: extract(p, target), path)
        assert {p.name for p in place.iterdir()} <= outside
        assert {p.name for p in target.parent.iterdir()} == {"target"}
        shutil.rmtree(target)

    check()


OBJECT = b"<annotation><object><name>cat</name></object></annotation>"
TENSORS = safetensors.torch.save(
    {"a": torch.ones(3)}, metadata={"config": '{"kind": "x"}'}
)
READERS: dict[str, tuple[Callable[[Path], object], bytes]] = {
    "VOC": (read_objects, OBJECT),
    "COCO": (
        read_annotations,
        b'{"categories": [{"id": 1, "name": "cat"}], "images": [{"id": 1, '
        b'"file_name": "a", "height": 9, "width": 9}], "annotations": '
        b'[{"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 9]]}]}',
    ),
    "weights": (read_weights, TENSORS),
    "rows": (RowFile, b'{"a": 1}\n{"b": [1.5, null]}\n{"c": "d"}\n'),
    "card": (read_json, b'{"sha256": "0", "n": 1}'),
    "table": (
        lambda path: LabelledPhotos(path.parent),
        b"file,labels\na.png,cat;dog\nb.png,\n",
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_other_files(place: Path, name: str) -> None:
    reader, whole = READERS[name]

    @some
    @given(files(whole))
    def check(content: bytes) -> None:
        path = place / "labels.csv"
        path.write_bytes(content)
        survives(reader, path)

    check()
