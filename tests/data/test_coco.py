"""COCO: labels from annotations, masks drawn by hand, damage named."""

import copy
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.models.detection import (
    FasterRCNN_ResNet50_FPN_Weights as Detector,
)

from explainer.data import (
    COCO,
    COCO_CLASSES,
    COCO_PAPER_CLASSES,
    VOID,
    DataError,
    First,
    Sample,
    coco,
    load_data,
)
from explainer.data.coco import rasterise, run_lengths
from explainer.data.download import Archive
from explainer.errors import UnknownNameError
from explainer.presets import PRESETS

WIDTH, HEIGHT = 12, 8
CATEGORIES = {"person": 1, "cat": 17, "cup": 47, "dining table": 67}


def box(x: float, y: float, w: float, h: float) -> list[float]:
    """Return a rectangle as COCO writes a polygon."""
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def runs_of(bits: np.ndarray) -> dict[str, Any]:
    """Return run lengths by the rule: column by column, zeros first."""
    counts, value = [0], False
    for bit in bits.T.ravel().tolist():
        if bit != value:
            counts.append(0)
            value = bit
        counts[-1] += 1
    return {"size": list(bits.shape), "counts": counts}


def crowd_bits() -> np.ndarray:
    bits = np.zeros((HEIGHT, WIDTH), bool)
    bits[0:2, 0:4] = True
    return bits


def annotation(
    image: int, name: str, segmentation: object, crowd: bool = False
) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": CATEGORIES[name],
        "segmentation": segmentation,
        "iscrowd": int(crowd),
    }


def content_of(objects: list[dict[str, Any]], n: int) -> dict[str, Any]:
    """Return the annotations of images 1 to n, listed backwards."""
    return {
        "images": [
            {
                "id": i,
                "file_name": f"COCO_{i:04d}.jpg",
                "height": HEIGHT,
                "width": WIDTH,
            }
            for i in range(n, 0, -1)
        ],
        "annotations": objects,
        "categories": [{"id": i, "name": k} for k, i in CATEGORIES.items()],
    }


TEST = [
    # 1: a table, and on it a cup that is annotated before the table
    annotation(1, "cup", [box(3, 3, 2, 2)]),
    annotation(1, "dining table", [box(1, 2, 8, 5)]),
    # 2: a crowd, and a person in front of it in two parts
    annotation(2, "person", runs_of(crowd_bits()), crowd=True),
    annotation(2, "person", [box(1, 1, 2, 2), box(6, 6, 3, 1)]),
    # 3 has no annotation; 4: a cat
    annotation(4, "cat", [box(0, 0, 4, 4)]),
]


@pytest.fixture
def tiny_coco(tmp_path: Path) -> Path:
    """Return a data root: 20 images to train, 4 to test."""
    root = tmp_path / "tiny"
    folder = root / "coco2014"
    rng = np.random.default_rng(0)
    train = [
        annotation(i, "person" if i % 2 else "cat", [box(0, 0, 3, 3)])
        for i in range(1, 20)
    ]
    for part, objects, n in (("train2014", train, 20), ("val2014", TEST, 4)):
        (folder / part).mkdir(parents=True)
        for i in range(1, n + 1):
            pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            image = Image.fromarray(pixels)
            if i == 4:
                image = image.convert("L")  # COCO has grey ones, too
            image.save(folder / part / f"COCO_{i:04d}.jpg")
        write(root, part, content_of(objects, n))
    return root


def instances(root: Path, part: str = "val2014") -> Path:
    return root / "coco2014" / "annotations" / f"instances_{part}.json"


def write(root: Path, part: str, content: object) -> None:
    instances(root, part).parent.mkdir(exist_ok=True)
    instances(root, part).write_text(json.dumps(content))


def ids(sample: Sample) -> list[list[int]]:
    assert sample.mask is not None
    rows: list[list[int]] = sample.mask.tolist()
    return rows


def test_the_classes_are_those_that_torchvision_knows() -> None:
    theirs = Detector.DEFAULT.meta["categories"]
    assert len(COCO_CLASSES) == 80
    assert len(COCO_PAPER_CLASSES) == len(theirs) == 91
    unused = 0
    for i, (ours, name) in enumerate(
        zip(COCO_PAPER_CLASSES, theirs, strict=True)
    ):
        if name in ("N/A", "__background__"):
            assert ours == f"unused {i}"
            unused += 1
        else:
            assert ours == name
    assert unused == 11


def test_polygons_by_hand() -> None:
    bits = rasterise([box(2, 1, 3, 2)], 5, 8)
    wanted = np.zeros((5, 8), bool)
    wanted[1:3, 2:5] = True
    assert bits.dtype == bool
    assert np.array_equal(bits, wanted)
    assert rasterise([box(0, 0, 8, 5)], 5, 8).all()
    assert rasterise([box(-9, -9, 30, 30)], 5, 8).all()
    both = rasterise([box(2, 1, 3, 2), box(0, 3, 1, 1), [1, 1, 4, 4]], 5, 8)
    wanted[3, 0] = True  # and a line has no pixel
    assert np.array_equal(both, wanted)
    assert not rasterise([], 5, 8).any()


