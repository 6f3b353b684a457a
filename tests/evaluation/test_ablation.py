"""Variants of the loss, trained, measured and resumed."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    outlines,
    read_masks,
    score,
    shortened,
    variant_weights,
)
from explainer.evaluation.images import Selection, Settings, select
from explainer.files import DamagedFileError, sha256
from explainer.losses import LossWeights
from explainer.presets import PRESETS
from explainer.training import TrainingError

PRESET = PRESETS["scenes"]


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
    assert (weights.edges > 0) == (variant == "edges")


def test_a_shortened_preset_keeps_its_recipe() -> None:
    animals = PRESETS["animals"]
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
    assert (short.stages, short.averaged) == ((), 1)


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
    with torch.no_grad():
        chosen = select(classifier, data, Settings())
    network = _Constant([100.0] * 8)
    found = score(
        network, classifier, data, chosen, Settings(steps=0), PRESET.weights
    )
    assert tuple(found) == COLUMNS
    assert all(len(column) == 12 for column in found.values())
    assert found["target_area"] == found["non_target_area"] == [1] * 12
    assert found["variation"] == [0] * 12
    # All of them are in one piece without a boundary, whatever the class.
    assert found["pieces"] == found["class_blindness"] == [1] * 12
    assert found["boundary"] == [0] * 12
    for i, sample in enumerate(data):  # type: ignore[arg-type]
        beyond = 1 - int(PRESET.weights.b * 64**2) / 64**2
        assert found["bound"][i] == pytest.approx(
            beyond * float(sample.labels.sum()), rel=1e-4
        )
    # Everything is kept, nothing left: a grey image.
    assert min(found["kept"]) > max(found["left"])
    for i, sample in enumerate(data):  # type: ignore[arg-type]
        n_classes = int(sample.labels.sum())
        assert (found["class_iou"][i] == found["class_iou"][i]) == (
            n_classes > 1
        )


def test_pieces_hang_together_side_by_side() -> None:
    shown = torch.tensor(
        [
            [[1, 1, 0], [0, 0, 1], [1, 0, 1]],  # a corner is no side
            [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
            [[1, 1, 1], [1, 0, 1], [1, 1, 1]],
        ]
    ).bool()
    found = outlines(shown)
    assert found["pieces"].tolist() == [3, 0, 1]
    assert found["boundary"].tolist() == [8, 0, 4]


def test_what_is_left_of_a_grey_image_is_undecided() -> None:
    """Between 0, one class certain, and 1, all as likely."""
    data, classifier = Scenes("test", 6), load_classifier("scenes")
    chosen = select(classifier, data, Settings())
    how = Settings(steps=0)
    full, empty = (
        score(
            _Constant([logit] * 8),
            classifier,
            data,
            chosen,
            how,
            PRESET.weights,
        )
        for logit in (100.0, -100.0)
    )
    grey = torch.full((1, 3, 64, 64), 0.5)
    with torch.no_grad():
        p = classifier(grey).softmax(1)[0]
    entropy = float(-(p * p.log()).sum()) / math.log(len(p))
    assert full["undecided"] == pytest.approx([entropy] * 6, abs=1e-4)
    assert max(empty["undecided"]) < entropy


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
    how = Settings(fill="noise", steps=0, batch_size=1)
    chosen = select(classifier, data, how)
    alone = score(network, classifier, data, chosen, how, PRESET.weights)
    network.train()
    for module in classifier.classifier.modules():
        module.training = True
    for size, order in ((2, [0, 1, 2, 3, 4]), (3, [4, 1, 0, 3, 2])):
        shuffled = Selection([chosen.images[i] for i in order])
        how = replace(how, batch_size=size)
        found = score(
            network, classifier, data, shuffled, how, PRESET.weights
        )
        for name, column in found.items():
            expected = [alone[name][i] for i in order]
            assert column == pytest.approx(expected, abs=1e-4, nan_ok=True), (
                name
            )
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
    seeds = {"full": 2, "no-area": 2, "untrained": 1}
    ablate(experiment(folder), folder / "results.json", seeds=seeds)
    return folder


def test_results_say_what_was_done(done: Path) -> None:
    results = json.loads((done / "results.json").read_text())
    assert list(results["variants"]) == ["full", "no-area", "untrained"]
    card = results["card"]
    assert card["seeds"] == [0, 1]
    assert card["training"]["steps"] == 2
    assert card["weights"]["no-area"]["bound"] == 0
    assert {"commit", "cpu", "date", "command"} <= set(card)
    assert set(card["measured_with"]) == {
        *("classifier", "full-0", "full-1", "no-area-0", "no-area-1")
    }
    assert card["measured_with"]["no-area-1"] == sha256(
        done / "no-area-1" / "model.safetensors"
    )
    iou = results["variants"]["no-area"]["iou"]
    assert len(set(iou["seeds"])) == 2  # another seed is another training
    assert iou["seed_sd"] > 0
    alone = results["variants"]["untrained"]
    assert len(alone["iou"]["seeds"]) == 1
    assert len(alone["difference"]["iou"]["seeds"]) == 1
    assert not list((done / "untrained-0").glob("*/config.json"))


def test_masks_are_stored_for_the_first_images(done: Path) -> None:
    results = json.loads((done / "results.json").read_text())
    masks = read_masks(done / "results.npz")
    assert list(masks) == ["full", "no-area", "untrained"]
    assert masks["full"].shape == (len(results["pictures"]), 2, 64, 64)
    assert 0 <= masks["full"].min() < masks["full"].max() <= 1
    assert not torch.equal(masks["full"], masks["no-area"])


def test_what_is_done_is_not_done_again(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Ablation, "fit", refuse)
    seeds = {"full": 2, "no-area": 2, "untrained": 1}
    again = ablate(experiment(done), tmp_path / "b.json", seeds=seeds)
    before = json.loads((done / "results.json").read_text())
    assert again["variants"] == before["variants"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda scores: scores.clear(),
        lambda scores: scores.pop("kept"),
        lambda scores: scores["iou"].pop(),
        lambda scores: scores.update(mae=["x"] * 8),
        lambda scores: scores.update(saliency=3),
    ],
)
def test_scores_that_are_none_are_named(
    done: Path, tmp_path: Path, damage: Any
) -> None:
    folder = shutil.copytree(done, tmp_path / "copy")
    path = folder / "full-1" / "scores.json"
    content = json.loads(path.read_text())
    damage(content["scores"])
    path.write_text(json.dumps(content))
    with pytest.raises(DamagedFileError, match=r"full-1/scores\.json does"):
        ablate(experiment(folder), folder / "b.json", seeds={"full": 2})


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
        ablate(experiment(done, 3), done / "c.json", seeds={"full": 2})


def test_out_of_time_before_a_training(tmp_path: Path) -> None:
    with time_limit(0), pytest.raises(OutOfTime):
        ablate(experiment(tmp_path), tmp_path / "b.json", seeds={"full": 1})
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_ablated_is_one_sentence(tmp_path: Path) -> None:
    test = Scenes("test", 2)
    test._masks[:] = 0  # no object anywhere
    empty = replace(experiment(tmp_path), test=test)
    for what, seeds, message in (
        (empty, {"full": 1}, "none of the 2 images"),
        (experiment(tmp_path), {"full": 0}, "one seed"),
        (experiment(tmp_path), {}, "at least one variant"),
        (experiment(tmp_path), {"no-fun": 1}, "'no-fun'; known: full, no"),
    ):
        with pytest.raises(UserError, match=message):
            ablate(what, tmp_path / "results.json", seeds=seeds)
