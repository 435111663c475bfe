"""One agent in several shards: each acts in environments of its own, and all learn as one.

Shards run the same function at the same time, and are told apart by two named axes: DEVICES, and
SHARDS for those on one device. Outside of these axes the functions here return what they are given:
one shard is all there is.
"""

from typing import Any

import jax
import jax.numpy as jnp

from memrl_jax import draws
from memrl_jax.types import Array, Key

DEVICES, SHARDS = "devices", "shards"
AXES = DEVICES, SHARDS


def several() -> bool:
    """Tell whether what is traced now runs in shards."""
    try:
        jax.lax.axis_size(SHARDS)
    except NameError:  # no such axis here
        return False
    return True


def count() -> int:
    """Return the number of shards."""
    return jax.lax.axis_size(AXES) if several() else 1


def mean(xs: Any) -> Any:
    """Average every leaf [...] over the shards."""
    return jax.lax.pmean(xs, AXES) if several() else xs


def total(x: Array) -> Array:
    """Sum an array [...] over the shards."""
    return jax.lax.psum(x, AXES) if several() else x


def largest(x: Array) -> Array:
    """Return the largest of an array [...] over the shards, element by element."""
    return jax.lax.pmax(x, AXES) if several() else x


def smallest(x: Array) -> Array:
    """Return the smallest of an array [...] over the shards, element by element."""
    return jax.lax.pmin(x, AXES) if several() else x


def divisor(n: Array) -> Array:
    """Return what to divide a shard's sum over `n` [] things by, so that the mean over the shards
    of these quotients is that over all things; at least 1 of all counts.
    """
    return jnp.maximum(total(n), 1) / count() if several() else jnp.maximum(n, 1)


def part(x: Array) -> Array:
    """Return this shard's equal part of an array [n, ...] that all of them have."""
    if not several():
        return x
    size = len(x) // count()
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(AXES) * size, size)


def own(key: Key) -> Key:
    """Return a key [] that no other shard has, from one that all of them have."""
    return draws.fold_in(key, jax.lax.axis_index(AXES)) if several() else key
