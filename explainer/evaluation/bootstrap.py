"""Bootstrap intervals: how far a mean could move with other images.

Efron, *Bootstrap methods: another look at the jackknife*, Annals of
Statistics 1979; percentile intervals.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000


@lru_cache(maxsize=8)
def _resampling(n: int, seed: int) -> NDArray[np.float64]:
    """Return how much each of n images counts in each resample."""
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return draws / n


def mean_interval(
    values: ArrayLike, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Return the percentile interval of the mean of ``values`` ``(N,)``.

    Images are drawn with replacement :data:`RESAMPLES` times. For a *paired*
    comparison pass the differences, image by image. The interval tells of
    other images, not of another training run or another draw of a method's
    random masks. Raises ValueError for no values or NaN.
    """
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or not len(x) or np.isnan(x).any():
        raise ValueError("an interval needs a list of numbers without NaN")
    # Centred, so that equal values give an interval of no width.
    means = x[0] + _resampling(len(x), seed) @ (x - x[0])
    tail = (1 - level) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)
