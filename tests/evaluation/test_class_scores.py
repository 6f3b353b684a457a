import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from explainer.attribution import ellipse, ground_truth, one, zero
from explainer.data.base import Sample, labels_in
from explainer.errors import UserError
from explainer.evaluation.class_scores import (
    class_score_tables,
    diagonal_and_rest,
    masked_scores,
)
from explainer.evaluation.jsonl import RowsError
from explainer.evaluation.methods import Contender, EvaluationError


class Halves:
    """Left and right half: 0 shows a and b, 1 a alone, 2 b alone, 3 none."""

    classes = ("a", "b", "c")
    halves = ((1, 2), (1, 0), (0, 2), (0, 0))

    def __len__(self) -> int:
        return len(self.halves)

    def __getitem__(self, index: int) -> Sample:
        left, right = self.halves[index]
        ids = torch.tensor([[left, left, right, right]] * 2)
        image = torch.stack([(ids == c).float() for c in (1, 2, 3)])
        return Sample(image, labels_in(ids, 3), ids, str(index))


class Counter(nn.Module):
    """The logit of a class is four times the area of its colour."""

    mean = torch.zeros(3)

    def forward(self, images: Tensor) -> Tensor:
        return 4 * images.mean((2, 3))


def softmax(*logits: float) -> list[float]:
    total = sum(map(math.exp, logits))
    return [math.exp(x) / total for x in logits]


def tables(out: Path, rows: dict[str, Any], **options: Any) -> dict[str, Any]:
    methods = {
        name: method if isinstance(method, Contender) else Contender(method)
        for name, method in rows.items()
    }
    return class_score_tables(
        methods, Counter(), Halves(), out=out, **options
    )


def scores(method: Any, **options: Any) -> dict[str, Any]:
    """The table of one method, in a new folder."""
    with TemporaryDirectory() as folder:
        found = tables(Path(folder, "r.json"), {"m": method}, **options)
    table: dict[str, Any] = found["m"]
    return table


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_by_hand(batch_size: int) -> None:
    table = scores(ground_truth, classes=["a", "b"], batch_size=batch_size)
    assert table["columns"] == ["none", "a", "b"]
    assert table["n"] == [2, 2]
    both, a_alone, nothing = (
        softmax(2, 2, 0),
        softmax(2, 0, 0),
        softmax(0, 0, 0),
    )
    # Row a: image 0 (a and b) and image 1 (a alone).
    row_a = [
        (both[0] + a_alone[0]) / 2,  # unmasked
        (a_alone[0] + a_alone[0]) / 2,  # with the mask of a
        (a_alone[1] + nothing[0]) / 2,  # with the mask of b
    ]
    assert table["scores"][0] == pytest.approx(row_a, abs=1e-6)
    # By symmetry row b has the same, with a and b in each other's place.
    row_b = [row_a[0], row_a[2], row_a[1]]
    assert table["scores"][1] == pytest.approx(row_b, abs=1e-6)
    low, high = table["ci"][0][0] or (math.nan, math.nan)
    assert (low, high) == pytest.approx((both[0], a_alone[0]), abs=1e-6)


def test_noise_depends_on_no_neighbour() -> None:
    """A and b of image 0, a of 1, b of 2: in any batch, under any limit."""
    alone = scores(ground_truth, fill="noise", batch_size=1)["scores"]
    for size in (2, 3):
        table = scores(ground_truth, fill="noise", batch_size=size)
        for row, expected in zip(table["scores"][:2], alone, strict=False):
            assert row == pytest.approx(expected, abs=1e-6)
    other = scores(ground_truth, fill="noise", seed=1, batch_size=1)["scores"]
    assert other[0] != alone[0]


def test_equal_views_are_classified_once() -> None:
    seen = []

    class Seeing(Counter):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(len(images))
            return super().forward(images)

    images = torch.rand(2, 3, 2, 4)
    masks = torch.zeros(2, 3, 2, 4)  # the third class's masks stay empty
    masks[0, 0] = 1
    masks[1, 0, 0] = 0.35  # half of the image, at three thresholds
    masks[1, 1, 1] = 0.35  # as large, but the other half
    fill = torch.rand(2, 3, 1, 1)  # a colour of each image's own
    p = masked_scores(Seeing(), images, masks, fill)
    # Full and empty of the first; empty and two halves of the second.
    assert seen == [5, 2]
    plain = Counter()
    for b, k in ((0, 0), (0, 2), (1, 0), (1, 1), (1, 2)):
        kept = masks[b, k] > torch.linspace(0.1, 0.9, 9)[:, None, None]
        m = kept[:, None].float()
        each = plain(m * images[b] + (1 - m) * fill[b]).softmax(1)
        torch.testing.assert_close(p[b, 1 + k], each.mean(0))


