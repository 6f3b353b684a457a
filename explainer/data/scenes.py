"""Procedural scenes: shapes over textures, with exact masks.

Eight classes differ by *shape alone*: colour, texture, size, position and
rotation are drawn in the same way for all of them. Scenes are the built-in
data of the book: nothing to download, and the class of every pixel is known.

Two design decisions matter for explaining a classifier of these scenes:

- Objects are scaled to a random *area*, so size does not reveal the class.
- Some backgrounds have *holes*: silhouettes of the classes in flat mid-grey,
  the colour that masking fills in. They are background. Without them the
  classifier could recognise a star by the grey hole that remains when a mask
  removes the star.

Every pixel depends on the seed alone: random numbers come from NumPy's frozen
legacy stream, and the arithmetic uses only operations that IEEE 754 rounds
the same way everywhere.
"""

import io
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from explainer.data.base import DataError, Sample, labels_in
from explainer.data.shapes import CLASSES, SHAPES, UNIT_AREA, Array
from explainer.errors import Registry, UnknownNameError
from explainer.files import DiskError, cache_folder, write_atomically

VERSION = 1
"""Part of the cache's file name: raise it when any pixel changes."""

SPLITS = Registry(
    "split of scenes",
    {"train": (0, 12000), "val": (1, 500), "test": (2, 500)},
)
"""The number of each split's range of seeds, and its number of scenes."""
GREY = 0.5
MIN_VISIBLE = 0.8
SUPERSAMPLING = 2


@dataclass(frozen=True)
class Shortcut:
    """A marker on the background that predicts a class.

    The marker is a small chequered square, ``size`` pixels wide. An image of
    ``class_name`` has it with probability ``q``, an image without the class
    with probability ``leak``. If the marker ``decides``, the label of the
    class says whether the marker is there, not the object. The mask still
    shows the objects.

    Raises UnknownNameError for an unknown class, and DataError if ``q`` or
    ``leak`` is not a probability.
    """

    class_name: str
    q: float = 0.9
    leak: float = 0.0
    size: int = 6
    decides: bool = False

    def __post_init__(self) -> None:
        """Raise for an unknown class or a number that is no probability."""
        if self.class_name not in CLASSES:
            raise UnknownNameError(
                "class of scenes", self.class_name, CLASSES
            )
        if not (0 <= self.q <= 1 and 0 <= self.leak <= 1):
            raise DataError("q and leak are probabilities in [0, 1]")


def _colour(rng: np.random.RandomState) -> Array:
    return rng.random_sample(3)


def _contrasting_colour(rng: np.random.RandomState, other: Array) -> Array:
    """Return a colour that differs from ``other`` and from the grey fill."""
    while True:
        colour = _colour(rng)
        if (
            np.abs(colour - other).sum() > 0.7
            and np.abs(colour - GREY).sum() > 0.5
        ):
            return colour


def _direction(rng: np.random.RandomState) -> tuple[float, float]:
    """Return the cosine and sine of a random whole number of degrees."""
    angle = np.pi * rng.randint(360) / 180
    return round(float(np.cos(angle)), 9), round(float(np.sin(angle)), 9)


def _pattern(rng: np.random.RandomState, y: Array, x: Array) -> Array:
    """Return a random texture in [0, 1] at coordinates in pixels."""
    kind = rng.randint(5)
    c, s = _direction(rng)
    period = 4 + 8 * rng.random_sample()
    p, q = (c * x + s * y) / period, (c * y - s * x) / period
    if kind == 0:  # flat
        return np.zeros_like(p)
    if kind == 1:  # stripes
        return np.floor(p) % 2
    if kind == 2:  # chequers
        return (np.floor(p) + np.floor(q)) % 2
    if kind == 3:  # dots
        a, b = p - np.floor(p) - 0.5, q - np.floor(q) - 0.5
        return (a * a + b * b < 0.09).astype(float)
    gradient: Array = np.abs(p / 4 - 2 * np.floor(p / 8 + 0.5))
    return gradient


def _smooth_noise(rng: np.random.RandomState, size: int) -> Array:
    """Return ``(size, size, 3)`` noise: 6 x 6 random colours, bilinear."""
    knots = rng.random_sample((6, 6, 3))
    position = np.arange(size) * 5.0 / size
    low = np.floor(position).astype(int)
    t = (position - low)[:, None, None]
    rows = knots[low] * (1 - t) + knots[low + 1] * t
    t = t.transpose(1, 0, 2)
    noise: Array = rows[:, low] * (1 - t) + rows[:, low + 1] * t
    return noise