def test_run_lengths_by_hand() -> None:
    # Column by column: one off, two on, three off.
    bits = rasterise({"size": [3, 2], "counts": [1, 2, 3]}, 3, 2)
    again = rasterise({"size": [3, 2], "counts": "123"}, 3, 2)
    assert np.array_equal(bits, again)
    assert bits.tolist() == [[False, False], [True, False], [True, False]]


@pytest.mark.parametrize(
    ("size", "counts"), [([3, 2], [1, 2]), ([2, 3], [1, 2, 3])]
)
def test_run_lengths_of_another_size(
    size: list[int], counts: list[int]
) -> None:
    with pytest.raises(ValueError, match="not of the image's size"):
        rasterise({"size": size, "counts": counts}, 3, 2)


def test_labels_are_the_annotations(tiny_coco: Path) -> None:
    data = COCO(tiny_coco, classes=("cup", "person", "cat"), sample=None)
    assert [sample.name for sample in data] == [
        f"COCO_{i:04d}" for i in (1, 2, 3, 4)
    ]
    assert data.labels.tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 0],
        [0, 0, 1],
    ]
    assert torch.equal(data[1].labels, data.labels[1])
    mask = data[2].mask
    assert mask is not None
    assert not mask.any()


def test_the_papers_outputs_are_the_ids(tiny_coco: Path) -> None:
    data = COCO(tiny_coco, classes=COCO_PAPER_CLASSES)
    assert data.labels.shape == (3, 91)
    assert data.labels[0].nonzero()[:, 0].tolist() == [47, 67]
    assert data[0].mask is not None
    assert data[0].mask.unique().tolist() == [0, 48, 68]
    named = COCO(tiny_coco)
    assert named.labels.shape == (3, 80)
    names = [COCO_CLASSES[c] for c in named.labels[0].nonzero()[:, 0]]
    assert names == ["cup", "dining table"]


def test_the_smaller_object_is_on_top(tiny_coco: Path) -> None:
    classes = ("cup", "dining table")
    sample = COCO(tiny_coco, classes=classes, size=None)[0]
    wanted = np.zeros((HEIGHT, WIDTH), int)
    wanted[2:7, 1:9] = 2
    wanted[3:5, 3:5] = 1
    assert ids(sample) == wanted.tolist()
    # A cup that nobody asks for is background, also on the table.
    sample = COCO(tiny_coco, classes=("dining table",), size=None)[0]
    assert ids(sample) == (wanted == 2).astype(int).tolist()


def test_crowds_are_void_below_objects(tiny_coco: Path) -> None:
    sample = COCO(tiny_coco, classes=("cat", "person"), size=None)[1]
    wanted = np.zeros((HEIGHT, WIDTH), int)
    wanted[0:2, 0:4] = VOID
    wanted[1:3, 1:3] = 2
    wanted[6, 6:9] = 2
    assert ids(sample) == wanted.tolist()
    others = COCO(tiny_coco, classes=("cat",), size=None)[1]
    assert not others.mask.any()  # type: ignore[union-attr]


objects = st.lists(
    st.tuples(
        st.sampled_from(["person", "cat", "cup"]),
        st.tuples(
            *(st.integers(0, 9), st.integers(0, 6)),
            *(st.integers(0, 4), st.integers(0, 4)),
        ),
        st.booleans(),
    ),
    max_size=12,
)


@given(drawn=objects)
@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_one_object_at_a_time_is_all_at_once(
    tiny_coco: Path, drawn: list[Any]
) -> None:
    """A class is the union of its objects where none of others is above."""
    found = [annotation(1, n, [box(*b)], crowd) for n, b, crowd in drawn]
    write(tiny_coco, "val2014", content_of(found, 1))
    classes = ("cat", "person")
    mask = COCO(tiny_coco, classes=classes, size=None, sample=None)[0].mask
    assert mask is not None
    # The rule, word by word: crowds first, then from large to small.
    layers = [
        (name, crowd, rasterise([box(*b)], HEIGHT, WIDTH))
        for name, b, crowd in drawn
    ]
    layers.sort(key=lambda layer: (not layer[1], -layer[2].sum()))
    for c, name in enumerate(classes, start=1):
        union = np.zeros((HEIGHT, WIDTH), bool)
        for other, crowd, bits in layers:
            union = union & ~bits
            if other == name and not crowd:
                union |= bits
        assert np.array_equal(mask.numpy() == c, union)
    void = np.zeros((HEIGHT, WIDTH), bool)
    for name, crowd, bits in layers:
        void = void | bits if crowd and name in classes else void & ~bits
    assert np.array_equal(mask.numpy() == VOID, void)


