"""Estimates over few seeds, with intervals that say how far to trust them; in float64."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Statistic = Callable[..., Floats]  # x, axis -> x without that axis

_BLOCK = 2**22  # values resampled at a time; bounds the memory of a bootstrap to some 100 MB


class Interval(NamedTuple):
    """A statistic and the ends of its interval, each [...] like one seed's values."""

    estimate: Floats
    low: Floats
    high: Floats


def iqm(x: ArrayLike, axis: int = 0) -> Floats:
    """Interquartile mean: the mean of the middle half of the values along `axis`.

    The quartiles cut at exactly n/4 and 3n/4 of the n sorted values, so a value they cut
    through counts in proportion: [1, 2, 9] weighs 1/6, 2/3, 1/6. (A trimmed mean of 25 %
    that rounds the cuts to whole values agrees where n is a multiple of 4.) Raises
    ValueError when there is no value or one is not finite. Agarwal et al. (2021), section 4.3.
    """
    x = np.moveaxis(_finite(x), axis, -1)
    n = x.shape[-1]
    cuts = np.clip(np.arange(n + 1), n / 4, 3 * n / 4)
    weights = np.diff(cuts) / (n / 2)
    x = np.sort(x)[..., n // 4 : n - n // 4]
    mean = x @ weights[n // 4 : n - n // 4]
    return np.clip(mean, x[..., 0], x[..., -1])  # rounding must not leave the averaged range


def bootstrap(
    x: ArrayLike,
    statistic: Statistic = iqm,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of `statistic(x, axis=0)` over the seeds of x [seeds, ...].

    Seeds are resampled whole: along a curve [seeds, points], all points share the resamples.
    The interval of one seed is the estimate itself. Few seeds give too narrow an interval: on
    normal data, 95 % ones of the IQM cover 74 % of the time with 3 seeds, 89 % with 5 and
    94 % with 8 or more. Raises ValueError when a value is not finite or `level` is not
    inside (0, 1). Efron (1979).
    """
    return stratified(np.expand_dims(x, 0), statistic, level, resamples, seed)


def stratified(
    x: ArrayLike,
    statistic: Statistic = iqm,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Stratified bootstrap of `statistic` over all runs of x [tasks, seeds, ...].

    Seeds are resampled within each task, independently of the other tasks; the statistic
    then aggregates all tasks x seeds values. Bring the tasks to one scale first. Raises like
    `bootstrap`. Agarwal et al. (2021), section 4.1.
    """
    x = _finite(x)
    _check(x, level, resamples)
    tasks, seeds, *rest = x.shape
    rows = np.arange(tasks)[:, None]
    indices = np.random.default_rng(seed).integers(seeds, size=(resamples, tasks, seeds))

    def aggregate(index: NDArray[np.int64]) -> Floats:
        runs = x[rows, index].reshape(len(index), tasks * seeds, *rest)
        return statistic(runs, axis=1)

    blocks = np.array_split(indices, min(resamples, 1 + resamples * x.size // _BLOCK))
    samples = np.concatenate([aggregate(block) for block in blocks])
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Interval(statistic(x.reshape(tasks * seeds, *rest), axis=0), low, high)


def carry_forward(values: ArrayLike) -> Floats:
    """Replace every NaN of values [seeds, points] by the seed's latest value before it.

    A seed's leading NaNs remain, as nothing precedes them.
    """
    values = np.asarray(values, np.float64)
    points = np.arange(values.shape[1])
    latest = np.maximum.accumulate(np.where(np.isnan(values), 0, points), axis=1)
    return np.take_along_axis(values, latest, axis=1)


def _finite(x: ArrayLike) -> Floats:
    x = np.asarray(x, np.float64)
    if x.size == 0:
        raise ValueError(f"x: shape {x.shape} holds no value")
    if bad := x.size - np.count_nonzero(np.isfinite(x)):
        raise ValueError(f"x: {bad} of {x.size} values are NaN or infinite")
    return x


def _check(x: Floats, level: Any, resamples: Any) -> None:
    if x.ndim < 2:
        raise ValueError(f"x: shape {x.shape} has no axis of seeds")
    if not 0 < level < 1:
        raise ValueError(f"level: {level} is not inside (0, 1)")
    if resamples < 1:
        raise ValueError(f"resamples: {resamples} is below 1")
