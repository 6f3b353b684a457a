"""Each term by hand, and the whole loss against the paper's formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn
from torch.testing import assert_close

from explainer.classifiers import Classifier
from explainer.losses import (
    Loss,
    LossWeights,
    Reduction,
    area,
    area_bound,
    classification_loss,
    explainer_loss,
    negative_entropy,
    total_variation,
)

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
TERMS = (
    "classification",
    "entropy",
    "bound",
    "target_area",
    "non_target_area",
    "smoothness",
)
UNEQUAL = LossWeights(
    classification=1.0,
    entropy=3.0,
    bound=0.8,
    target_area=0.01,
    non_target_area=0.3,
    smoothness=0.5,
    a=0.1,
    b=0.4,
)

# A busy machine is no failure.
unhurried = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
masks = hnp.arrays(
    np.float64,
    st.tuples(st.integers(2, 7), st.integers(2, 7)),
    elements=st.floats(0, 1),
)


def tiny_classifier(n_classes: int, multi_label: bool = True) -> Classifier:
    """A network that is not linear in the pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(4)
        )
        network(torch.zeros(1, 3, 6, 5))
        network.append(nn.Linear(4, n_classes))
    return Classifier(
        network, "abcdef"[:n_classes], MEAN, STD, multi_label=multi_label
    )


