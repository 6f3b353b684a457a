import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from explainer import metrics
from explainer.metrics import METRICS

NAN = math.nan

# One image of 2 x 2 pixels: the left column is object.
TRUTH = torch.tensor([[[True, False], [True, False]]])
MASK = torch.tensor([[[0.9, 0.2], [0.4, 0.6]]])


def test_metrics_by_hand() -> None:
    expected = {
        # m > 0.5 keeps the upper left (right) and the lower right (wrong).
        "accuracy": 0.5,
        # IoU at 0.1: 2/4, 0.2: 2/3, 0.3: 2/3, 0.4 and 0.5: 1/3, 0.6 to
        # 0.8: 1/2, 0.9: 0.
        "iou": (1 / 2 + 2 / 3 + 2 / 3 + 1 / 3 + 1 / 3 + 3 / 2 + 0) / 9,
        "iou_50": 1 / 3,
        "mae": (0.1 + 0.2 + 0.6 + 0.6) / 4,
        # F1 = 2 IoU / (1 + IoU), threshold by threshold.
        "f1": (2 / 3 + 4 / 5 + 4 / 5 + 1 / 2 + 1 / 2 + 3 * 2 / 3 + 0) / 9,
        "f1_25": 4 / 5,
        "f1_50": 1 / 2,
        "f1_75": 2 / 3,
        # Of the four pairs 0.4 < 0.6 alone is in the wrong order.
        "auc": 3 / 4,
        "coverage": 0.65,
        "background_coverage": 0.4,
        "pointing_game": 1.0,
    }
    assert set(expected) == set(METRICS)
    for name, value in expected.items():
        got = METRICS[name](MASK, TRUTH, None)
        assert got.shape == (1,)
        assert got.item() == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("name", METRICS)
def test_invalid_pixels_count_nowhere(name: str) -> None:
    void = torch.tensor([[[True, True], [True, False]]])
    want = METRICS[name](
        torch.tensor([[[0.9, 0.2, 0.4]]]),
        torch.tensor([[[True, False, True]]]),
        None,
    )
    for value in (0.0, 0.6, 1.0):
        for truth in (False, True):
            mask, g = MASK.clone(), TRUTH.clone()
            mask[0, 1, 1], g[0, 1, 1] = value, truth
            assert METRICS[name](mask, g, void).item() == want.item()


@pytest.mark.parametrize("name", METRICS)
def test_a_channel_makes_no_difference(name: str) -> None:
    plain = METRICS[name](MASK, TRUTH, None)
    assert torch.equal(METRICS[name](MASK[:, None], TRUTH, None), plain)


@pytest.mark.parametrize(
    ("name", "nothing_there", "everything_there"),
    [
        ("accuracy", 1.0, 0.0),
        ("iou", 1.0, 0.0),
        ("iou_50", 1.0, 0.0),
        ("mae", 0.0, 1.0),
        ("f1", 1.0, 0.0),
        ("f1_25", 1.0, 0.0),
        ("f1_50", 1.0, 0.0),
        ("f1_75", 1.0, 0.0),
        ("auc", NAN, NAN),
        ("coverage", NAN, 0.0),
        ("background_coverage", 0.0, NAN),
        ("pointing_game", 0.0, 1.0),
    ],
)
def test_zero_mask_where_there_is_nothing_or_nothing_else(
    name: str, nothing_there: float, everything_there: float
) -> None:
    truth = torch.tensor([False, True]).reshape(2, 1, 1).expand(2, 3, 3)
    got = METRICS[name](torch.zeros(2, 3, 3), truth, None)
    want = torch.tensor([nothing_there, everything_there])
    assert torch.allclose(got, want, equal_nan=True)


@pytest.mark.parametrize("name", METRICS)
def test_nothing_valid_is_nan(name: str) -> None:
    valid = torch.zeros_like(TRUTH)
    assert METRICS[name](MASK, TRUTH, valid).isnan().all()


def test_a_threshold_is_strict() -> None:
    half = torch.full((1, 2, 2), 0.5)
    assert metrics.iou(half, TRUTH, threshold=0.5).item() == 0
    assert metrics.iou(half, TRUTH, threshold=0.4).item() == 0.5
    # At every threshold of the paper, also where float32 rounds it up.
    for t in metrics.THRESHOLDS:
        at = torch.full((1, 2, 2), t)
        assert metrics.iou(at, TRUTH, threshold=t).item() == 0


def test_auc_and_pointing_game_with_ties() -> None:
    flat = torch.full((1, 2, 2), 0.7)
    assert metrics.auc(flat, TRUTH).item() == 0.5
    assert metrics.pointing_game(flat, TRUTH).item() == 0.5
    # Two pixels are the highest, one of them on the object.
    mask = torch.tensor([[[0.8, 0.8], [0.3, 0.1]]])
    assert metrics.pointing_game(mask, TRUTH).item() == 0.5
    # 0.8 ties with 0.8 and beats 0.1; 0.3 loses to 0.8 and beats 0.1.
    assert metrics.auc(mask, TRUTH).item() == (0.5 + 1 + 0 + 1) / 4


