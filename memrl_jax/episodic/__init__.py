"""Episodic memory: tables of keys and values, nearest-neighbour lookup, and delayed returns."""

from memrl_jax.episodic.history import Acted, Lookup, begin, completed, forget, join, remember
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

__all__ = ["Acted", "Lookup", "Neighbours", "Tables", "adjust", "begin", "completed", "empty"]
__all__ += ["find", "forget", "join", "kernel_mean", "nearest", "plain_mean", "remember"]
__all__ += ["squared_distance", "touch", "write"]