def batch(n: int = 4, n_classes: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Images, labels and masks; one image has no label, one has all."""
    g = torch.Generator().manual_seed(1)
    images = torch.rand(n, 3, 6, 5, generator=g)
    labels = (torch.rand(n, n_classes, generator=g) < 0.5).float()
    labels[0], labels[1] = 0, 1
    class_masks = torch.rand(n, n_classes, 6, 5, generator=g)
    return images, labels, class_masks


# --- the paper's formulas, pixel by pixel -------------------------------


def bound_by_sorting(s: Tensor, a: float, b: float) -> float:
    """B(s) as the paper writes it: sorted against q_min and q_max."""
    r = sorted(s.flatten().tolist(), reverse=True)
    z = len(r)
    k_a, k_b = math.floor(a * z), math.floor(b * z)
    q_min = [1.0] * k_a + [0.0] * (z - k_a)
    q_max = [1.0] * k_b + [0.0] * (z - k_b)
    too_small = sum(max(q - v, 0.0) for q, v in zip(q_min, r, strict=True))
    too_large = sum(max(v - q, 0.0) for q, v in zip(q_max, r, strict=True))
    return too_small / z + too_large / z


def variation_by_loops(z: Tensor) -> float:
    """TV(z), ``(H, W)``; beyond the border lies the last but one pixel."""
    height, width = z.shape
    total = 0.0
    for i in range(height):
        for j in range(width):
            below = z[i + 1, j] if i + 1 < height else z[height - 2, j]
            beside = z[i, j + 1] if j + 1 < width else z[i, width - 2]
            total += abs(z[i, j] - below) + abs(z[i, j] - beside)
    return float(total) / (height * width)


def maximum(class_masks: Tensor, chosen: list[int]) -> Tensor:
    """Pixel-wise maximum over some classes, zero over none."""
    height, width = class_masks.shape[-2:]
    merged = torch.zeros(height, width)
    for c in chosen:
        for i in range(height):
            for j in range(width):
                merged[i, j] = max(merged[i, j], class_masks[c, i, j])
    return merged


def loss_by_loops(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    class_masks: Tensor,
    w: LossWeights,
) -> dict[str, float]:
    """Every term of the paper's loss, one image and one class at a time."""
    n, n_classes = labels.shape
    sums = dict.fromkeys(TERMS, 0.0)
    for x, y, s in zip(images, labels, class_masks, strict=True):
        present = [c for c in range(n_classes) if y[c] == 1]
        absent = [c for c in range(n_classes) if y[c] == 0]
        m, non_target = maximum(s, present), maximum(s, absent)
        # The paper multiplies the normalised image.
        z = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[
            :, None, None
        ]
        p = classifier.network((z * m)[None])[0].sigmoid()
        for c in range(n_classes):
            likelihood = p[c] if c in present else 1 - p[c]
            sums["classification"] -= float(likelihood.log()) / n_classes
        q = classifier.network((z * (1 - m))[None])[0].softmax(0)
        for c in range(n_classes):
            sums["entropy"] += float(q[c] * q[c].log()) / n_classes
        for c in present:
            sums["bound"] += bound_by_sorting(s[c], w.a, w.b)
        sums["target_area"] += float(m.mean())
        sums["non_target_area"] += float(non_target.mean())
        sums["smoothness"] += variation_by_loops(m)
        sums["smoothness"] += variation_by_loops(non_target)
    return {name: value / n for name, value in sums.items()}


@pytest.mark.parametrize("seed", range(3))
def test_whole_loss_is_the_papers(seed: int) -> None:
    classifier = tiny_classifier(3)
    images, labels, _ = batch(5)
    g = torch.Generator().manual_seed(seed)
    class_masks = torch.rand(5, 3, 6, 5, generator=g)
    with torch.no_grad():
        loss = explainer_loss(
            classifier, images, labels, class_masks, UNEQUAL
        )
        literal = loss_by_loops(
            classifier, images, labels, class_masks, UNEQUAL
        )
    assert tuple(loss.terms) == TERMS
    for name, value in literal.items():
        assert loss.terms[name].item() == pytest.approx(value, abs=1e-5), name
    total = (
        literal["classification"]
        + 3.0 * literal["entropy"]
        + 0.8 * literal["bound"]
        + 0.01 * literal["target_area"]
        + 0.3 * literal["non_target_area"]
        + 0.5 * literal["smoothness"]
    )
    assert loss.total.item() == pytest.approx(total, abs=1e-5)


def test_total_is_the_weighted_sum() -> None:
    images, labels, class_masks = batch()
    classifier = tiny_classifier(3)
    for name in TERMS:
        zero = {term: 0.0 for term in TERMS if term != name}
        weights = LossWeights(**zero, **{name: 2.5})
        loss = explainer_loss(
            classifier, images, labels, class_masks, weights
        )
        assert_close(loss.total, 2.5 * loss.terms[name])


# --- classification -----------------------------------------------------


def test_classification_by_hand() -> None:
    logits = torch.tensor([[math.log(3), 0.0], [math.log(1 / 4), 5.0]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # p = 3/4 and 1/2, then 1/5 and sigmoid(5).
    by_hand = -(
        math.log(3 / 4)
        + math.log(1 / 2)
        + math.log(4 / 5)
        + math.log(1 / (1 + math.exp(-5)))
    )
    assert classification_loss(logits, labels).item() == pytest.approx(
        by_hand / 4
    )


def test_single_label_classification_by_hand() -> None:
    logits = torch.tensor([[math.log(2), 0.0, 0.0]])  # p = 1/2, 1/4, 1/4
    one = torch.tensor([[0.0, 1.0, 0.0]])
    two = torch.tensor([[1.0, 1.0, 0.0]])
    none = torch.zeros(1, 3)
    assert classification_loss(logits, one, False).item() == pytest.approx(
        math.log(4)
    )
    assert classification_loss(logits, two, False).item() == pytest.approx(
        (math.log(2) + math.log(4)) / 2
    )
    assert classification_loss(logits, none, False).item() == 0


# --- entropy ------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 8, 20])
def test_entropy_of_the_undecided_and_the_sure(n_classes: int) -> None:
    undecided = torch.full((3, n_classes), -4.2)
    sure = torch.zeros(3, n_classes)
    sure[:, 1] = 100
    least = -math.log(n_classes)
    assert negative_entropy(undecided).item() == pytest.approx(
        least / n_classes
    )
    assert negative_entropy(undecided, "undivided").item() == pytest.approx(
        least
    )
    assert negative_entropy(sure).item() == pytest.approx(0, abs=1e-6)


@unhurried
@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.integers(2, 9)),
        elements=st.floats(-50, 50),
    )
)
def test_entropy_stays_within_its_bounds(logits: np.ndarray) -> None:
    n_classes = logits.shape[1]
    divided = negative_entropy(torch.from_numpy(logits)).item()
    undivided = negative_entropy(torch.from_numpy(logits), "undivided").item()
    assert -math.log(n_classes) - 1e-9 <= undivided <= 1e-9
    assert divided == pytest.approx(undivided / n_classes)