def _textured(
    rng: np.random.RandomState, pattern: Array, colour: Array
) -> Array:
    """Return a pattern of two colours, ``colour`` and a similar one."""
    second = np.clip(colour + 0.5 * (_colour(rng) - 0.5), 0, 1)
    textured: Array = colour + pattern[..., None] * (second - colour)
    return textured


def _coverage(
    rng: np.random.RandomState, name: str, area: float, size: int
) -> Array:
    """Return the coverage ``(size, size)`` of a shape at a random place."""
    k = SUPERSAMPLING
    axis = (np.arange(k * size) + 0.5) / k
    cy, cx = size * (0.08 + 0.84 * rng.random_sample(2))
    c, s = _direction(rng)
    scale = np.sqrt(area * size * size / UNIT_AREA[name])
    y, x = (axis - cy)[:, None] / scale, (axis - cx)[None, :] / scale
    inside = np.zeros((k * size, k * size))
    # Only the bounding box is tested; every shape has a radius below 1.2.
    rows, cols = np.abs(y[:, 0]) < 1.2, np.abs(x[0]) < 1.2
    y, x = y[rows], x[:, cols]
    inside[np.ix_(rows, cols)] = SHAPES[name](c * x + s * y, c * y - s * x)
    coverage: Array = inside.reshape(size, k, size, k).mean((1, 3))
    return coverage


def _background(rng: np.random.RandomState, size: int) -> Array:
    """Return a textured background, in some scenes with grey holes."""
    y, x = np.meshgrid(
        np.arange(size) + 0.5, np.arange(size) + 0.5, indexing="ij"
    )
    base = _colour(rng)
    image = _textured(rng, _pattern(rng, y, x), base)
    blend = 0.4 * rng.random_sample()
    image = image + blend * (_smooth_noise(rng, size) - image)
    for _ in range(rng.randint(2)):
        name = CLASSES[rng.randint(len(CLASSES))]
        area = 0.02 + 0.18 * rng.random_sample()
        alpha = _coverage(rng, name, area, size)[..., None]
        image = image + alpha * (GREY - image)
    return image


