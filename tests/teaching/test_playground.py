"""The playground's optimisation, its page, and the fine-tuning."""

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explainer.classifiers import Classifier, frozen, small_cnn
from explainer.data import Scenes, collate
from explainer.losses import LossWeights, explainer_loss
from explainer.model import build_explainer
from explainer.teaching.playground import (
    AT_ONCE,
    DIALS,
    STOPS,
    TERMS,
    Optimised,
    enlarging,
    fine_tune,
    optimise_mask,
    playground_frames,
    static_playground,
    weight_presets,
)

CLASSES = ("red", "green", "blue")


class Colours(nn.Module):
    """Logits that rise with how much there is of each colour."""

    def forward(self, x: Tensor) -> Tensor:
        return 80 * x.mean((2, 3)) - 2.5


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    zeros, ones = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return frozen(Classifier(Colours(), CLASSES, zeros, ones))


@pytest.fixture(scope="module")
def image() -> Tensor:
    """A red square at the top left, a blue one at the bottom right."""
    x = torch.zeros(1, 3, 32, 32)
    x[:, 0, 4:14, 4:14] = 1
    x[:, 2, 20:28, 20:28] = 1
    return x


LABELS = torch.tensor([[1.0, 0.0, 1.0]])
QUICK = LossWeights(smoothness=0.1, target_area=0.6, b=0.2)


def test_enlarging_is_bicubic_interpolation() -> None:
    grid = torch.rand(2, 3, 8, 8, generator=torch.manual_seed(0))

    enlarged = enlarging(8, 20) @ grid @ enlarging(8, 32).mT

    expected = F.interpolate(
        grid, (20, 32), mode="bicubic", align_corners=False
    )
    torch.testing.assert_close(enlarged, expected)


@pytest.mark.parametrize("multi_label", [True, False])
def test_terms_are_those_of_the_loss_at_rest(
    multi_label: bool, image: Tensor
) -> None:
    classifier = small_cnn(CLASSES).eval()
    classifier.multi_label = multi_label
    images, labels = image.repeat(2, 1, 1, 1), LABELS.repeat(2, 1)
    weights = [QUICK, LossWeights(a=0.2, b=0.6)]
    masks, terms = optimise_mask(classifier, images, labels, weights, steps=2)
    for i, own in enumerate(weights):
        alone = explainer_loss(
            classifier, image, LABELS, masks[i : i + 1], own
        )
        for name, term in alone.terms.items():
            assert torch.allclose(terms[name][i], term, atol=1e-6), name


def test_mask_keeps_the_objects_and_leaves_nothing_of_them(
    classifier: nn.Module, image: Tensor
) -> None:
    masks, terms = optimise_mask(classifier, image, LABELS, [QUICK])
    red, green, blue = masks[0]

    assert red[6:12, 6:12].mean() + blue[6:12, 6:12].mean() > 0.8
    assert masks[0, :, 15:18, :12].max() < 0.3  # between them: nothing
    assert green.max() < 0.05
    assert terms["classification"] < 0.25
    assert terms["entropy"] < -0.3  # of -0.366; -0.231 with both seen


def test_every_weight_pulls_its_term(
    classifier: nn.Module, image: Tensor
) -> None:
    off = [replace(QUICK, **{k: 0.0}) for k in TERMS]
    heavy = [replace(QUICK, **{k: 10.0}) for k in TERMS]
    n = 2 * len(TERMS)
    _, terms = optimise_mask(
        classifier, image.repeat(n, 1, 1, 1), LABELS.repeat(n, 1), off + heavy
    )

    for i, name in enumerate(TERMS):
        assert terms[name][i] > terms[name][i + len(TERMS)] + 1e-3, name


@pytest.mark.parametrize("fill", ["mean", "noise"])
def test_an_image_gets_its_mask_whatever_the_batch(
    classifier: nn.Module, image: Tensor, fill: str
) -> None:
    n = AT_ONCE + 1  # more than one batch
    images, labels = image.repeat(n, 1, 1, 1), LABELS.repeat(n, 1)
    weights = [replace(QUICK, entropy=0.1 * i) for i in range(n)]
    together, _ = optimise_mask(
        classifier, images, labels, weights, steps=3, fill=fill
    )
    for i in (1, n - 1):
        alone, _ = optimise_mask(
            classifier, image, LABELS, [weights[i]], steps=3, fill=fill
        )
        assert torch.allclose(together[i], alone[0], atol=1e-4)