def test_entropy_by_hand() -> None:
    logits = torch.tensor([[math.log(3), 0.0]])  # p = 3/4 and 1/4
    by_hand = 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    assert negative_entropy(logits).item() == pytest.approx(by_hand / 2)


# --- area ---------------------------------------------------------------


def test_area_is_the_mean() -> None:
    mask = torch.tensor([[[[0.0, 1.0], [0.5, 0.1]]]])
    assert area(mask).item() == pytest.approx(0.4)


def test_bound_by_hand() -> None:
    """Ten pixels: one has to be shown, from the fourth on it costs."""
    labels = torch.ones(1, 1)

    def bound(*values: float) -> float:
        s = torch.tensor(values).reshape(1, 1, 2, 5)
        return area_bound(s, labels, a=0.1, b=0.3).item()

    assert bound(*[1] * 1, *[0] * 9) == pytest.approx(0)
    assert bound(*[0] * 7, *[1] * 3) == pytest.approx(0)
    assert bound(*[0] * 10) == pytest.approx(0.1)
    assert bound(*[1] * 5, *[0] * 5) == pytest.approx(0.2)
    # 0.1 is missing in the first pixel, the fourth is 0.25 too much.
    assert bound(0.25, 0.5, 0.9, 0.5, *[0] * 6) == pytest.approx(0.035)


def test_bound_of_a_constant_mask_is_not_free() -> None:
    """0.2 everywhere: 0.05 * 0.8 is missing, 0.7 * 0.2 is too much."""
    s = torch.full((1, 1, 20, 10), 0.2)
    bound = area_bound(s, torch.ones(1, 1), a=0.05, b=0.3)
    assert bound.item() == pytest.approx(0.18)


@unhurried
@given(mask=masks, limits=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_bound_is_the_papers_sorted_one(
    mask: np.ndarray, limits: tuple[float, float]
) -> None:
    a, b = sorted(limits)
    s = torch.from_numpy(mask)
    bound = area_bound(s[None, None], torch.ones(1, 1).double(), a, b)
    assert bound.item() == pytest.approx(bound_by_sorting(s, a, b), abs=1e-12)


def test_bound_sums_over_present_classes_and_averages_over_images() -> None:
    s = torch.zeros(2, 3, 2, 5)
    labels = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    s[:, 2] = 1  # an absent class costs nothing here
    assert area_bound(s, labels, 0.1, 0.3).item() == pytest.approx(0.3 / 2)


# --- smoothness ---------------------------------------------------------


def test_variation_by_hand() -> None:
    """The reflected border counts the last row and column twice."""
    mask = torch.tensor([[[[0.0, 1.0], [0.0, 0.0]]]])
    # down: 0, 1, 0, 1 (reflected); right: 1, 1 (reflected), 0, 0
    assert total_variation(mask).item() == pytest.approx(4 / 4)
    step = torch.tensor([[[[0.0, 0.0, 1.0]] * 3]])
    assert total_variation(step).item() == pytest.approx(2 * 3 / 9)
    assert total_variation(torch.full((2, 1, 3, 3), 0.7)).item() == 0


def test_variation_is_cheaper_where_the_image_has_an_edge() -> None:
    """The mask steps once in each row of four pixels: 1 / 4 without edges."""
    mask = torch.tensor([0.0, 0, 1, 1]).expand(1, 1, 2, 4)
    edge = torch.tensor([0.0, 0, 0.5, 0.5]).expand(1, 3, 2, 4)
    elsewhere = torch.tensor([0.0, 0.5, 0.5, 0.5]).expand(1, 3, 2, 4)
    halving = 2 * math.log(2)  # a step of 1/2 counts one half
    for images, expected in ((edge, 0.125), (elsewhere, 0.25)):
        found = total_variation(mask, "mean", images, halving)
        assert found == pytest.approx(expected)
        assert total_variation(mask, "mean", images, 0) == total_variation(
            mask
        )
    both = torch.cat([edge, edge])
    rates = torch.tensor([0, halving])
    found = total_variation(torch.cat([mask, mask]), "none", both, rates)
    assert found.tolist() == pytest.approx([0.25, 0.125])


@unhurried
@given(masks)
def test_variation_is_the_naive_loop(mask: np.ndarray) -> None:
    z = torch.from_numpy(mask)
    assert total_variation(z[None, None]).item() == pytest.approx(
        variation_by_loops(z), abs=1e-12
    )


# --- image by image ---------------------------------------------------


def of_case(
    seed: int, n: int, multi_label: bool
) -> tuple[Classifier, Tensor, Tensor, Tensor]:
    """A classifier, images, labels and masks, in double precision."""
    g = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 3, 6, 5, generator=g).double()
    labels = (torch.rand(n, 3, generator=g) < 0.5).double()
    class_masks = torch.rand(n, 3, 6, 5, generator=g).double()
    classifier = tiny_classifier(3, multi_label).double()
    return classifier, images, labels, class_masks


