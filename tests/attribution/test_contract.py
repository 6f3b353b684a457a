"""What every attribution method promises, checked for every method."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from explainer.attribution import METHOD_TITLES, METHODS, PAPER_METHODS
from explainer.attribution.common import evaluating
from explainer.classifiers import Classifier, frozen
from explainer.evaluation.methods import PUBLIC_VARIANTS

N_CLASSES = 4
SIZE = 24

# Budgets that keep the tests short; the contract does not depend on them.
SHORT = {
    "rise": {"n_masks": 24, "batch_size": 10},
    "extremal_perturbation": {"iterations": 6, "areas": (0.1, 0.3)},
    # At its full weights an untrained classifier is not worth a deletion.
    "igos": {"iterations": 2, "steps": 5, "l1": 0.01, "tv": 0.1},
    "integrated_gradients": {"n_steps": 6},
}
for row, (method, _) in PUBLIC_VARIANTS.items():
    SHORT[row] = dict(SHORT[method])
# Nor is its score told apart from noise, or worth half.
SHORT["igos_khorram"] |= {"noise": 0.0, "l1": 0.001}

# The methods, and the public variants of two.
ROWS = METHODS | {
    row: partial(METHODS[method], **own)
    for row, (method, own) in PUBLIC_VARIANTS.items()
}
# Those that look inside an image through the classifier.
ASKING = [
    "grad_cam",
    "rise",
    "extremal_perturbation",
    "igos",
    "input_gradient",
    "integrated_gradients",
    *PUBLIC_VARIANTS,
]
ALL = pytest.mark.parametrize("name", ROWS)


class Trap(nn.Module):
    """Dropout and batch norm, in place, to be upset by training mode."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5, 2, 2),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 3, 2, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
        )
        self.head = nn.Linear(8, N_CLASSES)

    def forward(self, x):
        return 5 * self.head(self.features(x).mean((2, 3)))


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


@pytest.fixture
def classifier():
    """In training mode, half of it asleep, one layer frozen."""
    model = Classifier(
        Trap(), "abcd", cam_layer="features.3", multi_label=True
    )
    model.train()
    model.network.features[1].eval()
    model.network.features[0].weight.requires_grad_(False)
    return model


@pytest.fixture
def batch():
    images = torch.rand(3, 3, SIZE, SIZE)
    images[0, :, 4:12, 4:12] = 1
    images[1, 0, 10:20] = 0
    targets = torch.tensor(
        [[1.0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]
    )  # an image with no target, a class that never occurs
    return images, targets


def options(name, batch=3, device="cpu"):
    given = dict(SHORT.get(name, {}))
    draw = torch.Generator().manual_seed(9)
    if name in ("explainer", "rtis"):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            network = nn.Sequential(
                nn.Conv2d(3, N_CLASSES, 3, 1, 1),
                nn.BatchNorm2d(N_CLASSES),
                nn.Dropout(0.5),
            )
        given["network"] = network.to(device)
    if name == "ground_truth":
        truth = torch.rand(3, N_CLASSES, SIZE, SIZE, generator=draw) > 0.5
        given["truth"] = truth[:batch].to(device)
    return given


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def snapshot(module):
    """Everything of a module that a method might change."""
    return {
        "state": {k: v.clone() for k, v in module.state_dict().items()},
        "mode": [m.training for m in module.modules()],
        "flags": [p.requires_grad for p in module.parameters()],
        "grads": [p.grad for p in module.parameters()],
        "hooks": [
            len(hooks)
            for m in module.modules()
            for hooks in (
                m._forward_hooks,
                m._forward_pre_hooks,
                m._backward_hooks,
                m._backward_pre_hooks,
            )
        ],
    }


def assert_unchanged(module, before):
    after = snapshot(module)
    for key, value in before.pop("state").items():
        assert torch.equal(after["state"][key], value), key
    after.pop("state")
    assert after == before


def test_the_registry_knows_the_papers_six_and_names_what_it_knows():
    assert set(PAPER_METHODS) <= set(METHODS)
    assert len(PAPER_METHODS) == 6
    assert set(ASKING) <= set(ROWS)
    with pytest.raises(ValueError, match=r"'gradcam'; known: explainer, gr"):
        METHODS["gradcam"]


def test_every_method_has_a_title_of_its_own():
    assert set(METHOD_TITLES) == {*METHODS, *PUBLIC_VARIANTS}
    assert len(set(METHOD_TITLES.values())) == len(METHOD_TITLES)


@ALL
def test_masks_have_the_shape_and_range_and_are_zero_off_target(
    name, classifier, batch
):
    images, targets = batch
    masks = ROWS[name](
        classifier, images, targets, generator=seeded(), **options(name)
    )
    assert masks.shape == (3, N_CLASSES, SIZE, SIZE)
    assert masks.dtype == images.dtype
    assert masks.isfinite().all()
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert not masks.requires_grad
    assert masks[targets == 0].eq(0).all()
    if name != "zero":
        assert (masks[targets == 1].amax((1, 2)) > 0).any()


@ALL
def test_nothing_is_left_behind(name, classifier, batch):
    images, targets = batch
    given = options(name)
    modules = [
        classifier,
        *([given["network"]] if "network" in given else []),
    ]
    before = [snapshot(m) for m in modules]
    inputs = images.clone(), targets.clone()
    states = (
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),  # noqa: NPY002
        random.getstate(),
    )
    ROWS[name](classifier, images, targets, **given)
    for module, was in zip(modules, before, strict=True):
        assert_unchanged(module, was)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]
    assert torch.equal(images, inputs[0])
    assert torch.equal(targets, inputs[1])
    assert not images.requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ASKING)