def test_ground_truth_with_and_without_void() -> None:
    ids = torch.tensor([[[0, 1], [2, 255]]])
    truth, valid = metrics.ground_truth(ids, 2)
    assert truth.tolist() == [[[False, True], [True, False]]]
    assert valid.tolist() == [[[True, True], [True, False]]]
    truth, valid = metrics.ground_truth(ids, 2, void="object")
    assert truth.tolist() == [[[False, True], [True, True]]]
    assert valid.all()
    truth, _ = metrics.ground_truth(ids, 1)
    assert truth.tolist() == [[[False, True], [False, False]]]
    with pytest.raises(ValueError, match="'ignore' or 'object'"):
        metrics.ground_truth(ids, 2, void="keep")  # type: ignore[arg-type]


def test_class_truth() -> None:
    ids = torch.tensor([[[0, 1], [2, 255]]])
    assert metrics.class_truth(ids, 3).int().tolist() == [
        [[[0, 1], [0, 0]], [[0, 0], [1, 0]], [[0, 0], [0, 0]]]
    ]


def test_class_iou_finds_out_a_class_blind_mask() -> None:
    ids = torch.tensor([[[1, 1, 2, 2]], [[1, 1, 0, 255]]])
    truth, valid = metrics.class_truth(ids, 3), ids != 255
    perfect = metrics.class_iou(truth.float(), truth, valid)
    nan = torch.nan
    want = torch.tensor([[1.0, 1.0, nan], [1.0, nan, nan]])
    assert torch.allclose(perfect, want, equal_nan=True)
    blind = (ids > 0).float()[:, None].expand(2, 3, 1, 4)
    want = torch.tensor([[0.5, 0.5, nan], [1.0, nan, nan]])
    got = metrics.class_iou(blind, truth, valid)
    assert torch.allclose(got, want, equal_nan=True)


def test_saliency_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0], [9.0, 0.0, 0.0]])
    targets = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 1]])
    mask = torch.stack(
        [torch.full((2, 2), 0.25), torch.zeros(2, 2), torch.ones(2, 2)]
    )
    total = math.exp(1) + math.exp(2) + math.exp(4)
    want = [
        math.log(0.25) - math.log((math.exp(1) + math.exp(4)) / total),
        math.log(0.05) - math.log(math.exp(2) / total),
        0.0,
    ]
    got = metrics.saliency(mask, logits, targets)
    assert got.tolist() == pytest.approx(want, abs=1e-6)


def test_saliency_stays_finite() -> None:
    logits = torch.tensor([[500.0, -500.0]])
    got = metrics.saliency(
        torch.ones(1, 2, 2), logits, torch.tensor([[0.0, 1]])
    )
    assert got.item() == pytest.approx(1000)


def test_without_targets_saliency_is_undefined_and_not_infinite() -> None:
    logits = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    targets = torch.tensor([[0.0, 0], [1, 1]])
    got = metrics.saliency(torch.ones(2, 2, 2), logits, targets)
    assert got[0].isnan()
    assert got[1].item() == pytest.approx(0, abs=1e-6)


def test_a_curve_without_steps_is_refused() -> None:
    images, mask = torch.ones(1, 3, 2, 2), torch.ones(1, 2, 2)
    for metric in (metrics.insertion, metrics.deletion):
        with pytest.raises(ValueError, match="at least one step, not 0"):
            metric(brightness, images, mask, images, steps=0)


def brightness(images: Tensor) -> Tensor:
    return images.mean((1, 2, 3))


def test_insertion_and_deletion_by_hand() -> None:
    # Brightness 0 is fill; the pixels weigh 8, 4, 2, 1 in the mask's order.
    pixels = torch.tensor([[8.0, 2.0], [1.0, 4.0]])
    images = pixels.expand(1, 3, 2, 2)
    mask = torch.tensor([[[0.9, 0.3], [0.1, 0.5]]])
    fill = torch.zeros(1, 3, 1, 1)
    shown = [0, 8, 12, 14, 15]
    want = sum((a + b) / 2 for a, b in pairwise(shown))
    got = metrics.insertion(brightness, images, mask, fill, steps=4)
    assert got.item() == pytest.approx(want / 4 / 4)
    left = [15 - s for s in shown]
    want = sum((a + b) / 2 for a, b in pairwise(left))
    got = metrics.deletion(brightness, images, mask, fill, steps=4)
    assert got.item() == pytest.approx(want / 4 / 4)
    # In two steps: 0, 12, 15.
    got = metrics.insertion(brightness, images, mask[:, None], fill, steps=2)
    assert got.item() == pytest.approx((0 + 12) / 16 + (12 + 15) / 16)


