"""The eight shapes of the scenes, each a function of coordinates.

A shape takes two arrays of coordinates, in units of its own scale, and
returns which points lie inside. No point further than 1.2 from the centre
is inside.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Inside = NDArray[np.bool_]


def _half_planes(u: Array, v: Array, n: int, distance: float) -> Array:
    """Return for how many of n regular lines each point is on the inside."""
    count = np.zeros_like(u)
    for k in range(n):
        angle = 2 * np.pi * k / n
        # Rounded: the last bit of sine and cosine may differ by machine.
        c, s = round(float(np.cos(angle)), 9), round(float(np.sin(angle)), 9)
        count += (c * u + s * v) <= distance
    return count


def _disc(u: Array, v: Array) -> Inside:
    return u * u + v * v <= 1


def _ring(u: Array, v: Array) -> Inside:
    r2 = u * u + v * v
    return (r2 <= 1) & (r2 >= 0.3)


def _square(u: Array, v: Array) -> Inside:
    inside: Inside = np.maximum(np.abs(u), np.abs(v)) <= 0.8
    return inside


def _triangle(u: Array, v: Array) -> Inside:
    inside: Inside = _half_planes(u, v, 3, 0.5) == 3
    return inside


def _star(u: Array, v: Array) -> Inside:
    # A pentagram: the tips are outside of exactly one of its five lines.
    inside: Inside = _half_planes(u, v, 5, 0.34) >= 4
    return inside


def _cross(u: Array, v: Array) -> Inside:
    a, b = np.abs(u), np.abs(v)
    return (np.minimum(a, b) <= 0.28) & (np.maximum(a, b) <= 0.95)


def _hourglass(u: Array, v: Array) -> Inside:
    a, b = np.abs(u), np.abs(v)
    return (a <= b + 0.1) & (b <= 0.85)


def _crescent(u: Array, v: Array) -> Inside:
    w = u - 0.55
    return (u * u + v * v <= 1) & (w * w + v * v >= 0.64)


SHAPES: dict[str, Callable[[Array, Array], Inside]] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "hourglass": _hourglass,
    "crescent": _crescent,
}
CLASSES = tuple(SHAPES)


def _unit_areas() -> dict[str, float]:
    """Return each shape's area at scale 1, from 400 x 400 points."""
    axis = (np.arange(400) + 0.5) / 400 * 2.4 - 1.2
    v, u = np.meshgrid(axis, axis, indexing="ij")
    return {k: float(f(u, v).mean()) * 2.4**2 for k, f in SHAPES.items()}


UNIT_AREA = _unit_areas()
"""The area of each shape at scale 1, where its radius is about 1."""