def test_an_error_inside_the_classifier_leaves_nothing_either(
    name, classifier, batch
):
    images, targets = batch

    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("broken")

    classifier.network.head = Broken()
    before = snapshot(classifier)
    with pytest.raises(RuntimeError, match="broken"):
        ROWS[name](classifier, images, targets, **options(name))
    assert_unchanged(classifier, before)
    assert torch.is_grad_enabled()


@ALL
def test_same_masks_with_and_without_no_grad_and_whatever_the_mode(
    name, classifier, batch
):
    given = options(name)
    masks = ROWS[name](classifier, *batch, generator=seeded(), **given)
    classifier.eval()
    with torch.no_grad():
        again = ROWS[name](
            frozen(classifier), *batch, generator=seeded(), **given
        )
    assert torch.equal(masks, again)


@ALL
def test_without_a_generator_masks_are_the_same_each_time(
    name, classifier, batch
):
    given = options(name)
    first = ROWS[name](classifier, *batch, **given)
    torch.rand(7)  # the global state moves on
    assert torch.equal(first, ROWS[name](classifier, *batch, **given))


@ALL
def test_a_batch_equals_its_images_one_by_one(name, classifier, batch):
    images, targets = batch
    given = options(name)
    together = ROWS[name](
        classifier, images, targets, generator=seeded(), **given
    )
    for i in range(len(images)):
        if "truth" in given:
            given["truth"] = options(name)["truth"][i : i + 1]
        alone = ROWS[name](
            classifier,
            images[i : i + 1],
            targets[i : i + 1],
            generator=seeded(),
            **given,
        )
        torch.testing.assert_close(
            alone, together[i : i + 1], atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("name", ASKING)
@pytest.mark.parametrize("multi_label", [True, False])
def test_any_module_from_images_to_logits_serves(name, multi_label, batch):
    module = Trap()
    module.multi_label = multi_label
    given = options(name)
    if name == "grad_cam":
        given["layer"] = "features.3"
    masks = ROWS[name](module, *batch, **given)
    assert masks.isfinite().all()
    assert masks[0, 0].max() > 0


@pytest.mark.parametrize("name", ASKING)
def test_classes_get_masks_of_their_own(name, classifier, batch):
    images, targets = batch
    masks = ROWS[name](
        classifier, images, targets, generator=seeded(), **options(name)
    )
    assert not torch.allclose(masks[0, 0], masks[0, 2], atol=1e-3)


@ALL
def test_the_progress_bar_goes_to_stderr_and_changes_nothing(
    name, classifier, batch, capsys
):
    given = options(name)
    quiet = ROWS[name](classifier, *batch, **given)
    assert capsys.readouterr() == ("", "")
    loud = ROWS[name](classifier, *batch, progress=True, **given)
    assert capsys.readouterr().out == ""
    assert torch.equal(quiet, loud)


@pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="NO GPU: that CPU and CUDA agree is not checked here",
)
@ALL
def test_cpu_equals_cuda(name, classifier, batch):
    images, targets = batch
    masks = ROWS[name](
        classifier, images, targets, generator=seeded(), **options(name)
    )
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        on_gpu = ROWS[name](
            classifier.cuda(),
            images.cuda(),
            targets.cuda(),
            generator=seeded(),
            **options(name, device="cuda"),
        )
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), masks, atol=2e-3, rtol=1e-3)


def test_evaluating_puts_back_what_it_found_even_after_an_error(classifier):
    before = snapshot(classifier)

    def fail():
        with evaluating(classifier):
            assert not any(m.training for m in classifier.modules())
            assert not any(p.requires_grad for p in classifier.parameters())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert_unchanged(classifier, before)
