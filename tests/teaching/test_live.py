"""The live playground, its sliders moved from Python."""

import gc
from typing import Any

import ipywidgets as widgets
import pytest
import torch
from traitlets import TraitError

from explainer.classifiers import frozen, small_cnn
from explainer.data import Scenes, collate
from explainer.losses import LossWeights
from explainer.model import build_explainer
from explainer.teaching import live as module
from explainer.teaching.live import Playground
from explainer.teaching.playground import weight_presets


def build(**options: Any) -> Playground:
    torch.manual_seed(0)
    train = Scenes("train", 8)
    batch = collate([Scenes("val", 3)[i] for i in range(3)])
    return Playground(
        frozen(small_cnn(train.classes)),
        build_explainer("small", len(train.classes)).eval(),
        torch.nn.functional.avg_pool2d(batch.images, 2),  # quicker
        batch.labels,
        train,
        **{"presets": weight_presets(), "steps": 1, **options},
    )


@pytest.fixture
def app() -> Playground:
    return build()


def redraws(app: Playground, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record what is optimised from now on: labels and weights."""
    calls: list[Any] = []
    real = module.optimise_mask

    def spy(classifier, images, labels, weights, **options):  # type: ignore
        calls.append((labels, weights[0]))
        return real(classifier, images, labels, weights, **options)

    monkeypatch.setattr(module, "optimise_mask", spy)
    return calls


def test_it_opens_with_a_picture_and_the_first_preset(
    app: Playground,
) -> None:
    assert app.view.value.count("<img") >= 3
    assert "L_c" in app.view.value
    assert app.weights == weight_presets()["scenes"]
    chosen = [t.description for t in app.targets if t.value]
    assert chosen == [
        name
        for name, y in zip(app.train.classes, app.labels[0], strict=True)
        if y
    ]


@pytest.mark.parametrize(
    "field",
    ["entropy", "bound", "target_area", "non_target_area", "smoothness"],
)
def test_each_slider_redraws_with_its_weight(
    app: Playground, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    calls, slider = redraws(app, monkeypatch), app.sliders[field]

    for value in (slider.min, slider.max):
        slider.value = value
        assert getattr(calls[-1][1], field) == value
    assert len(calls) == 2


def test_a_never_passes_b(
    app: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = redraws(app, monkeypatch)
    for a, b in ((0.0, 0.0), (1.0, 1.0), (-1.0, 2.0)):
        app.bounds.value = (a, b)
    with pytest.raises(TraitError, match="lower > upper"):
        app.bounds.value = (0.4, 0.1)

    found = [(weights.a, weights.b) for _, weights in calls]
    assert found == [(0, 0), (1, 1), (0, 1)]


def test_a_preset_moves_everything_and_redraws_once(
    app: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = redraws(app, monkeypatch)
    for name, weights in weight_presets().items():
        app.preset.value = name
        assert app.weights == weights

    assert [w for _, w in calls] == list(weight_presets().values())[1:]


def test_a_preset_beyond_the_usual_range_is_not_clamped() -> None:
    presets = {"heavy": LossWeights(entropy=50, bound=20)}

    assert build(presets=presets).weights == presets["heavy"]


def test_another_image_brings_its_own_classes(
    app: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = redraws(app, monkeypatch)
    before = app.view.value
    app.image.value = 2

    (call,) = calls
    assert torch.equal(call[0], app.labels[2:])
    assert app.view.value != before


def test_target_classes_can_be_chosen_down_to_none(
    app: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = redraws(app, monkeypatch)
    for target in app.targets:
        target.value = False

    assert calls[-1][0].sum() == 0
    assert app.message.value == ""


def test_an_error_is_shown_and_raised_and_gone_after_the_next_move(
    app: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of <memory>")

    with monkeypatch.context() as patch:
        patch.setattr(module, "optimise_mask", fail)
        with pytest.raises(RuntimeError, match="out of"):
            app.sliders["entropy"].value = 1
    assert "RuntimeError: out of &lt;memory&gt;" in app.message.value

    app.sliders["entropy"].value = 3
    assert app.message.value == ""


def test_moves_leave_nothing_behind(app: Playground) -> None:
    def held() -> tuple[int, int]:
        gc.collect()
        tensors = sum(type(x) is torch.Tensor for x in gc.get_objects())
        return tensors, len(widgets.widget._instances)

    def move(k: int) -> None:
        app.sliders["entropy"].value = 1 + k % 2
        app.bounds.value = (0.05, 0.2 + 0.1 * (k % 2))

    move(0)
    before, size = held(), len(app.view.value)
    for k in range(20):  # two sliders each
        move(k + 1)

    assert held() == before
    assert len(app.view.value) < 1.5 * size


def test_fine_tuning_fills_the_bar_and_shows_before_and_after(
    app: Playground,
) -> None:
    app.tuning_steps.value = 20
    seen: list[int] = []
    app.progress.observe(lambda change: seen.append(change["new"]), "value")
    app.button.click()

    assert seen == list(range(1, 21))
    assert app.progress.max == 20
    assert not app.button.disabled
    assert "<h4>before</h4>" in app.result.value
    assert app.result.value.count("image 3") >= 2


def test_fine_tuning_that_fails_says_so_and_can_be_tried_again(
    app: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr(module, "fine_tune", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        app._guarded(app.tune)(None)

    assert "disk full" in app.message.value
    assert not app.button.disabled