def test_thresholds_are_averaged() -> None:
    images = Halves()[1].image[None]
    mask = torch.full((1, 1, 2, 4), 0.35)  # kept at 0.1, 0.2 and 0.3
    got = masked_scores(Counter(), images, mask, torch.zeros(1, 3, 1, 1))
    seen, unseen = softmax(2, 0, 0), softmax(0, 0, 0)
    want = [(3 * s + 6 * u) / 9 for s, u in zip(seen, unseen, strict=True)]
    assert got.shape == (1, 2, 3)
    assert got[0, 0].tolist() == pytest.approx(seen)
    assert got[0, 1].tolist() == pytest.approx(want)


def test_all_classes_are_asked_for_and_constants_show_all_or_nothing() -> (
    None
):
    asked = []

    def method(c: nn.Module, x: Tensor, t: Tensor, **options: Any) -> Tensor:
        asked.append(t)
        return one(c, x, t)

    table = scores(method, classes=["b", "a"])
    assert torch.cat(asked).tolist() == [[1, 1, 0]] * 3
    for row in table["scores"]:
        assert row[1:] == pytest.approx([row[0]] * 2)
    for row in scores(zero, classes=["a", "b"])["scores"]:
        assert row[1:] == pytest.approx([1 / 3] * 2)


def test_a_class_without_images_has_an_empty_row() -> None:
    table = scores(one)
    assert table["n"] == [2, 2, 0]
    assert table["scores"][2] == table["ci"][2] == [None] * 4


def test_limits() -> None:
    assert scores(one, limit=2)["n"] == [2, 1, 0]
    assert scores(Contender(one, limit=1), limit=2)["n"] == [1, 1, 0]


def test_bad_classes_are_refused() -> None:
    with pytest.raises(EvaluationError, match="no class zebra; the data has"):
        scores(one, classes=["a", "zebra"])
    with pytest.raises(EvaluationError, match="no class given"):
        scores(one, classes=[])
    with pytest.raises(EvaluationError, match="no image shows any"):
        scores(one, classes=["c"])


def test_diagonal_and_rest_by_hand() -> None:
    own, other = diagonal_and_rest([[0.9, 0.8, 0.1], [0.7, 0.3, 0.6]])
    assert own == pytest.approx(0.7)
    assert other == pytest.approx(0.2)
    # The second class has no images.
    own, other = diagonal_and_rest([[0.9, 0.8, 0.1], [None] * 3])
    assert (own, other) == (0.8, 0.1)
    assert all(map(math.isnan, diagonal_and_rest([[None, None]])))


def test_an_interrupted_comparison_resumes(tmp_path: Path) -> None:
    calls = []

    def killed(c: nn.Module, x: Tensor, t: Tensor, **options: Any) -> Tensor:
        calls.append(len(x))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return ellipse(c, x, t)

    out = tmp_path / "scores.json"
    rows = {"first": one, "second": Contender(killed, batch_size=2)}
    with pytest.raises(KeyboardInterrupt):
        tables(out, rows)
    assert set(json.loads(out.read_text())) == {"first", "card"}
    # Of each method its settings; three images of the first, two of the
    # second.
    path = out.with_suffix(".jsonl")
    assert len(path.read_text().splitlines()) == 1 + 3 + 1 + 2
    found = tables(out, rows)
    assert calls == [2, 1, 1]
    assert json.loads(out.read_text()) == json.loads(json.dumps(found))
    assert found["first"]["scores"] == scores(one)["scores"]
    assert found["second"]["scores"] == scores(ellipse)["scores"]
    assert found["card"]["limit"] is None


def test_methods_that_are_not_asked_for_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    before = tables(out, {"one": one})["one"]
    assert tables(out, {"zero": zero})["one"] == before
    assert set(json.loads(out.read_text())) == {"one", "zero", "card"}


@pytest.mark.parametrize(
    "damage",
    [
        {"scores": None},
        {"scores": [[0.5] * 3] * 3},
        {"scores": [[0.5] * 2] * 4},
        {"scores": [[0.5, 0.5, "x"]] * 4},
        {"scores": {"a": 1}},
    ],
)
def test_rows_that_are_no_scores_are_named(
    tmp_path: Path, damage: dict[str, Any]
) -> None:
    out = tmp_path / "scores.json"
    tables(out, {"m": one})
    with out.with_suffix(".jsonl").open("a") as file:
        row = {"method": "m", "index": 0, "scores": [[0.5] * 3] * 4}
        file.write(json.dumps(row | damage) + "\n")
    with pytest.raises(RowsError, match=r"line 5 of .*scores\.jsonl"):
        tables(out, {"m": one})


def test_other_settings_are_not_mixed(tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    tables(out, {"one": one}, limit=2)
    before = out.read_bytes()
    for options in ({"limit": 3}, {"limit": 2, "seed": 1}):
        with pytest.raises(EvaluationError, match="other settings"):
            tables(out, {"zero": zero}, **options)
    with pytest.raises(RowsError, match=r"other settings \(method\)"):
        tables(out, {"one": ellipse}, limit=2)
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"card": {}, "a": 1}', '{"card": 3}'],
)
def test_another_file_is_left_alone(content: str, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    out.write_text(content)
    with pytest.raises(UserError, match=r"scores\.json (holds|cannot)"):
        tables(out, {"one": one})
    assert out.read_text() == content
