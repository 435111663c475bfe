"""Sums over more steps than one number can follow: each is held in two parts.

Whole numbers carry over into `high`, exact up to 2^62. Of floats, `low` is what rounding took from
`high`, so that small terms are not lost on a large sum (Knuth 1997, section 4.2.2, theorem B).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import tree
from memrl_jax.types import Array

CARRY = 2**31  # what one of `high` is worth in whole numbers


class Sum(NamedTuple):
    """One sum: float32 or int32, and 0 or more if int32."""

    high: Array
    low: Array


Sums = dict[str, Sum]


def zeros(metrics: Mapping[str, Any]) -> Sums:
    """Begin the sums of metrics; only their shapes and dtypes matter."""
    return {k: Sum(*(jnp.zeros(x.shape, x.dtype) for _ in Sum._fields)) for k, x in metrics.items()}


def add(sums: Sums, metrics: Mapping[str, Array]) -> Sums:
    """Add the metrics [] of one step.

    Once a sum is NaN or infinite all of them stay as they are: what was first can then be told.
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
    """Fetch sums [...] as int64 and float64."""
    return {name: _total(*x) for name, x in jax.device_get(sums).items()}


def _total(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    if np.issubdtype(high.dtype, np.integer):
        return np.int64(CARRY) * high + low
    return np.where(np.isfinite(high), np.add(high, low, dtype=np.float64), high)