settings_of_an_image = st.builds(
    lambda numbers, bounds: LossWeights(
        *numbers, a=min(bounds), b=max(bounds)
    ),
    st.tuples(*[st.floats(0, 9)] * 6),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
)


@settings(unhurried, max_examples=30)
@given(
    st.integers(0, 2**20), st.integers(1, 5), st.booleans(),
    settings_of_an_image,
)  # fmt: skip
def test_the_mean_is_that_of_the_images(
    seed: int, n: int, multi_label: bool, weights: LossWeights
) -> None:
    classifier, images, labels, class_masks = of_case(seed, n, multi_label)

    def loss(reduction: Reduction) -> Loss:
        return explainer_loss(
            classifier,
            images,
            labels,
            class_masks,
            weights,
            reduction=reduction,
        )

    mean, each = loss("mean"), loss("none")
    assert mean.total.shape == ()
    assert each.total.shape == (n,)
    assert_close(each.total.mean(), mean.total)
    assert each.terms.keys() == mean.terms.keys()
    for name, term in each.terms.items():
        assert term.shape == (n,), name
        assert_close(term.mean(), mean.terms[name], msg=name)


def test_values_of_images_are_the_papers() -> None:
    classifier = tiny_classifier(3)
    images, labels, class_masks = batch()
    with torch.no_grad():
        loss = explainer_loss(
            classifier,
            images,
            labels,
            class_masks,
            UNEQUAL,
            reduction="none",
        )
        for i in range(len(images)):
            one = slice(i, i + 1)
            literal = loss_by_loops(
                classifier,
                images[one],
                labels[one],
                class_masks[one],
                UNEQUAL,
            )
            for name, value in literal.items():
                assert loss.terms[name][i].item() == pytest.approx(
                    value, abs=1e-5
                ), name


@settings(unhurried, max_examples=30)
@given(
    st.integers(0, 2**20), st.booleans(),
    st.lists(settings_of_an_image, min_size=1, max_size=5),
)  # fmt: skip
def test_each_image_has_the_loss_that_it_has_alone(
    seed: int, multi_label: bool, weights: list[LossWeights]
) -> None:
    classifier, images, labels, class_masks = of_case(
        seed, len(weights), multi_label
    )
    labels[0] = seed % 2  # no label, or every label
    stacked = LossWeights.stack(weights)

    def loss(w: LossWeights, at: slice, reduction: Reduction) -> Loss:
        return explainer_loss(
            classifier,
            images[at],
            labels[at],
            class_masks[at],
            w,
            reduction=reduction,
        )

    together = loss(stacked, slice(None), "none")
    for i, own in enumerate(weights):
        alone = loss(own, slice(i, i + 1), "mean")
        assert_close(together.total[i], alone.total)
        for name, term in alone.terms.items():
            assert_close(together.terms[name][i], term, msg=name)
    mean = loss(stacked, slice(None), "mean").total
    assert_close(mean, together.total.mean())


