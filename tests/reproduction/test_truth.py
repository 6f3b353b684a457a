"""What the truth costs under the loss, beside the Explainer's masks."""

import json
from pathlib import Path

import pytest
import torch
from measure_truth import main, mean_of, true_masks

from explainer.data import Batch


def test_the_truth_has_a_mask_for_each_class_that_is_there() -> None:
    ids = torch.tensor([[[0, 1], [2, 255]]])
    batch = Batch(torch.zeros(1, 3, 2, 2), torch.ones(1, 3), ids, ("a",))
    expected = torch.tensor([[[0.0, 1], [0, 0]], [[0, 0], [1, 0]]])
    masks = true_masks(batch)
    assert torch.equal(masks[0, :2], expected)
    assert masks[0, 2].sum() == 0


def test_means_by_name() -> None:
    assert mean_of([{"a": 1, "b": 2}, {"a": 3, "b": 6}]) == {"a": 2, "b": 4}


def test_on_scenes(tmp_path: Path) -> None:
    path = main(
        ["--preset", "scenes", "--limit", "6", "--out", str(tmp_path / "t")]
    )
    found = json.loads(path.read_text())
    weights = found.pop("card")["weights"]
    together = found.pop("all")
    assert together["n"] == 6 == sum(group["n"] for group in found.values())
    # No other class's mask is anywhere, and the whole is its terms' sum.
    truth = together["truth"]
    assert truth["non_target_area"] == 0
    assert truth["total"] == pytest.approx(
        truth["classification"]
        + sum(
            weights[name] * truth[name]
            for name in truth
            if name in weights and name != "classification"
        ),
        rel=1e-4,
    )
