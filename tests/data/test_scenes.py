"""Scenes: the same pixels everywhere, and no way to cheat."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from explainer.data import Scenes, Shortcut
from explainer.data.scenes import draw_scene
from explainer.data.shapes import CLASSES, SHAPES

GOLDEN = {
    # (seed, size): SHA-256 of the image's bytes and then the mask's. A
    # change here changes the data: raise scenes.VERSION along with it.
    (0, 64): "2b3cd576b878d965b62a836ba1c53dea"
    "db97656c258a1f3046b851f9de0cab49",
    (1, 64): "f72be774f55ab2766f0558c3d11cff9d"
    "48d15e8cf35885e58adcccc6c2dc8761",
    (12345, 64): "d999e7dc772c3b8d6249eda17aee77b4"
    "1a2478278bfa88a0f44adbdc94ed4aa6",
    (4294967295, 64): "b7ca314a4943f54c8b8fc0aab9cc16e9"
    "05641bfccedcc32abff11fc80bb7ecc1",
    (7, 96): "20013fbe9234978760b229101357fd89"
    "5dcf45ffda93902d759b0749af939f55",
}


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes("train", 1600)


@pytest.fixture(scope="module")
def masks(scenes: Scenes) -> torch.Tensor:
    return torch.stack([s.mask for s in scenes if s.mask is not None])


@pytest.fixture(scope="module")
def colours(scenes: Scenes) -> NDArray[np.float64]:
    """Colour histograms, 8 bins a channel and 64 of all three jointly."""
    features = []
    for scene in scenes:
        pixels = (255 * scene.image).long().flatten(1)  # 3, H W
        single = [torch.bincount(c // 32, minlength=8) for c in pixels]
        joint = torch.tensor([16, 4, 1]) @ (pixels // 64)
        features.append(
            torch.cat([*single, torch.bincount(joint, minlength=64)])
        )
    x = torch.stack(features).double()
    x = (x - x.mean(0)) / (x.std(0) + 1e-6)
    return torch.cat([x, torch.ones(len(x), 1)], 1).numpy()


def fitted_scores(
    x: NDArray[np.float64], y: NDArray[np.float64], n: int
) -> NDArray[np.float64]:
    """Ridge regression on the first n rows; its scores on the others."""
    a, ridge = x[:n], 50 * np.eye(x.shape[1])
    return x[n:] @ np.linalg.solve(a.T @ a + ridge, a.T @ y[:n])


def average_precision(
    scores: NDArray[np.float64], y: NDArray[np.float64]
) -> float:
    y = y[np.argsort(-scores)]
    precision = np.cumsum(y) / np.arange(1, len(y) + 1)
    return float((precision * y).sum() / y.sum())


@pytest.mark.parametrize(("seed", "size"), GOLDEN)
def test_the_same_pixels_on_every_machine(seed: int, size: int) -> None:
    image, mask = draw_scene(seed, size)
    digest = hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest()
    assert digest == GOLDEN[seed, size]


def test_global_random_state_is_neither_read_nor_changed() -> None:
    state = np.random.get_state()  # noqa: NPY002
    before = draw_scene(3)[0]
    np.random.random_sample(5)  # noqa: NPY002
    assert np.array_equal(draw_scene(3)[0], before)
    np.random.set_state(state)  # noqa: NPY002
    wanted = np.random.random_sample()  # noqa: NPY002
    np.random.set_state(state)  # noqa: NPY002
    draw_scene(3)
    assert np.random.random_sample() == wanted  # noqa: NPY002


def test_eight_classes_of_different_shapes() -> None:
    assert len(CLASSES) == len(set(CLASSES)) >= 8
    axis = np.linspace(-1.2, 1.2, 100)
    v, u = np.meshgrid(axis, axis, indexing="ij")
    drawn = [shape(u, v) for shape in SHAPES.values()]
    for i, a in enumerate(drawn):
        for b in drawn[:i]:
            assert (a & b).sum() / (a | b).sum() < 0.9


def test_a_sample_keeps_the_contract(scenes: Scenes) -> None:
    image, labels, mask, name = scenes[5]
    assert image.shape == (3, 64, 64)
    assert image.dtype == labels.dtype == torch.float32
    assert 0 <= image.min() < image.max() <= 1
    assert mask is not None
    assert mask.shape == (64, 64)
    assert mask.dtype == torch.int64
    present = set(mask.unique().tolist()) - {0}
    assert present == {c + 1 for c in range(8) if labels[c]}
    assert name == "train-00005"


def test_one_to_three_objects(scenes: Scenes) -> None:
    classes = scenes.labels.sum(1)
    assert classes.min() == 1
    assert classes.max() == 3
    assert len(classes.unique()) == 3


def test_labels_of_all_are_those_of_each(scenes: Scenes) -> None:
    each = torch.stack([scenes[i].labels for i in range(50)])
    assert torch.equal(scenes.labels[:50], each)
    # Every class comes about as often as any other.
    assert scenes.labels.mean(0).min() > 0.18
    assert scenes.labels.mean(0).max() < 0.28


def test_objects_cover_15_to_30_percent(masks: torch.Tensor) -> None:
    covered = (masks > 0).float().mean()
    assert 0.15 <= covered <= 0.30


def test_a_centred_ellipse_is_a_poor_mask(masks: torch.Tensor) -> None:
    axis = (torch.arange(64) + 0.5) / 32 - 1
    radius2 = (axis[:, None] / 0.75) ** 2 + (axis / 0.75) ** 2
    ellipse, objects = radius2 <= 1, masks > 0
    both = (ellipse & objects).sum((1, 2))
    either = (ellipse | objects).sum((1, 2))
    assert (both / either).mean() <= 0.30


def test_colour_does_not_tell_the_labels(
    scenes: Scenes, colours: NDArray[np.float64]
) -> None:
    # Colours may tell a little about how many objects there are, and with
    # it about every label alike: hence the slack over the prevalence.
    y = scenes.labels.double().numpy()
    scores = fitted_scores(colours, y - y.mean(0), 1000)
    y = y[1000:]
    ap = [average_precision(scores[:, c], y[:, c]) for c in range(8)]
    assert np.mean(ap) < y.mean() + 0.06


def test_colour_does_not_tell_the_class_of_one_object(
    scenes: Scenes, colours: NDArray[np.float64]
) -> None:
    alone = (scenes.labels.sum(1) == 1).numpy()
    y = scenes.labels.double().numpy()[alone]
    n = int(0.6 * len(y))
    scores = fitted_scores(colours[alone], y - y.mean(0), n)
    accuracy = (scores.argmax(1) == y[n:].argmax(1)).mean()
    assert accuracy < 1 / 8 + 0.06


def test_size_does_not_tell_the_class(masks: torch.Tensor) -> None:
    for c in range(8):
        area = (masks == c + 1).float().mean((1, 2))
        assert 0.10 < area[area > 0].mean() < 0.14


def test_splits_and_seeds_differ() -> None:
    scenes = [
        Scenes("train", 2),
        Scenes("val", 2),
        Scenes("test", 2),
        Scenes("test", 2, seed=1),
    ]
    images = torch.stack([s[i].image for s in scenes for i in range(2)])
    assert len(images.flatten(1).unique(dim=0)) == 8


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0])
def test_the_shortcut_comes_with_probability_q(q: float) -> None:
    scenes = Scenes("train", 1600, shortcut=Shortcut("star", q=q))
    star = scenes.labels[:, CLASSES.index("star")] > 0
    marked = torch.stack([scenes.marker(i).any() for i in range(1600)])
    assert not marked[~star].any()
    # About 360 stars: three standard errors at q = 0.5 are 0.08; a rare
    # crowded scene has no room for its marker.
    assert abs(marked[star].float().mean() - q) < 0.08


def test_the_shortcut_leaks_to_other_images() -> None:
    scenes = Scenes("train", 400, shortcut=Shortcut("star", q=1, leak=0.5))
    star = scenes.labels[:, CLASSES.index("star")] > 0
    marked = torch.stack([scenes.marker(i).any() for i in range(400)])
    assert 0.4 < marked[~star].float().mean() < 0.6


def test_the_shortcut_changes_the_background_and_nothing_else() -> None:
    plain = Scenes("test", 60)
    planted = Scenes("test", 60, shortcut=Shortcut("disc", q=1, size=5))
    seen = 0
    for i in range(60):
        where = planted.marker(i)
        assert not plain.marker(i).any()
        assert where.sum() in (0, 25)
        seen += bool(where.any())
        a, b = plain[i], planted[i]
        assert a.mask is not None
        assert b.mask is not None
        assert torch.equal(a.mask, b.mask)
        assert torch.equal(a.labels, b.labels)
        assert not a.mask[where].any()
        assert torch.equal(a.image[:, ~where], b.image[:, ~where])
        # Magenta and white: red and blue are full, green is 0 or 1.
        red, green, blue = b.image[:, where]
        assert (red == 1).all()
        assert (blue == 1).all()
        assert set(green.tolist()) <= {0.0, 1.0}
    assert seen >= 5


def test_a_shortcut_that_decides_is_the_label() -> None:
    shortcut = Shortcut("star", q=0.5, leak=0.1, size=10, decides=True)
    plain, planted = Scenes("val", 80), Scenes("val", 80, shortcut=shortcut)
    star = CLASSES.index("star")
    others = [c for c in range(len(CLASSES)) if c != star]
    marked = [float(planted.marker(i).any()) for i in range(80)]
    assert planted.labels[:, star].tolist() == marked
    assert 0 < sum(marked) < 80
    assert marked != plain.labels[:, star].tolist()
    assert torch.equal(planted.labels[:, others], plain.labels[:, others])
    for i in range(80):
        sample = planted[i]
        assert torch.equal(sample.labels, planted.labels[i])
        assert sample.mask is not None
        assert torch.equal(sample.mask, plain[i].mask)


def test_a_wrong_shortcut_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"class of scenes 'dog'.*disc, ring"
    ):
        Shortcut("dog")
    with pytest.raises(ValueError, match="probabilities"):
        Shortcut("disc", q=1.5)


def test_unknown_split_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'dev'.*train, val, test"):
        Scenes("dev")


def test_scenes_are_drawn_once_and_then_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPLAINER_CACHE", str(tmp_path / "new"))
    first = Scenes("val", 3, size=32)
    (cached,) = (tmp_path / "new").iterdir()
    assert cached.suffix == ".npz"

    def refuse(*args: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr("explainer.data.scenes.draw_scene", refuse)
    second = Scenes("val", 3, size=32)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.image, b.image)
    with pytest.raises(AssertionError, match="drawn again"):
        Scenes("val", 4, size=32)  # another number is another file