def test_ties_of_insertion_favour_no_region() -> None:
    top = torch.zeros(1, 3, 32, 32)
    top[:, :, :16] = 1
    fill = torch.zeros(1, 3, 1, 1)
    constant = torch.full((1, 32, 32), 0.5)
    areas = [
        metrics.insertion(brightness, x, constant, fill).item()
        for x in (top, top.flip(2))
    ]
    assert areas == pytest.approx([0.25, 0.25], abs=0.02)


def test_share_on() -> None:
    marker = torch.tensor([[[True, False], [False, False]]])
    assert metrics.share_on(MASK, marker).item() == pytest.approx(0.9 / 2.1)
    assert metrics.share_on(torch.ones(1, 2, 2), marker).item() == 0.25
    assert metrics.share_on(torch.zeros(1, 2, 2), marker).isnan().all()
    assert metrics.share_on(MASK, marker & ~marker).isnan().all()


def draws(seed: int, b: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Random masks with ties, truths and valid pixels."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, 11, (b, 5, 7), generator=g) / 10
    truth = torch.rand(b, 5, 7, generator=g) < torch.rand(1, generator=g)
    valid = torch.rand(b, 5, 7, generator=g) < 0.8
    return mask, truth, valid


seeds = st.integers(0, 2**31)
every_metric = pytest.mark.parametrize(
    "metric", METRICS.values(), ids=METRICS
)
Metric = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@every_metric
@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_bounds(metric: Metric, seed: int) -> None:
    values = metric(*draws(seed))
    assert ((values.isnan()) | ((values >= 0) & (values <= 1))).all()


@every_metric
@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_flipping_both_changes_nothing(metric: Metric, seed: int) -> None:
    drawn = draws(seed)
    flipped = metric(*(x.flip(-1) for x in drawn))
    assert torch.allclose(metric(*drawn), flipped, equal_nan=True)


@every_metric
@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_images_do_not_touch_each_other(metric: Metric, seed: int) -> None:
    drawn = draws(seed)
    alone = torch.cat(
        [metric(*(x[i : i + 1] for x in drawn)) for i in (0, 1)]
    )
    assert torch.allclose(metric(*drawn)[:2], alone, equal_nan=True)


@every_metric
@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_nothing_beats_the_ground_truth(metric: Metric, seed: int) -> None:
    mask, truth, valid = draws(seed)
    best = metric(truth.float(), truth, valid)
    other = metric(mask, truth, valid)
    known = ~(best.isnan() | other.isnan())
    if metric in (metrics.mae, metrics.background_coverage):
        best, other = -best, -other
    assert (best >= other)[known].all()


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_iou_and_f1_are_symmetric_and_tied(seed: int) -> None:
    mask, truth, valid = draws(seed)
    binary = mask > 0.5
    for metric in (metrics.iou, metrics.f1, metrics.accuracy, metrics.mae):
        swapped = metric(truth.float(), binary, valid)
        assert torch.equal(metric(binary.float(), truth, valid), swapped)
    j = metrics.iou(mask, truth, valid)
    assert torch.allclose(metrics.f1(mask, truth, valid), 2 * j / (1 + j))


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_accuracy_of_a_binary_mask_is_one_minus_mae(seed: int) -> None:
    mask, truth, valid = draws(seed)
    binary = (mask > 0.5).float()
    want = 1 - metrics.mae(binary, truth, valid)
    assert torch.equal(metrics.accuracy(mask, truth, valid), want)


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_auc_counts_pairs(seed: int) -> None:
    mask, truth, valid = draws(seed, b=1)
    on, off = mask[truth & valid], mask[~truth & valid]
    wins = (on[:, None] > off).float() + 0.5 * (on[:, None] == off)
    got = metrics.auc(mask, truth, valid)[0]
    assert torch.allclose(got, wins.mean(), equal_nan=True, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_auc_knows_order_alone(seed: int) -> None:
    mask, truth, valid = draws(seed)
    want = metrics.auc(mask, truth, valid)
    squared = metrics.auc(mask**2, truth, valid)
    reversed_ = metrics.auc(1 - mask, truth, valid)
    assert torch.allclose(squared, want, equal_nan=True)
    assert torch.allclose(reversed_, 1 - want, equal_nan=True, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_what_insertion_shows_deletion_hides(seed: int) -> None:
    mask, _, _ = draws(seed)
    images = torch.rand(
        3, 3, 5, 7, generator=torch.Generator().manual_seed(seed)
    )
    fill = torch.zeros(1, 3, 1, 1)
    shown = metrics.insertion(brightness, images, mask, fill, 7)
    left = metrics.deletion(brightness, images, mask, fill, 7)
    assert torch.allclose(shown + left, brightness(images), atol=1e-5)