def test_other_objects_are_named(tiny_coco: Path) -> None:
    data = COCO(tiny_coco, classes=("cup",), sample=None)
    assert [data.other_objects(i) for i in range(4)] == [
        ("dining table",),
        ("person",),
        (),
        ("cat",),
    ]


@pytest.mark.parametrize("size", [6, (16, 24)])
def test_image_and_mask_are_resized_together(
    tiny_coco: Path, size: int | tuple[int, int]
) -> None:
    shape = (size, size) if isinstance(size, int) else size
    sample = COCO(tiny_coco, classes=("dining table", "cup"), size=size)[0]
    assert sample.image.shape == (3, *shape)
    assert sample.mask is not None
    assert sample.mask.shape == shape
    assert set(sample.mask.unique().tolist()) == {0, 1, 2}
    if shape == (16, 24):  # twice the size: every pixel four times
        whole = COCO(tiny_coco, classes=("dining table", "cup"), size=None)[0]
        assert whole.mask is not None
        twice = whole.mask.repeat_interleave(2, 0).repeat_interleave(2, 1)
        assert torch.equal(sample.mask, twice)


def test_grey_images_become_rgb(tiny_coco: Path) -> None:
    image = COCO(tiny_coco, sample=None, size=None)[3].image
    assert image.shape == (3, HEIGHT, WIDTH)
    assert torch.equal(image[0], image[2])


def names(data: COCO) -> list[str]:
    return [sample.name for sample in data]


def test_train_and_val_share_train2014_by_seed(tiny_coco: Path) -> None:
    train, val = (COCO(tiny_coco, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (18, 2)
    both = names(train) + names(val)
    assert sorted(both) == [f"COCO_{i:04d}" for i in range(1, 21)]
    assert names(train) == sorted(names(train))
    assert names(COCO(tiny_coco, "val")) == names(val)
    # RandomState(42).permutation(20) starts with 0 and 17.
    assert names(val) == ["COCO_0001", "COCO_0018"]
    assert names(COCO(tiny_coco, "val", seed=1)) != names(val)


def test_the_test_sample_is_of_annotated_images(tiny_coco: Path) -> None:
    assert names(COCO(tiny_coco)) == ["COCO_0001", "COCO_0002", "COCO_0004"]
    drawn = [names(COCO(tiny_coco, sample=2, seed=s)) for s in range(10)]
    assert drawn[0] == names(COCO(tiny_coco, sample=2, seed=0))
    assert len({tuple(d) for d in drawn}) > 1
    assert all(len(d) == 2 and "COCO_0003" not in d for d in drawn)
    # The same images whatever the classes
    assert names(COCO(tiny_coco, sample=2, classes=("cat",))) == names(
        COCO(tiny_coco, sample=2)
    )


def test_by_name_and_for_the_presets(tiny_coco: Path) -> None:
    papers = load_data("coco2014", "train", root=tiny_coco)
    assert papers.classes == COCO_PAPER_CLASSES
    assert papers[0].image.shape == (3, 224, 224)
    named = load_data("coco2014-80", root=tiny_coco, size=8, limit=1)
    assert isinstance(named, First)
    assert named.classes == COCO_CLASSES
    few = load_data("coco2014", root=tiny_coco, classes=("cat",), size=8)
    assert few.labels.tolist() == [[0], [0], [1]]  # type: ignore[attr-defined]
    for preset in ("coco2014-vgg16", "coco2014-resnet50"):
        assert PRESETS[preset].data == "coco2014"


def test_annotations_need_no_image(tiny_coco: Path) -> None:
    for path in tiny_coco.rglob("*.jpg"):
        path.unlink()
    data = COCO(tiny_coco)
    assert data.labels.sum() == 4
    with pytest.raises(DataError, match=r"COCO_0001\.jpg does not exist"):
        data[0]


def test_unknown_names_list_the_known(tiny_coco: Path) -> None:
    with pytest.raises(UnknownNameError, match="known: train, val, test"):
        COCO(tiny_coco, "train2014")
    with pytest.raises(UnknownNameError, match=r"no class in COCO 'unicor"):
        COCO(tiny_coco, classes=("unicorn",))
    with pytest.raises(DataError, match="at least one"):
        COCO(tiny_coco, classes=())


def test_missing_data_says_where_it_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"instances_val2014\.json does not"):
        COCO(tmp_path)
    with pytest.raises(DataError, match="download=True"):
        COCO(tmp_path, "train")
    monkeypatch.delenv("EXPLAINER_DATA", raising=False)
    with pytest.raises(DataError, match="contains coco2014/"):
        COCO()


def damage(**changes: Any) -> dict[str, Any]:
    """Return TEST's content with its first annotation changed."""
    content = copy.deepcopy(content_of(TEST, 4))
    content["annotations"][0].update(changes)
    return content


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[", "cannot be read as COCO annotations"),
        ("[]", "cannot be read as COCO annotations"),
        ("{}", "KeyError: 'categories'"),
        (json.dumps(damage(image_id=99)), "KeyError: 99"),
        (json.dumps(damage(category_id=12)), "KeyError: 12"),
        (json.dumps(damage(segmentation=[["x"]])), "cannot be read as COCO"),
        (
            '{"images": [{}], "annotations": [], "categories": []}',
            "KeyError: 'id'",
        ),
        (
            json.dumps({**content_of([], 1), "categories": []}).replace(
                '"categories": []',
                '"categories": [{"id": 1, "name": "unicorn"}]',
            ),
            "a category 'unicorn'",
        ),
        (json.dumps(content_of([], 0)), "no image for the split 'test'"),
    ],
)
def test_broken_annotations_are_named(
    tiny_coco: Path, content: str, complaint: str
) -> None:
    path = instances(tiny_coco)
    path.write_text(content)
    with pytest.raises(DataError, match=complaint) as caught:
        COCO(tiny_coco)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_segmentation_that_cannot_be_drawn(tiny_coco: Path) -> None:
    compressed = {"size": [HEIGHT, WIDTH], "counts": "abc"}
    write(tiny_coco, "val2014", damage(segmentation=compressed))
    with pytest.raises(DataError, match=r"COCO_0001\.jpg have a segmentat"):
        COCO(tiny_coco)[0]