def test_masks_are_masks_at_all_corners_of_the_sliders(
    classifier: nn.Module, image: Tensor
) -> None:
    ends = [(STOPS[k][0], STOPS[k][-1]) for k in DIALS if len(k) > 1]
    bounds = [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.05, 0.2)]
    weights = [
        LossWeights(1.0, *corner, a=a, b=b)
        for corner in product(*ends)
        for a, b in bounds
    ]
    labels = LABELS.repeat(len(weights), 1)
    labels[::5] = 0  # no class asked for
    labels[1::5] = 1  # every class
    masks, terms = optimise_mask(
        classifier,
        image.repeat(len(weights), 1, 1, 1),
        labels,
        weights,
        steps=8,
    )

    assert len(weights) == 128
    assert masks.shape == (128, 3, 32, 32)
    assert masks.isfinite().all()
    assert 0 <= masks.min() <= masks.max() <= 1
    assert all(term.isfinite().all() for term in terms.values())


def test_nothing_is_left_behind(image: Tensor) -> None:
    classifier = small_cnn(CLASSES).train()
    before = torch.random.get_rng_state()
    first = optimise_mask(classifier, image, LABELS, [QUICK], steps=3)
    second = optimise_mask(classifier, image, LABELS, [QUICK], steps=3)

    assert torch.equal(first.class_masks, second.class_masks)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(module.training for module in classifier.modules())
    assert all(p.requires_grad for p in classifier.parameters())
    assert all(p.grad is None for p in classifier.parameters())
    assert not first.class_masks.requires_grad
    assert not classifier._forward_pre_hooks


def test_as_many_weights_as_images(
    classifier: nn.Module, image: Tensor
) -> None:
    with pytest.raises(ValueError, match="1 images need as many weights"):
        optimise_mask(classifier, image, LABELS, [QUICK, QUICK])


def test_presets_are_the_papers_and_leave_out_what_they_say() -> None:
    presets = weight_presets()

    assert presets["paper VGG-16"] == LossWeights()
    assert presets["paper ResNet-50"].entropy == 3
    assert presets["no entropy"] == replace(presets["scenes"], entropy=0)
    zero = dict.fromkeys(TERMS.keys() - {"classification"}, 0)
    only = presets["classification only"]
    assert only == replace(presets["scenes"], **zero)
    assert next(iter(weight_presets("animals"))) == "animals"


def test_page_has_each_dial_the_pair_and_the_presets(
    classifier: nn.Module, image: Tensor
) -> None:
    class Network(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 9 * x - 4

    page = static_playground(
        classifier,
        Network(),
        image.repeat(2, 1, 1, 1),
        LABELS.repeat(2, 1),
        ["left", "right"],
        presets=weight_presets(),
        steps=1,
    ).html

    assert page.count('{"at":') == 2 * (36 + 4 * 3 + 4 + 4)
    assert all(name in page for name in DIALS.values())
    assert '"no entropy":{"1":0,' in page
    assert len(page) < 1_000_000


def test_a_frame_depends_on_no_other(
    classifier: nn.Module, image: Tensor
) -> None:
    masks = torch.full((2, 3, 32, 32), 0.5)
    terms = {name: torch.zeros(2) for name in TERMS}

    def numbers(f: nn.Module, n: int) -> list[dict[str, float]]:
        frames = playground_frames(
            f,
            image.repeat(n, 1, 1, 1),
            LABELS.repeat(n, 1),
            Optimised(masks[:n], terms),
            masks[:n],
            "noise",
        )
        return [dict(frame.numbers) for frame in frames]

    (alone,) = numbers(classifier, 1)
    assert numbers(classifier, 2) == [pytest.approx(alone)] * 2
    awake = nn.Sequential(nn.Dropout(0.9), classifier)
    awake.mean = classifier.mean
    assert numbers(awake, 1) == [pytest.approx(alone)]
    assert awake.training


def test_fine_tuning_follows_the_weights_and_spares_the_network() -> None:
    torch.manual_seed(0)
    train = Scenes("train", 16)
    classifier = small_cnn(train.classes)
    network = build_explainer("small", len(train.classes))
    network.eval().requires_grad_(False)
    kept = {k: v.clone() for k, v in network.state_dict().items()}
    held_out = collate([Scenes("val", 2)[i] for i in range(2)])
    seen: list[int] = []

    tuned = fine_tune(
        network,
        classifier,
        train,
        held_out.images,
        held_out.labels,
        weights=LossWeights(classification=0, entropy=0, target_area=10),
        steps=20,
        batch_size=4,
        on_progress=seen.append,
    )

    assert classifier.training
    assert all(p.requires_grad for p in classifier.parameters())
    assert seen == list(range(1, 21))
    area = {
        when: float(o.terms["target_area"].mean())
        for when, o in (("before", tuned.before), ("after", tuned.after))
    }
    assert area["after"] < area["before"] - 0.05
    assert all(
        torch.equal(v, kept[k]) for k, v in network.state_dict().items()
    )
    with torch.no_grad():
        again = tuned.network(held_out.images).sigmoid()
    assert torch.allclose(again, tuned.after.class_masks, atol=1e-5)
