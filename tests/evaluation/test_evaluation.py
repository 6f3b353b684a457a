"""The scoreboard by hand, resumed, and never mixed."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from torch import Tensor, nn

from explainer.attribution import ground_truth, half, one, zero
from explainer.data.base import Sample, labels_in
from explainer.data.scenes import Scenes, Shortcut
from explainer.evaluation import evaluate
from explainer.evaluation.images import Settings
from explainer.evaluation.jsonl import RowsError
from explainer.evaluation.methods import Contender, EvaluationError
from explainer.masks import make_fill
from explainer.metrics import METRICS, VOID
from explainer.streams import generator as stream

SIZE = 8


class Colours:
    """Red, green and blue rectangles on black, void around one of them.

    Image 3 shows nothing, image 5 is not segmented, image 6 shows an object
    of another class, and all but 0 and 3 show two classes.
    """

    classes = ("red", "green", "blue")
    split = "test"

    def __init__(self, n: int = 11) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Sample:
        ids = torch.zeros(SIZE, SIZE, dtype=torch.int64)
        if index != 3:
            ids[1:5, 1 : 3 + index % 3] = index % 3 + 1
        if index not in (0, 3):
            ids[5:8, 4:8] = (index + 1) % 3 + 1
        image = torch.stack([(ids == c).float() for c in (1, 2, 3)])
        ids[0] = VOID
        return Sample(
            image=image,
            labels=labels_in(ids, 3),
            mask=None if index == 5 else ids,
            name=f"colours-{index}",
        )

    def other_objects(self, index: int) -> tuple[str, ...]:
        return ("yellow",) if index == 6 else ()


class Eye(nn.Module):
    """Sees a class if its colour fills more than 1/16 of the image."""

    multi_label = True

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        return 40 * self.dropout(images).mean((2, 3)) - 2.5


def guess(
    classifier: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    generator: torch.Generator,
    noise: float = 0.5,
) -> Tensor:
    """The colours themselves, less noise that all images share."""
    mask = 1 - noise * torch.rand(images.shape[1:], generator=generator)
    return images * mask * targets[:, :, None, None]


def methods(**more: Contender) -> dict[str, Contender]:
    return {
        "explainer": Contender(guess, {"noise": 0.3}),
        "rival": Contender(guess, {"noise": 0.9}, batch_size=2),
        "slow": Contender(guess, limit=3),
        **more,
    }


def run(folder: Path, **options: Any) -> dict[str, Any]:
    settings = Settings(batch_size=4, steps=2)
    return evaluate(
        **{
            "methods": methods(),
            "classifier": Eye().eval(),
            "data": Colours(),
            "out": folder / "r.json",
            "settings": settings,
        }
        | options
    )


def timeless(results: dict[str, Any]) -> dict[str, Any]:
    """Results without what differs from run to run."""
    found: dict[str, Any] = json.loads(json.dumps(results))
    for entry in found.values():
        entry.pop("seconds", None)
        entry.get("more", {}).pop("memory_mb", None)
        entry.get("more", {}).pop("gpu_memory_mb", None)
    found["card"].pop("date")
    return found


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "r.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_the_table(tmp_path: Path) -> None:
    results = run(tmp_path)
    assert json.loads((tmp_path / "r.json").read_text()) == results
    assert list(results) == ["explainer", "rival", "slow", "card"]
    for name in ("explainer", "rival", "slow"):
        for key in (
            "accuracy",
            "iou",
            "iou_50",
            "saliency",
            "mae",
            "seconds",
        ):
            assert isinstance(results[name][key], float)
        for key in METRICS:
            low, high = results[name]["ci"][key]
            assert low <= high
        assert {"insertion", "deletion", "auc"} <= set(results[name]["more"])
        assert results[name]["more"]["memory_mb"] > 0
    assert results["explainer"]["n"] == results["rival"]["n"] == 9
    assert results["slow"]["n"] == 3
    assert "difference" not in results["explainer"]
    worse = results["rival"]["difference"]["mae"]
    assert worse["n"] == 9
    assert worse["ci"][0] > 0
    assert worse["mean"] == pytest.approx(
        results["rival"]["mae"] - results["explainer"]["mae"]
    )
    assert results["slow"]["difference"]["mae"]["n"] == 3


def test_the_card(tmp_path: Path) -> None:
    card = run(tmp_path)["card"]
    assert card["data"]["type"] == "Colours"
    assert card["data"]["split"] == "test"
    assert card["n"] == 9
    assert card["skipped"] == 1
    assert card["skipped_without_mask"] == 1
    assert card["images_with_other_objects"] == 1
    assert card["resolution"] == [SIZE, SIZE]
    assert card["void"] == "ignore"
    assert card["fill"] == "mean"
    assert card["methods"]["rival"] == {
        "method": "guess",
        "options": {"noise": 0.9},
        "batch_size": 2,
        "n": 9,
    }
    assert len(card["classifier"]["weights"]) == 64
    assert card["classifier_map"] == 1
    assert {"torch", "cpu", "commit", "date", "command"} <= set(card)


def test_rows_tell_the_image(tmp_path: Path) -> None:
    run(tmp_path)
    rows = [r for r in lines(tmp_path) if r["method"] == "explainer"][1:]
    assert [r["index"] for r in rows] == [0, 1, 2, 4, 6, 7, 8, 9, 10]
    assert rows[1]["name"] == "colours-1"
    assert rows[1]["labels"] == rows[1]["targets"] == ["green", "blue"]
    assert set(rows[1]["class_iou"]) == {"green", "blue"}


def test_ground_truth_is_perfect_and_constants_are_known(
    tmp_path: Path,
) -> None:
    controls = {
        "truth": Contender(ground_truth),
        "zero": Contender(zero),
        "half": Contender(half),
        "one": Contender(one),
    }
    results = run(tmp_path, methods=controls)
    best = results["truth"]
    assert best["iou"] == best["iou_50"] == best["accuracy"] == 1
    assert best["mae"] == 0
    assert best["more"]["auc"] == best["more"]["pointing_game"] == 1
    assert best["more"]["class_iou_50"] == 1
    assert results["half"]["mae"] == 0.5
    assert results["zero"]["iou"] == 0
    # The object's share of the 56 pixels that are not void.
    data = Colours()
    shares = []
    for i in (0, 1, 2, 4, 6, 7, 8, 9, 10):
        ids = data[i].mask
        assert ids is not None
        shares.append(((ids > 0) & (ids < VOID)).sum().item() / 56)
    mean = sum(shares) / 9
    assert results["one"]["iou"] == pytest.approx(mean)
    assert results["one"]["mae"] == pytest.approx(1 - mean)
    assert results["zero"]["accuracy"] == pytest.approx(1 - mean)
    # A class-blind mask of everything: each class has but its own share.
    assert results["one"]["more"]["class_iou_50"] < mean


def test_void_as_object(tmp_path: Path) -> None:
    results = run(
        tmp_path,
        methods={"truth": Contender(ground_truth)},
        settings=Settings(void="object", steps=0),
    )
    # The row of void is 1 everywhere in g and 0 in the mask.
    assert results["truth"]["mae"] == pytest.approx(1 / 8)
    assert "insertion" not in results["truth"]["more"]


def test_groups_and_predicted_targets(tmp_path: Path) -> None:
    class Blind(Eye):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * torch.tensor([1.0, 1, 0]) - (
                torch.tensor([0.0, 0, 9])
            )

    results = run(tmp_path, classifier=Blind().eval())
    groups = results["explainer"]["groups"]
    # Blind to blue, it is right where there is none.
    right = [
        i for i in (0, 1, 2, 4, 6, 7, 8, 9, 10) if Colours()[i].labels[2] == 0
    ]
    assert groups["right"]["n"] == len(right) > 0
    assert groups["wrong"]["n"] == 9 - len(right) > 0
    settings = Settings(targets="predicted", batch_size=4, steps=2)
    elsewhere = tmp_path / "predicted"
    run(elsewhere, classifier=Blind().eval(), settings=settings)
    for row in lines(elsewhere):
        if "targets" in row:
            assert "blue" not in row["targets"]
            assert row["right"] == (row["targets"] == row["labels"])


def test_batches_change_nothing(tmp_path: Path) -> None:
    rows = []
    for size in (1, 4, 100):
        folder = tmp_path / str(size)
        run(folder, settings=Settings(batch_size=size, steps=2))
        rows.append(
            [
                (r["method"], r["index"], r["iou"], r["mae"], r["insertion"])
                for r in lines(folder)
                if "index" in r
            ]
        )
    for other in rows[1:]:
        for a, b in zip(rows[0], other, strict=True):
            assert a[:2] == b[:2]
            assert a[2:] == pytest.approx(b[2:], abs=1e-6)


def noisy(
    folder: Path, limit: int | None = None, **options: Any
) -> dict[int, dict[str, Any]]:
    """Results by image, where noise hides what the mask does not show."""
    folder.mkdir(exist_ok=True)
    settings = Settings(fill="noise", steps=2, **options)
    one_method = {"explainer": Contender(guess)}
    run(folder, methods=one_method, settings=settings, limit=limit)
    uneven = ("seconds", "memory_mb", "gpu_memory_mb")
    return {
        row["index"]: {k: v for k, v in row.items() if k not in uneven}
        for row in lines(folder)
        if "index" in row
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """Each image measured by itself."""
    return noisy(tmp_path_factory.mktemp("alone"), batch_size=1)


@example_settings(deadline=None, max_examples=15)
@given(size=st.integers(1, 11), limits=st.lists(st.integers(1, 9)))
def test_noise_depends_on_no_neighbour(
    alone: dict[int, Any], size: int, limits: list[int]
) -> None:
    with TemporaryDirectory() as folder:
        for limit in (*limits, None):  # rows of smaller limits are kept
            rows = noisy(Path(folder), limit, batch_size=size)
    assert rows.keys() == alone.keys()
    for index, row in rows.items():
        expected = alone[index]
        assert row.keys() == expected.keys()
        for key, value in row.items():
            assert value == pytest.approx(expected[key], abs=1e-5), key


def test_noise_follows_seed_and_index(
    tmp_path: Path, alone: dict[int, Any]
) -> None:
    other = noisy(tmp_path, batch_size=1, seed=1)
    assert all(other[i]["saliency"] != alone[i]["saliency"] for i in alone)
    # By hand, for one image: what is hidden shows the stream's noise.
    sample = Colours()[4]
    x, classifier = sample.image[None], Eye().eval()
    m = 1 - 0.5 * torch.rand(
        3, SIZE, SIZE, generator=stream(0, "attribution")
    )
    m = (x * m * sample.labels[None, :, None, None]).amax(1, keepdim=True)
    fill = make_fill("noise", x, classifier, stream(0, 4, "noise"))
    p = classifier(m * x + (1 - m) * fill).softmax(1)
    p = (p * sample.labels).sum()
    by_hand = m.mean().clamp(min=0.05).log() - p.log()
    assert alone[4]["saliency"] == pytest.approx(by_hand.item(), abs=1e-5)


def test_killed_anywhere_it_resumes_to_the_same(tmp_path: Path) -> None:
    want = timeless(run(tmp_path))
    path = tmp_path / "r.jsonl"
    whole = path.read_bytes()
    rng = random.Random(0)
    for length in [0, 1, len(whole), *rng.sample(range(len(whole)), 12)]:
        path.write_bytes(whole[:length])
        kept = [x for x in whole[:length].splitlines(keepends=True)]
        kept = kept[: whole[:length].count(b"\n")]
        assert timeless(run(tmp_path)) == want
        again = path.read_bytes()
        # No row lost, none redone: what was whole is there, byte by byte.
        assert again.startswith(b"".join(kept))
        assert again.count(b"\n") == whole.count(b"\n")


class Killed(Exception):
    pass


def dying_after(n: int) -> Callable[..., Tensor]:
    """The same method, which is killed at its n-th call."""
    calls = [0]

    def method(*arguments: Any, **options: Any) -> Tensor:
        calls[0] += 1
        if calls[0] > n:
            raise Killed
        return guess(*arguments, **options)

    method.__qualname__ = "guess"
    return method


def test_killed_in_a_method_it_resumes_to_the_same(tmp_path: Path) -> None:
    want = timeless(run(tmp_path / "whole"))
    for n in range(3):
        dying = methods(
            rival=Contender(dying_after(n), {"noise": 0.9}, None, 2)
        )
        with pytest.raises(Killed):
            run(tmp_path, methods=dying)
        assert not (tmp_path / "r.json").exists()
    # Each start added calls: 0, 1 and 2 batches of two images.
    rows = [r for r in lines(tmp_path) if r["method"] == "rival"]
    assert len(rows) == 1 + 2 * (0 + 1 + 2)
    assert timeless(run(tmp_path)) == want


def test_more_images_and_methods_keep_the_rows(tmp_path: Path) -> None:
    run(tmp_path, methods={"explainer": methods()["explainer"]}, limit=4)
    before = (tmp_path / "r.jsonl").read_bytes()
    results = run(tmp_path)
    assert (tmp_path / "r.jsonl").read_bytes().startswith(before)
    assert timeless(results) == timeless(run(tmp_path / "at once"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"settings": Settings(batch_size=4, steps=3)}, "steps"),
        ({"settings": Settings(batch_size=4, steps=2, seed=1)}, "seed"),
        (
            {"settings": Settings(batch_size=4, steps=2, void="object")},
            "void",
        ),
        ({"methods": methods(rival=Contender(guess))}, "options"),
        ({"methods": methods(rival=Contender(zero))}, "method"),
        ({"data": Colours(12)}, "data"),
    ],
)
def test_rows_of_another_experiment_are_not_mixed(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    run(tmp_path)
    before = (tmp_path / "r.jsonl").read_bytes()
    with pytest.raises(RowsError, match=rf"other settings \(.*{named}"):
        run(tmp_path, **change)
    assert (tmp_path / "r.jsonl").read_bytes() == before


def test_rows_of_another_classifier_or_other_images_are_not_mixed(
    tmp_path: Path,
) -> None:
    run(tmp_path)
    other = Eye().eval()
    nn.init.constant_(other.mean, 0.1)
    with pytest.raises(RowsError, match="classifier"):
        run(tmp_path, classifier=other)

    class Renamed(Colours):
        def __getitem__(self, index: int) -> Sample:
            return super().__getitem__(index)._replace(name=f"new-{index}")

    Renamed.__name__ = "Colours"
    with pytest.raises(RowsError, match=r"\(images\)"):
        run(tmp_path, data=Renamed())


@pytest.mark.parametrize("line", [2, 15])  # of two methods
def test_a_row_that_is_no_result_is_named(tmp_path: Path, line: int) -> None:
    run(tmp_path)
    path, rows = tmp_path / "r.jsonl", lines(tmp_path)
    del rows[line - 1]["auc"]
    damaged = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(damaged)
    with pytest.raises(RowsError, match=rf"line {line} of .*r\.jsonl"):
        run(tmp_path)
    assert path.read_text() == damaged


def test_the_line_deleted_its_row_is_measured_again(tmp_path: Path) -> None:
    want = timeless(run(tmp_path))
    path = tmp_path / "r.jsonl"
    rest = path.read_text().splitlines(keepends=True)
    del rest[4]
    path.write_text("".join(rest))
    assert timeless(run(tmp_path)) == want


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="at least one method"):
        run(tmp_path, methods={})
    with pytest.raises(EvaluationError, match="none of them 'card'"):
        run(tmp_path, methods={"card": Contender(zero)})
    with pytest.raises(EvaluationError, match=r"\.json file"):
        run(tmp_path, out=tmp_path / "results.txt")
    with pytest.raises(EvaluationError, match="none of the 11 images"):
        run(tmp_path, limit=0)
    assert not list(tmp_path.iterdir())


def test_the_classifier_is_left_as_it_was(tmp_path: Path) -> None:
    classifier = Eye().train()
    state = torch.random.get_rng_state()
    results = run(tmp_path, classifier=classifier)
    assert classifier.training
    assert classifier.dropout.training
    assert classifier.mean.requires_grad
    assert torch.equal(torch.random.get_rng_state(), state)
    # It was measured in eval mode all the same.
    asleep = run(tmp_path / "asleep", classifier=Eye().eval())
    assert timeless(results) == timeless(asleep)


def test_share_on_a_planted_shortcut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPLAINER_CACHE", str(tmp_path))
    data = Scenes("test", 6, shortcut=Shortcut("disc", q=1, leak=1))

    class Blank(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.new_zeros(len(images), 8)

    results = evaluate(
        {"one": Contender(one), "truth": Contender(ground_truth)},
        Blank(),
        data,
        out=tmp_path / "r.json",
        settings=Settings(steps=0),
    )
    share = results["one"]["more"]["shortcut_share"]
    assert share == pytest.approx(6 * 6 / 64**2)
    assert results["truth"]["more"]["shortcut_share"] == 0
    assert results["card"]["data"]["shortcut"]["class_name"] == "disc"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_equals_cpu(tmp_path: Path) -> None:
    here = run(tmp_path / "cpu")
    there = run(tmp_path / "cuda", classifier=Eye().eval().cuda())
    assert there["explainer"]["more"]["gpu_memory_mb"] > 0
    for name in methods():
        for key, (low, high) in here[name]["ci"].items():
            assert there[name]["ci"][key] == pytest.approx(
                [low, high], abs=1e-4
            )