def test_an_image_of_another_size(tiny_coco: Path) -> None:
    content = content_of(TEST, 4)
    for image in content["images"]:
        image["width"] += 1
    write(tiny_coco, "val2014", content)
    data = COCO(tiny_coco)
    with pytest.raises(DataError, match=r"COCO_0001\.jpg is not of the size"):
        data[0]
    path = tiny_coco / "coco2014" / "val2014" / "COCO_0001.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="cannot be decoded"):
        data[0]


def zip_of(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def test_coco_downloads_itself_once(
    tiny_coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, served = tiny_coco / "coco2014", tmp_path / "served"
    images = {
        f"val2014/{p.name}": p.read_bytes()
        for p in (source / "val2014").iterdir()
    }
    jsons = {
        f"annotations/{p.name}": p.read_bytes()
        for p in (source / "annotations").iterdir()
    }
    served.mkdir()
    (served / "val2014.zip").write_bytes(zip_of(images))
    (served / "notes.zip").write_bytes(zip_of(jsons))
    asked = []

    def fetch(archive: Archive, folder: Path) -> Path:
        asked.append(archive.name)
        folder.mkdir(parents=True, exist_ok=True)
        return served / archive.name

    monkeypatch.setattr(coco, "fetch", fetch)
    monkeypatch.setattr(
        coco, "IMAGES", {"val2014": Archive("val2014.zip", "", ())}
    )
    monkeypatch.setattr(coco, "ANNOTATIONS", Archive("notes.zip", "", ()))
    root = tmp_path / "new"
    first = COCO(root, download=True)
    assert asked == ["val2014.zip", "notes.zip"]
    assert names(first) == names(COCO(tiny_coco))
    COCO(root, download=True)
    assert len(asked) == 2
    # Only what was asked for: train2014 is not there, and does not seem so.
    assert not instances(root, "train2014").exists()


def test_what_would_be_downloaded() -> None:
    archives = [coco.ANNOTATIONS, *coco.IMAGES.values()]
    for archive in archives:
        assert len(archive.sha256) == 64
        assert archive.name.endswith(".zip")
        assert all(url.endswith(archive.name) for url in archive.urls)
        assert archive.urls[0].startswith("https://")
    assert sum(a.size for a in archives) == 20_408_459_804


@pytest.mark.parametrize(
    ("compressed", "counts"),
    [
        ("", []),
        ("121", [1, 2, 1]),
        (b"1213", [1, 2, 1, 5]),  # 5 = 2 + 3
        ("X1", [40]),  # 40 = 8 + 32: 48 + 8 + 32 is X, 48 + 1 is 1
        ("15OO", [1, 5, -1, 4]),  # O: the sign is set; 4 = 5 - 1
        ("\x600", [16]),  # 96 - 48 = 16 + 32, then a group of 0
    ],
)
def test_compressed_run_lengths_by_hand(compressed, counts):
    assert run_lengths(compressed) == counts


@pytest.mark.parametrize("damaged", ["p", "\x2f", "X", "\xe9", 20 * "X"])
def test_damaged_run_lengths(damaged):
    with pytest.raises(ValueError, match=r"damaged|cut off|ascii"):
        run_lengths(damaged)
