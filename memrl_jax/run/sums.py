"""Sums over more steps than an int32 or a float32 can hold: each is kept in two parts.

Integer sums carry over into `high` and are exact up to 2^62. In float sums, `low` is the rounding
error of `high`, so that small terms are not lost in a large sum (Knuth 1997, section 4.2.2,
theorem B).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import tree
from memrl_jax.types import Array

CARRY = 2**31  # the value of 1 in `high`, in integer sums


class Sum(NamedTuple):
    """One sum [...], of float32 terms or of int32 terms that are not negative."""

    high: Array
    low: Array


Sums = dict[str, Sum]


def zeros(metrics: Mapping[str, Any]) -> Sums:
    """Return sums of no terms; only the shapes and dtypes of `metrics` matter."""
    return {k: Sum(*(jnp.zeros(x.shape, x.dtype) for _ in Sum._fields)) for k, x in metrics.items()}


def add(sums: Sums, metrics: Mapping[str, Array]) -> Sums:
    """Add the metrics [] of one step.

    Once a sum is NaN or infinite, all of them stay as they are: the first bad step can be told.
    """
    still = jnp.all(jnp.array([jnp.isfinite(x.high) for x in sums.values()]))
    return tree.where(still, {name: _add(x, metrics[name]) for name, x in sums.items()}, sums)


def _add(total: Sum, x: Array) -> Sum:
    if jnp.issubdtype(x.dtype, jnp.integer):
        low = total.low + x  # below 0 where it has wrapped around
        return Sum(total.high + (low < 0), low & (CARRY - 1))
    near = total.high + x
    taken = near - total.high
    low = total.low + (total.high - (near - taken)) + (x - taken)
    high = jnp.where(jnp.isfinite(near), near + low, near)  # infinite stays infinite
    return Sum(high, low - (high - near))


def totals(sums: Sums) -> dict[str, np.ndarray]:
    """Fetch sums [...] as NumPy arrays of int64 or float64."""
    return {name: _total(*x) for name, x in jax.device_get(sums).items()}


def _total(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    if np.issubdtype(high.dtype, np.integer):
        return np.int64(CARRY) * high + low
    return np.where(np.isfinite(high), np.add(high, low, dtype=np.float64), high)