def draw_scene(
    seed: int, size: int = 64
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the image and the mask of one scene.

    Parameters
    ----------
    seed:
        Any number below 2**32; every pixel depends on it alone.
    size:
        Height and width in pixels.

    Returns
    -------
    image, mask
        ``(size, size, 3)`` and ``(size, size)`` uint8; the mask holds 0 for
        background and ``c + 1`` where an object of class c is in front.
    """
    rng = np.random.RandomState(seed)
    image = _background(rng, size)
    mean_colour = image.mean((0, 1))
    y, x = np.meshgrid(
        np.arange(size) + 0.5, np.arange(size) + 0.5, indexing="ij"
    )
    owner = np.zeros((size, size), np.int64)  # 0, or 1 + the object's index
    names: list[str] = []
    shown: list[int] = []
    for _ in range(1 + rng.randint(3)):
        name = CLASSES[rng.randint(len(CLASSES))]
        area = 0.08 + 0.1 * rng.random_sample()
        colour = _contrasting_colour(rng, mean_colour)
        texture = _textured(rng, _pattern(rng, y, x), colour)
        for _ in range(8):  # a place where enough of everything stays visible
            alpha = _coverage(rng, name, area, size)
            trial = np.where(alpha >= 0.5, len(names) + 1, owner)
            visible = np.bincount(trial.ravel(), minlength=len(names) + 2)[1:]
            wanted = [*shown, round(area * size * size)]
            if all(
                n >= MIN_VISIBLE * w
                for n, w in zip(visible, wanted, strict=True)
            ):
                image = image + alpha[..., None] * (texture - image)
                owner, names, shown = trial, [*names, name], wanted
                break
    image = image + 0.08 * (rng.random_sample(image.shape) - 0.5)
    class_id = np.array([0, *(CLASSES.index(n) + 1 for n in names)])
    pixels = np.floor(255 * np.clip(image, 0, 1) + 0.5)
    return pixels.astype(np.uint8), class_id[owner].astype(np.uint8)


def _marker(
    seed: int, mask: NDArray[np.uint8], shortcut: Shortcut
) -> NDArray[np.bool_]:
    """Return the marker's pixels of a scene, ``(H, W)``, or all False."""
    # A stream of its own: the scene is the same with and without a marker.
    rng = np.random.RandomState([seed, 7])
    has_class = (mask == CLASSES.index(shortcut.class_name) + 1).any()
    where = np.zeros(mask.shape, bool)
    if rng.random_sample() >= (shortcut.q if has_class else shortcut.leak):
        return where
    k = shortcut.size
    for _ in range(200):
        top, left = rng.randint(1, mask.shape[0] - k, 2)
        if not mask[top : top + k, left : left + k].any():
            where[top : top + k, left : left + k] = True
            break
    return where


def _stamp(
    image: NDArray[np.uint8], marker: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return an image with a magenta and white chequer at the marker."""
    rows, cols = np.indices(marker.shape)
    white = (rows // 2 + cols // 2) % 2 == 0
    chequer = np.where(white[..., None], 255, np.array([255, 0, 255]))
    return np.where(marker[..., None], chequer, image).astype(np.uint8)


class Scenes:
    """A split of procedural scenes, generated once and cached.

    Parameters
    ----------
    split:
        "train", "val" or "test"; their seeds never overlap.
    n:
        Number of scenes; by default 12,000 for training and 500 otherwise.
        The first scenes are the same for every n.
    size:
        Height and width in pixels.
    seed:
        Another seed gives other scenes of the same distribution.
    shortcut:
        Add a :class:`Shortcut`; ``marker(i)`` then returns its pixels.

    Raises
    ------
    UnknownNameError
        For an unknown split.
    DataError
        For a number of scenes or a seed out of range, and if the cache
        cannot be written or read.
    """

    def __init__(
        self,
        split: str = "test",
        n: int | None = None,
        *,
        size: int = 64,
        seed: int = 0,
        shortcut: Shortcut | None = None,
    ) -> None:
        self.classes = CLASSES
        self.split, self.size, self.seed = split, size, seed
        self.shortcut = shortcut
        place, length = SPLITS[split]
        self._n = length if n is None else n
        if not 1 <= self._n <= 10_000_000 or not 0 <= seed <= 142:
            raise DataError(
                "scenes come 1 to 10,000,000 a split, with a seed of 0 to "
                f"142, not {self._n} with seed {seed}"
            )
        # Ten million seeds per split, so that splits never overlap.
        self._first_seed = 30_000_000 * seed + 10_000_000 * place
        self._images, self._masks = self._load()

    def _load(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        name = f"scenes-v{VERSION}-{self.size}-{self._first_seed}-{self._n}"
        path = cache_folder() / f"{name}.npz"
        if not path.exists():
            scenes = [
                draw_scene(self._first_seed + i, self.size)
                for i in range(self._n)
            ]
            images, masks = zip(*scenes, strict=True)
            content = io.BytesIO()
            np.savez(content, images=np.stack(images), masks=np.stack(masks))
            try:
                write_atomically(path, content.getvalue())
            except DiskError as error:
                raise DataError(
                    f"{error} with the environment variable EXPLAINER_CACHE"
                ) from error
        try:
            with np.load(path, allow_pickle=False) as file:
                return file["images"], file["masks"]
        except Exception as error:
            raise DataError(
                f"{path} cannot be read; delete it, it will be drawn again"
            ) from error

    @property
    def labels(self) -> torch.Tensor:
        """The labels of all scenes, ``(N, C)``, without drawing any."""
        masks = torch.from_numpy(self._masks)
        present = [
            (masks == c + 1).flatten(1).any(1)
            for c in range(len(self.classes))
        ]
        labels = torch.stack(present, 1).float()
        if self.shortcut is not None and self.shortcut.decides:
            marked = [float(self._marker(i).any()) for i in range(len(self))]
            labels[:, self._cheat] = torch.tensor(marked)
        return labels

    def __len__(self) -> int:
        """Return the number of scenes."""
        return self._n

    def __getitem__(self, index: int) -> Sample:
        """Return scene ``index`` with exact labels and mask."""
        pixels = self._images[index]
        mask = torch.from_numpy(self._masks[index].astype(np.int64))
        labels = labels_in(mask, len(self.classes))
        if self.shortcut is not None:
            marker = self._marker(index)
            pixels = _stamp(pixels, marker)
            if self.shortcut.decides:
                labels[self._cheat] = float(marker.any())
        return Sample(
            image=torch.from_numpy(pixels).permute(2, 0, 1).float() / 255,
            labels=labels,
            mask=mask,
            name=f"{self.split}-{index:05d}",
        )

    @property
    def _cheat(self) -> int:
        """Return the index of the shortcut's class."""
        assert self.shortcut is not None
        return self.classes.index(self.shortcut.class_name)

    def _marker(self, index: int) -> NDArray[np.bool_]:
        index = range(self._n)[index]
        assert self.shortcut is not None
        return _marker(
            self._first_seed + index, self._masks[index], self.shortcut
        )

    def marker(self, index: int) -> torch.Tensor:
        """Return the marker's pixels, ``(H, W)`` bool (all False if none)."""
        if self.shortcut is None:
            return torch.zeros(self.size, self.size, dtype=torch.bool)
        return torch.from_numpy(self._marker(index))
