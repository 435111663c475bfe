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
from flax import struct

from memrl_jax import tree
from memrl_jax.types import Array

CARRY = 2**31  # the value of 1 in `high`, in integer sums


class Sum(NamedTuple):
    """Sums [..., n], of float32 terms or of int32 terms that are not negative."""

    high: Array
    low: Array


@struct.dataclass
class Sums:
    """Sums of several metrics, in few arrays: a loop that carries many small ones is slow."""

    integers: Sum  # [..., names]
    floats: Sum  # [..., names]
    names: tuple[tuple[str, ...], tuple[str, ...]] = struct.field(pytree_node=False)


def zeros(metrics: Mapping[str, Any]) -> Sums:
    """Return sums of no terms; only the names and dtypes of `metrics` [] matter."""
    whole = {k for k, x in metrics.items() if jnp.issubdtype(x.dtype, jnp.integer)}
    names = tuple(sorted(whole)), tuple(sorted(metrics.keys() - whole))
    kinds = zip(names, (jnp.int32, jnp.float32), strict=True)
    integers, floats = (Sum(*(jnp.zeros(len(k), dtype) for _ in Sum._fields)) for k, dtype in kinds)
    return Sums(integers, floats, names)


def add(sums: Sums, metrics: Mapping[str, Array]) -> Sums:
    """Add the metrics [] of one step.

    Once a sum is NaN or infinite, all of them stay as they are: the first bad step can be told.
    """
    integers, floats = (jnp.array([metrics[k] for k in names]) for names in sums.names)
    still = jnp.all(jnp.isfinite(sums.floats.high))
    added = Sums(_add(sums.integers, integers), _add(sums.floats, floats), sums.names)
    return tree.where(still, added, sums)


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
    """Fetch every sum [...], as NumPy arrays of int64 or float64."""
    parts = jax.device_get((sums.integers, sums.floats))
    pairs = zip(sums.names, parts, strict=True)
    return {k: x for names, part in pairs for k, x in zip(names, _each(part), strict=True)}


def _each(part: Any) -> np.ndarray:
    """Return totals of arrays [..., n] with the sums first: [n, ...]."""
    return np.moveaxis(_total(*part), -1, 0)


def _total(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    if np.issubdtype(high.dtype, np.integer):
        return np.int64(CARRY) * high + low
    return np.where(np.isfinite(high), np.add(high, low, dtype=np.float64), high)
