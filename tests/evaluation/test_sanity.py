"""Finding a planted marker, and falling apart with the classifier."""

import pytest
import torch
from torch import Tensor, nn

from explainer.attribution import METHODS
from explainer.checkpoints import load_classifier
from explainer.data import Scenes, Shortcut
from explainer.data.shapes import CLASSES
from explainer.evaluation.methods import Contender
from explainer.evaluation.sanity import (
    class_masks_of,
    fall_apart,
    find_marker,
    marked,
    on_marker,
    randomised,
    rank_correlation,
    reliance,
)

SHORTCUT = Shortcut("star", q=0.5, leak=0.2, size=10, decides=True)
STAR = CLASSES.index("star")


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes("test", 40, shortcut=SHORTCUT)


# --- does it find a planted shortcut? -----------------------------------


class _SeesMagenta(nn.Module):
    """Knows a star by its marker alone: red without green."""

    def forward(self, images: Tensor) -> Tensor:
        red, green, blue = images.unbind(1)
        magenta = (red == 1) & (green == 0) & (blue == 1)
        star = magenta.flatten(1).sum(1) >= 30
        logits = torch.full((len(images), len(CLASSES)), -20.0)
        logits[:, STAR] = 40 * star.float() - 20
        return logits


def test_reliance_of_a_classifier_that_cheats() -> None:
    found = reliance(_SeesMagenta(), SHORTCUT, 40)
    for row in found.values():
        # A rare crowded scene has no room for its marker.
        assert row["marker"] > 0.9
        assert row["no marker"] < 0.1


def test_reliance_of_the_honest_classifier() -> None:
    found = reliance(load_classifier("scenes"), SHORTCUT, 40)
    assert found["object"]["no marker"] > 0.8
    assert found["no object"]["marker"] < 0.2


def test_marked_images_carry_the_marker(scenes: Scenes) -> None:
    every = marked(scenes)
    assert marked(scenes, 3) == every[:3]
    for i in range(len(scenes)):
        assert (i in every) == bool(scenes.marker(i).any())


def test_on_marker_by_hand() -> None:
    mask = torch.tensor([[[0.0, 0.5], [0.5, 1.0]]]).repeat(2, 1, 1)
    mask[1] = 0
    marker = torch.tensor([[[False, False], [False, True]]]).repeat(2, 1, 1)
    shape = torch.tensor([[[False, True], [False, False]]]).repeat(2, 1, 1)
    found = on_marker(mask, marker, shape)
    assert found["marker"][0] == 0.5
    assert found["shape"][0] == 0.25
    assert found["even"] == [0.25, 0.25]
    assert found["pointing"][0] == 1
    assert found["marker"][1] != found["marker"][1]  # an empty mask: NaN


def test_a_perfect_and_an_even_explanation(scenes: Scenes) -> None:
    def perfect(
        classifier: nn.Module, images: Tensor, targets: Tensor, **rest: object
    ) -> Tensor:
        red, green, blue = images.unbind(1)
        on = (red == 1) & (blue == 1) & ((green == 0) | (green == 1))
        return on[:, None].float() * targets[:, :, None, None]

    indices = marked(scenes, 4)
    methods = {
        "perfect": Contender(perfect),
        "even": Contender(METHODS["half"]),
    }
    found = find_marker(methods, _SeesMagenta(), scenes, indices)
    assert min(found["perfect"]["marker"]) > 0.9
    assert found["even"]["marker"] == pytest.approx(found["even"]["even"])
    assert found["even"]["even"] == pytest.approx([100 / 4096] * 4)


def test_one_class_is_explained_at_a_time(scenes: Scenes) -> None:
    half = Contender(METHODS["half"], batch_size=2)
    labels = torch.stack([scenes[i].labels for i in range(5)])
    masks = class_masks_of("half", half, _SeesMagenta(), scenes, range(5))
    assert torch.equal(masks.amax((2, 3)), labels / 2)
    masks = class_masks_of(
        "half", half, _SeesMagenta(), scenes, range(5), STAR
    )
    assert (masks[:, STAR] == 0.5).all()
    assert masks.sum() == masks[:, STAR].sum()


# --- does it fall apart with the classifier? ----------------------------


def test_randomised_weights_are_new_and_reproducible() -> None:
    classifier = load_classifier("scenes")
    before = {k: v.clone() for k, v in classifier.state_dict().items()}
    state = torch.get_rng_state()
    first, again = randomised(classifier, 1), randomised(classifier, 1)
    other = randomised(classifier, 2)
    assert torch.equal(torch.get_rng_state(), state)
    name = "classifier.network.head.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    for key, value in classifier.state_dict().items():
        assert torch.equal(value, before[key])
    for key, value in first.named_parameters():
        # Biases and gains may start where they always do.
        assert value.ndim < 2 or not torch.equal(value, before[key]), key


def test_rank_correlation_by_hand() -> None:
    mask = torch.arange(6.0).reshape(1, 2, 3) / 5
    stack = torch.cat([mask, mask, mask, mask])
    other = torch.cat([mask**2, 1 - mask, 0 * mask, mask])
    other[3, 0, 0], other[3, 0, 1] = 0.2, 0.0  # two neighbours change places
    found = rank_correlation(stack, other)
    assert found[:2].tolist() == pytest.approx([1, -1])
    assert found[2].isnan()
    # 1 - 6 sum d^2 / (n (n^2 - 1)) = 1 - 6 * 2 / 210
    assert found[3].item() == pytest.approx(1 - 12 / 210)


def test_fall_apart_compares_with_the_truth() -> None:
    data, indices = Scenes("test", 3), range(3)
    labels = torch.stack([data[i].labels for i in indices])
    truth = torch.stack(
        [
            torch.stack([data[i].mask == c + 1 for c in range(8)])
            for i in indices
        ]
    ).float()
    assert (truth.amax((2, 3)) == labels).all()
    found = fall_apart(truth, 0.5 * truth.amax(1, True), data, indices)
    assert found["correlation"] == pytest.approx([1, 1, 1])
    assert found["auc_before"] == found["auc_after"] == [1, 1, 1]
    assert found["iou_before"] == [1, 1, 1]
    # Half as bright: 4 of 9 thresholds lie below.
    assert found["iou_after"] == pytest.approx([4 / 9] * 3, abs=1e-6)