def test_one_image_under_many_settings() -> None:
    """In single precision, as the playground has it; with its gradients."""
    images, labels, class_masks = (x[2:3] for x in batch())
    classifier = tiny_classifier(3)
    weights = [
        LossWeights(2, 1 + i, 3 + i, 0.2, i, 0.5, i / 20, 0.3 + i / 10)
        for i in range(6)
    ]
    s = class_masks.repeat(6, 1, 1, 1).requires_grad_()
    loss = explainer_loss(
        classifier,
        images.repeat(6, 1, 1, 1),
        labels.repeat(6, 1),
        s,
        LossWeights.stack(weights),
        reduction="none",
    )
    (slopes,) = torch.autograd.grad(loss.total.sum(), s)
    assert loss.total.dtype == torch.float32
    for i, own in enumerate(weights):
        s = class_masks.clone().requires_grad_()
        alone = explainer_loss(classifier, images, labels, s, own)
        assert_close(loss.total[i], alone.total)
        (slope,) = torch.autograd.grad(alone.total, s)
        assert_close(slopes[i], slope[0])


@unhurried
@given(
    st.integers(0, 99), st.integers(1, 40),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1,
             max_size=4),
)  # fmt: skip
def test_bounds_may_differ_from_image_to_image(
    seed: int, n_pixels: int, limits: list[tuple[float, float]]
) -> None:
    g = torch.Generator().manual_seed(seed)
    n = len(limits)
    s = torch.rand(n, 3, 1, n_pixels, generator=g, dtype=torch.float64)
    labels = torch.randint(2, (n, 3), generator=g).double()
    ends = [(min(ab), max(ab)) for ab in limits]
    a, b = torch.tensor(ends, dtype=torch.float64).T
    for low, high in ((a, b), (0.0, b), (a, 1.0)):
        bound = area_bound(s, labels, low, high, "none")
        for i in range(n):
            own = (x if isinstance(x, float) else float(x[i])
                   for x in (low, high))  # fmt: skip
            alone = area_bound(s[i : i + 1], labels[i : i + 1], *own)
            assert_close(bound[i], alone)


def test_a_share_is_counted_as_python_counts_it() -> None:
    """0.29 of 100 pixels are 28, for 0.29 * 100 is just below 29."""
    s, label = torch.zeros(1, 1, 10, 10), torch.ones(1, 1)
    stacked = LossWeights.stack([LossWeights(a=0.29)])
    assert area_bound(s, label, 0.29, 0.3).item() == pytest.approx(0.28)
    assert area_bound(s, label, stacked.a, stacked.b) == pytest.approx(0.28)


def test_weights_of_different_entropies_do_not_mix() -> None:
    weights = [LossWeights(), LossWeights(entropy_scale="undivided")]
    with pytest.raises(ValueError, match=r"\['paper', 'undivided'\]"):
        LossWeights.stack(weights)
    stacked = LossWeights.stack(weights[1:] * 2)
    assert stacked.entropy_scale == "undivided"
    assert stacked.entropy.tolist() == [1, 1]


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="'sum'; known: mean, none"):
        area(torch.ones(1, 1, 2, 2), "sum")


# --- gradients ----------------------------------------------------------


def test_bound_pulls_the_largest_up_and_the_rest_down() -> None:
    s = torch.tensor([0.1, 0.3, 0.9, 0.5]).reshape(1, 1, 2, 2)
    s.requires_grad_()
    area_bound(s, torch.ones(1, 1), a=0.25, b=0.5).backward()
    assert s.grad is not None
    expected = torch.tensor([0.25, 0.25, -0.25, 0.0]).reshape(1, 1, 2, 2)
    assert_close(s.grad, expected)


