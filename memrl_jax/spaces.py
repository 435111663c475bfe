"""Observation and action spaces: pytrees of `Discrete` and `Continuous`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax.types import Array


class Discrete(NamedTuple):
    """Integers 0 .. n - 1, each an int32 scalar."""

    n: int


class Continuous(NamedTuple):
    """Arrays of one shape and dtype; `low` and `high` are the declared bounds."""

    shape: tuple[int, ...]
    dtype: Any
    low: Any
    high: Any


def is_part(x: Any) -> bool:
    """Tell whether `x` is one part of a space: a `Discrete` or a `Continuous`."""
    return isinstance(x, Discrete | Continuous)


def parts(space: Any) -> list[Any]:
    """Return the parts of a space in the order of its leaves."""
    return jax.tree.leaves(space, is_leaf=is_part)


def over(f: Callable[..., Any], space: Any, *rest: Any) -> Any:
    """Map `f(part, *leaves)` over the parts of a space and the matching leaves of `rest`."""
    return jax.tree.map(f, space, *rest, is_leaf=is_part)


def discrete(space: Any) -> bool:
    """Tell whether all parts of a space are `Discrete`."""
    return all(isinstance(part, Discrete) for part in parts(space))


def zeros(space: Any) -> Any:
    """Return the all-zero element of a space; of an action space, it stands for no action."""

    def zero(part: Any) -> Array:
        shape, dtype = ((), jnp.int32) if isinstance(part, Discrete) else part[:2]
        return jnp.zeros(shape, dtype)

    return over(zero, space)


def flat_index(space: Any, x: Any) -> Array:
    """Return the row-major index, int32 [...], of elements `x` of a space of discrete parts.

    Leaves of `x` are [...]; the last part varies fastest.
    """
    leaves = jax.tree.leaves(x)
    total = jnp.zeros_like(leaves[0], jnp.int32)
    for part, leaf in zip(parts(space), leaves, strict=True):
        total = total * part.n + leaf.astype(jnp.int32)
    return total


def masked(x: Array, legal: Any) -> Array:
    """Return `x` [..., n], and -infinity where `legal` [..., n] is false; () masks nothing."""
    return x if isinstance(legal, tuple) else jnp.where(legal, x, -jnp.inf)
