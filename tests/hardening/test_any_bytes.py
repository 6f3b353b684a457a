"""Whatever bytes a reader is given: a result that holds, or a UserError."""

import io
import json
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

from explainer.attribution import ellipse, zero
from explainer.checkpoints import load_classifier, read_weights
from explainer.data import COCO, LabelledPhotos, Scenes, load_photo
from explainer.data.coco import read_annotations
from explainer.data.download import extract
from explainer.data.voc import read_objects
from explainer.errors import UserError
from explainer.evaluation import evaluate
from explainer.evaluation.images import Settings
from explainer.evaluation.jsonl import RowFile
from explainer.evaluation.methods import Contender
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
    mode = {"tar": "w", "gz": "w:gz", "xz": "w:xz"}[kind]
    with tarfile.open(fileobj=content, mode=mode) as tar:  # type: ignore
        info = tarfile.TarInfo("a/b")
        info.size = 200
        tar.addfile(info, io.BytesIO(b"data" * 50))
    return content.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar", "gz", "xz"])
def test_archives(place: Path, kind: str) -> None:
    @some
    @given(files(archive(kind)))
    def check(content: bytes) -> None:
        path = place / ("a.zip" if kind == "zip" else "a.tar")
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


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 40),
        st.sampled_from([2**63, -(10**400), 1e300]),
        st.floats(),
        st.text(max_size=3),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.dictionaries(
            st.sampled_from(["size", "counts", "id"]), inner, max_size=3
        ),
    ),
    max_leaves=12,
)


def tabulate(folder: Path) -> object:
    return evaluate(
        {"zero": Contender(zero), "ellipse": Contender(ellipse)},
        load_classifier("scenes"),
        Scenes("test", 3),
        out=folder / "a.json",
        settings=Settings(steps=0),
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    tabulate(folder)
    return folder / "a.jsonl"


@given(
    line=st.integers(0, 7),
    key=st.integers(0, 30),
    other=values | st.just(KeyError),
)
@settings(some, max_examples=60)
def test_rows_of_any_values(
    place: Path, results: Path, line: int, key: int, other: Any
) -> None:
    """A key of a row is another's, or not there."""
    rows = [json.loads(row) for row in results.read_text().splitlines()]
    assert len(rows) == 8
    row = rows[line]
    name = list(row)[key % len(row)]
    row[name] = other
    if other is KeyError:
        del row[name]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path = place / "a.jsonl"
    path.write_text(text)
    survives(lambda path: tabulate(path.parent), path)


points = st.lists(st.floats(-50, 50) | st.floats(), max_size=10)
segmentations = st.one_of(
    values,
    st.lists(points, max_size=3),
    st.fixed_dictionaries(
        {
            "size": st.just([8, 8]),
            "counts": st.lists(st.integers(-9, 70), max_size=5) | values,
        }
    ),
)


@some
@given(segmentation=segmentations, other=values, key=st.sampled_from("abcd"))
def test_annotations_of_any_values(
    place: Path, segmentation: Any, other: Any, key: str
) -> None:
    folder = place / "coco2014"
    for name in ("annotations", "val2014"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    image = {"id": 1, "file_name": "a.jpg", "height": 8, "width": 8}
    found = {"image_id": 1, "category_id": 1, "segmentation": segmentation}
    changed = {
        "a": (image, "id"),
        "b": (image, "height"),
        "c": (found, "category_id"),
        "d": (found, "iscrowd"),
    }[key]
    changed[0][changed[1]] = other
    content = {
        "images": [image],
        "annotations": [found],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path = folder / "annotations" / "instances_val2014.json"
    path.write_text(json.dumps(content))
    Image.new("RGB", (8, 8)).save(folder / "val2014" / "a.jpg")

    def read(_: Path) -> object:
        return [sample.mask for sample in COCO(place, size=4)]

    for mask in survives(read, folder / "any") or []:  # type: ignore
        assert mask.shape == (4, 4)
