"""Estimates of a query's value from its neighbours."""

import jax.numpy as jnp

from memrl_jax.types import Array

DELTA = 1e-3


def kernel_mean(distance: Array, values: Array, found: Array, delta: float = DELTA) -> Array:
    """Return the mean of `values` [..., K], weighted by 1 / (distance + delta), where `found`.

    `distance` [..., K] is squared. The mean [...] is 0 where nothing is found.
    Pritzel et al. (2017), equations 2 and 5; the default `delta` is theirs.
    """
    # Select before dividing: entries not found are infinitely far, and 0 * NaN is NaN.
    weight = jnp.where(found, 1 / (jnp.where(found, distance, 0.0) + delta), 0.0)
    return _mean(weight, jnp.where(found, values, 0.0))


def plain_mean(values: Array, found: Array) -> Array:
    """Return the mean of `values` [..., K] where `found`, and 0 where nothing is: [...]."""
    return _mean(found.astype(values.dtype), jnp.where(found, values, 0.0))


def _mean(weight: Array, values: Array) -> Array:
    total = weight.sum(axis=-1)
    return jnp.sum(weight * values, axis=-1) / jnp.where(total > 0, total, 1.0)
