"""Variants of the loss, trained, measured and resumed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from explainer.checkpoints import load_classifier
from explainer.data import Scenes
from explainer.deadline import OutOfTime, time_limit
from explainer.errors import UserError
from explainer.evaluation.ablation import (
    AREA,
    COLUMNS,
    TERMS,
    VARIANTS,
    Ablation,
    ablate,
    network_rows,
    read_masks,
    shortened,
    variant_weights,
)
from explainer.evaluation.images import Settings, select
from explainer.evaluation.jsonl import RowsError
from explainer.files import DamagedFileError, sha256
from explainer.losses import LossWeights
from explainer.presets import get_preset
from explainer.training import TrainingError

PRESET = get_preset("scenes")


# --- variants -----------------------------------------------------------


def test_terms_are_the_weights_of_the_loss() -> None:
    weights = LossWeights()
    assert {t for t in TERMS if isinstance(getattr(weights, t), float)} == (
        set(TERMS)
    )
    assert set(AREA) < set(TERMS)


def test_every_term_is_off_in_turn_and_alone() -> None:
    kept = [set(terms) for terms in VARIANTS.values()]
    for term in TERMS:
        assert set(TERMS) - {term} in kept, term
    assert set(TERMS) - set(AREA) in kept
    for group in ({"entropy"}, set(AREA), {"smoothness"}, set()):
        assert {"classification"} | group in kept
    assert VARIANTS["full"] == TERMS


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_missing_terms_lose_their_weight(variant: str) -> None:
    weights = variant_weights(PRESET.weights, variant)
    for term in TERMS:
        before = getattr(PRESET.weights, term)
        expected = before if term in VARIANTS[variant] else 0
        assert getattr(weights, term) == expected
    assert (weights.a, weights.b) == (PRESET.weights.a, PRESET.weights.b)


def test_a_shortened_preset_keeps_its_recipe() -> None:
    animals = get_preset("animals")
    short = shortened(animals, 20)
    training = short.explainer_training
    assert (training.steps, training.warmup, training.eval_every) == (
        20,
        2,
        5,
    )
    assert training.learning_rate == animals.explainer_training.learning_rate
    assert training.batch_size == animals.explainer_training.batch_size
    assert shortened(animals, 20, 3).explainer_training.batch_size == 3
    assert short.weights == animals.weights
    # One stage, and nothing after the last step.
    assert (short.stages, short.averaged, short.sharpen) == ((), 1, (1.0,))


# --- scores -------------------------------------------------------------


class _Constant(nn.Module):
    """An Explainer that answers the same everywhere."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits).reshape(1, -1, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        shape = (len(images), -1, *images.shape[-2:])
        return self.logits.expand(shape)


def test_scores_of_constant_masks() -> None:
    data = Scenes("test", 12)
    classifier = load_classifier("scenes")
    how = Settings(steps=0)
    images = select(classifier, data, how).by_index
    network = _Constant([100.0] * 8)
    rows = network_rows(network, classifier, data, images, how, range(12))
    assert [row["index"] for row in rows] == list(range(12))
    for i, row in enumerate(rows):
        assert set(row) == {"index", *COLUMNS}
        assert row["target_area"] == row["non_target_area"] == 1
        assert row["variation"] == 0
        # Everything is kept, nothing left: a grey image.
        assert row["kept"] > row["left"]
        n_classes = int(data[i].labels.sum())
        assert (row["class_iou"] == row["class_iou"]) == (n_classes > 1)