def test_classification_shows_what_speaks_for_the_class() -> None:
    """The classifier counts red: masks grow where red is, only there."""

    class Red(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images[:, :1].sum((2, 3)) - 3

    images = torch.zeros(1, 3, 4, 4)
    images[:, 0, 1:3, 1:3] = 1
    class_masks = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    loss = explainer_loss(
        Red(),
        images,
        torch.ones(1, 1),
        class_masks,
        LossWeights(),
        fill="black",
    )
    loss.terms["classification"].backward()
    assert class_masks.grad is not None
    red = images[:, :1] > 0
    assert (class_masks.grad[red] < 0).all()
    assert (class_masks.grad[~red] == 0).all()


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("multi_label", [True, False])
def test_no_label_and_every_label(label: float, multi_label: bool) -> None:
    """m or n is zero there, and every gradient is a number."""
    images, _, class_masks = batch()
    labels = torch.full((4, 3), label)
    class_masks.requires_grad_()
    loss = explainer_loss(
        tiny_classifier(3, multi_label),
        images,
        labels,
        class_masks,
        LossWeights(),
    )
    loss.total.backward()
    empty = "non_target_area" if label else "target_area"
    assert loss.terms[empty].item() == 0
    assert torch.isfinite(loss.total)
    assert class_masks.grad is not None
    assert torch.isfinite(class_masks.grad).all()


@settings(unhurried, max_examples=10)
@given(st.integers(0, 2**20))
def test_gradient_is_the_numerical_one(seed: int) -> None:
    classifier = tiny_classifier(2).double()
    g = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, 6, 5, generator=g, dtype=torch.float64)
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    start = torch.rand(2, 2, 6, 5, generator=g, dtype=torch.float64)
    start.requires_grad_()

    def total(s: Tensor) -> Tensor:
        return explainer_loss(classifier, images, labels, s, UNEQUAL).total

    (slope,) = torch.autograd.grad(total(start), start)
    where = torch.randn(start.shape, generator=g, dtype=torch.float64)
    eps = 1e-7
    with torch.no_grad():
        rise = (total(start + eps * where) - total(start - eps * where)) / (
            2 * eps
        )
    # A kink within eps (of max, sort or abs) may cost a little.
    assert (slope * where).sum().item() == pytest.approx(
        rise.item(), abs=1e-4
    )


# --- options ------------------------------------------------------------


def test_any_module_serves_and_noise_comes_from_the_generator() -> None:
    class Plain(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3))

    images, labels, class_masks = batch()

    def total(seed: int) -> Tensor:
        return explainer_loss(
            Plain(),
            images,
            labels,
            class_masks,
            LossWeights(),
            fill="noise",
            generator=torch.Generator().manual_seed(seed),
        ).total

    assert_close(total(3), total(3), rtol=0, atol=0)
    assert total(3) != total(4)


def test_softmax_classifiers_get_cross_entropy() -> None:
    images, _, class_masks = batch()
    labels = torch.eye(3)[[0, 2, 1, 1]]
    classifier = tiny_classifier(3, multi_label=False)
    loss = explainer_loss(
        classifier, images, labels, class_masks, LossWeights()
    )
    m = class_masks[range(4), [0, 2, 1, 1]][:, None]
    mean = classifier.mean
    p = classifier(m * images + (1 - m) * mean).softmax(1)
    by_hand = -p[range(4), [0, 2, 1, 1]].log().mean()
    assert_close(loss.terms["classification"], by_hand)


def test_undivided_entropy_is_c_times_the_papers() -> None:
    images, labels, class_masks = batch()
    classifier = tiny_classifier(3)
    paper, undivided = (
        explainer_loss(
            classifier,
            images,
            labels,
            class_masks,
            LossWeights(entropy_scale=scale),
        )
        for scale in ("paper", "undivided")
    )
    assert_close(undivided.terms["entropy"], 3 * paper.terms["entropy"])


@pytest.mark.parametrize(("a", "b"), [(0.4, 0.3), (-0.1, 0.3), (0.1, 1.1)])
def test_impossible_bounds_are_refused(a: float, b: float) -> None:
    with pytest.raises(ValueError, match="0 <= a <= b <= 1"):
        LossWeights(a=a, b=b)
    of_images = torch.tensor([0.05, a]), torch.tensor([0.3, b])
    with pytest.raises(ValueError, match="0 <= a <= b <= 1"):
        LossWeights(a=of_images[0], b=of_images[1])
