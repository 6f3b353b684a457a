"""Datasets by name, their first images, their labels."""

import pickle
from pathlib import Path

import pytest
import torch

from explainer.data import (
    ANIMALS,
    DATASETS,
    VOC,
    DataError,
    First,
    Photos,
    Sample,
    Scenes,
    Shortcut,
    all_labels,
    load_data,
)
from explainer.errors import UnknownNameError


class Counting:
    """A dataset without ``labels`` that counts what is read of it."""

    classes = ("a", "b")

    def __init__(self, n: int) -> None:
        self.n, self.reads = n, 0

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Sample:
        self.reads += 1
        labels = torch.tensor([index % 2, 1.0])
        return Sample(torch.zeros(3, 1, 1), labels, None, str(index))


def test_unknown_data_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match="'voc'; known: scenes, voc"):
        load_data("voc")
    assert set(DATASETS) >= {"scenes", "voc2007", "voc2012"}


def test_scenes_by_name() -> None:
    scenes = load_data("scenes", "val", size=32, limit=3)
    assert len(scenes) == 3
    assert scenes[0].image.shape == (3, 32, 32)
    assert scenes[2].name == "val-00002"
    everything = load_data("scenes", "val", size=32)
    assert len(everything) == 500
    same = load_data("scenes", "val", size=32, classes=everything.classes)
    assert isinstance(same, Scenes)
    with pytest.raises(DataError, match="leave classes out"):
        load_data("scenes", classes=("disc", "dog"))


def test_voc_by_name(tiny_voc: Path) -> None:
    voc = load_data("voc2007", "train", root=tiny_voc, classes=ANIMALS)
    assert isinstance(voc, VOC)
    assert voc.classes == ANIMALS
    assert voc[0].image.shape == (3, 224, 224)
    small = load_data("voc2007", root=tiny_voc, size=8, limit=1)
    assert small[0].image.shape == (3, 8, 8)
    assert (len(small), len(small.classes)) == (1, 20)
    with pytest.raises(DataError, match="VOC2012 does not exist"):
        load_data("voc2012", "train", root=tiny_voc)


def test_first_is_a_prefix() -> None:
    dataset = Counting(5)
    first = First(dataset, 3)
    assert first.classes == ("a", "b")
    assert [sample.name for sample in first] == ["0", "1", "2"]
    assert first[-1].name == "2"
    with pytest.raises(IndexError):
        first[3]
    assert len(First(dataset, 9)) == 5
    for n in (0, -1):
        with pytest.raises(DataError, match="at least 1"):
            First(dataset, n)


def test_first_passes_on_what_the_dataset_offers() -> None:
    scenes = Scenes("val", 20, size=32, shortcut=Shortcut("disc", q=1))
    first = First(scenes, 4)
    assert torch.equal(first.labels, scenes.labels[:4])
    assert torch.equal(first.marker(3), scenes.marker(3))
    assert first.size == 32
    with pytest.raises(AttributeError, match="no_such_thing"):
        first.no_such_thing  # noqa: B018
    again = pickle.loads(pickle.dumps(first))
    assert torch.equal(again[3].image, first[3].image)


def test_all_labels_reads_images_only_if_it_must(tiny_voc: Path) -> None:
    dataset = Counting(3)
    assert all_labels(dataset).tolist() == [[0, 1], [1, 1], [0, 1]]
    assert dataset.reads == 3
    assert all_labels(First(dataset, 2)).tolist() == [[0, 1], [1, 1]]
    # A folder without images still tells its labels.
    for path in tiny_voc.rglob("*.jpg"):
        path.unlink()
    voc = VOC(tiny_voc, "train", classes=("dog", "car"))
    assert all_labels(voc).tolist() == [[1, 0], [1, 0], [0, 1]]
    assert all_labels(First(voc, 1)).tolist() == [[1, 0]]


def test_all_labels_of_photos_have_no_column(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    assert all_labels(Photos(tmp_path)).shape == (1, 0)