class _Noisy(nn.Module):
    """Dropout and batch norm in front of a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Sequential(
            nn.Dropout(0.5), nn.BatchNorm2d(3), nn.Conv2d(3, 8, 1)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.parts(images)
        return logits


def test_scores_depend_on_no_neighbour_and_no_mode() -> None:
    """In any order, in batches of any size, in training mode or not."""
    torch.manual_seed(0)
    data, network = Scenes("test", 5), _Noisy().eval()
    classifier = load_classifier("scenes")
    how = Settings(fill="noise", steps=0)
    images = select(classifier, data, how).by_index
    parts = (network, classifier, data, images, how)
    alone = [network_rows(*parts, [i])[0] for i in range(5)]
    network.train()
    for module in classifier.classifier.modules():
        module.training = True
    for order in ([0, 1], [2, 3, 4], [4, 1, 0, 3, 2]):
        for i, row in zip(order, network_rows(*parts, order), strict=True):
            for name, value in row.items():
                expected = pytest.approx(
                    alone[i][name], abs=1e-4, nan_ok=True
                )
                assert value == expected, name
    assert network.parts[0].training
    assert network.parts[1].num_batches_tracked == 0
    assert all(m.training for m in classifier.classifier.modules())


# --- trainings ----------------------------------------------------------


def experiment(folder: Path, steps: int = 2) -> Ablation:
    return Ablation(
        shortened(PRESET, steps),
        load_classifier("scenes"),
        Scenes("train", 32),
        Scenes("val", 8),
        Scenes("test", 8),
        folder,
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    variants = ("full", "no-area")
    out = folder / "results.json"
    ablate(experiment(folder), out, variants=variants, seeds=2)
    return folder


def test_results_say_what_was_done(done: Path) -> None:
    results = json.loads((done / "results.json").read_text())
    assert list(results["variants"]) == ["full", "no-area"]
    card = results["card"]
    assert card["seeds"] == [0, 1]
    assert card["training"]["steps"] == 2
    assert card["weights"]["no-area"]["bound"] == 0
    assert {"commit", "cpu", "date", "command"} <= set(card)
    assert len(card["measured_with"]) == 1 + 2 * 2
    assert card["measured_with"]["no-area-1"] == sha256(
        done / "no-area-1" / "model.safetensors"
    )
    iou = results["variants"]["no-area"]["iou"]
    assert len(set(iou["seeds"])) == 2  # another seed is another training
    assert iou["seed_sd"] > 0


def test_masks_are_stored_for_the_first_images(done: Path) -> None:
    results = json.loads((done / "results.json").read_text())
    masks = read_masks(done / "results.npz")
    assert list(masks) == ["full", "no-area"]
    assert masks["full"].shape == (len(results["pictures"]), 2, 64, 64)
    assert 0 <= masks["full"].min() < masks["full"].max() <= 1
    assert not torch.equal(masks["full"], masks["no-area"])


def test_what_is_done_is_not_done_again(done: Path, tmp_path: Path) -> None:
    rows = (done / "scores.jsonl").read_bytes()
    assert rows.count(b"\n") == 4 * (1 + 8)
    variants = ("full", "no-area")
    with time_limit(60):
        again = ablate(
            experiment(done), tmp_path / "b.json", variants=variants, seeds=2
        )
    assert (done / "scores.jsonl").read_bytes() == rows
    before = json.loads((done / "results.json").read_text())
    assert again["variants"] == before["variants"]
    for name, value in before["card"]["measured_with"].items():
        assert again["card"]["measured_with"][name] == value


def test_out_of_time_before_a_training(tmp_path: Path) -> None:
    with time_limit(0), pytest.raises(OutOfTime):
        ablate(experiment(tmp_path), tmp_path / "b.json", seeds=1)
    assert not list(tmp_path.iterdir())


def test_rows_that_are_no_scores_are_named(
    done: Path, tmp_path: Path
) -> None:
    first, second, *_ = (done / "scores.jsonl").read_text().splitlines()
    row = json.loads(second)
    for damage in ({"iou": "x"}, {"saliency": [3]}):
        path = tmp_path / "scores.jsonl"
        path.write_text(f"{first}\n{json.dumps(row | damage)}\n")
        with pytest.raises(RowsError, match=r"line 2 of .*scores\.jsonl"):
            ablate(experiment(tmp_path), tmp_path / "b.json", seeds=1)


@pytest.mark.parametrize("length", [0, 3, 200])
def test_masks_that_are_none_are_named(
    done: Path, tmp_path: Path, length: int
) -> None:
    path = tmp_path / "masks.npz"
    path.write_bytes((done / "results.npz").read_bytes()[:length])
    with pytest.raises(DamagedFileError, match=r"masks\.npz cannot be read"):
        read_masks(path)


def test_another_recipe_is_refused_in_the_same_folder(done: Path) -> None:
    with pytest.raises(TrainingError, match="another configuration"):
        ablate(experiment(done, 3), done / "c.json", variants=("full",))


def test_what_cannot_be_ablated_is_one_sentence(tmp_path: Path) -> None:
    test = Scenes("test", 2)
    test._masks[:] = 0  # no object anywhere
    empty = replace(experiment(tmp_path), test=test)
    for what, options, message in (
        (empty, {}, "none of the 2 images"),
        (experiment(tmp_path), {"seeds": 0}, "one seed"),
        (experiment(tmp_path), {"variants": ()}, "at least one variant"),
        (experiment(tmp_path), {"variants": ("no-fun",)}, "known: full, no"),
    ):
        with pytest.raises(UserError, match=message):
            ablate(what, tmp_path / "results.json", **options)  # type: ignore[arg-type]
