"""Episodic memory: tables of keys and values, looked up by the nearest keys."""

from memrl_jax.episodic.kernel import kernel_mean, plain_mean
from memrl_jax.episodic.tables import (
    Neighbours,
    Tables,
    adjust,
    empty,
    find,
    nearest,
    squared_distance,
    touch,
    write,
)

__all__ = ["Neighbours", "Tables", "adjust", "empty", "find", "kernel_mean", "nearest"]
__all__ += ["plain_mean", "squared_distance", "touch", "write"]
