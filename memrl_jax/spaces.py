"""Observation and action spaces: pytrees of `Discrete` and `Continuous`."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax.types import Array


class Discrete(NamedTuple):
    """Integers 0 .. n - 1, int32: one, or an array of a `shape`, e.g. what is in each cell.

    Actions have no shape: several are a tuple.
    """

    n: int
    shape: tuple[int, ...] = ()

    def __repr__(self) -> str:
        shape = f", shape={self.shape}" if self.shape else ""
        return f"Discrete(n={self.n}{shape})"


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


def same(space: Any, other: Any) -> bool:
    """Tell whether two spaces have the same parts, with the same bounds."""
    ours, theirs = (dict(jax.tree_util.tree_leaves_with_path(x)) for x in (space, other))
    return ours.keys() == theirs.keys() and all(
        np.array_equal(x, theirs[path]) for path, x in ours.items()
    )


def discrete(space: Any) -> bool:
    """Tell whether all parts of a space are `Discrete`."""
    return all(isinstance(part, Discrete) for part in parts(space))


def dtype(part: Discrete | Continuous) -> Any:
    """Return the dtype of elements [...] of a part of a space."""
    return jnp.int32 if isinstance(part, Discrete) else part.dtype


def zeros(space: Any) -> Any:
    """Return the all-zero element of a space; of an action space, it stands for no action."""
    return over(lambda part: jnp.zeros(part.shape, dtype(part)), space)


def flat_index(space: Any, x: Any) -> Array:
    """Return the row-major index, int32 [...], of elements `x` of a space of discrete parts.

    Leaves of `x` are [..., *shape]; the last number of the last part varies fastest.
    """
    total = jnp.int32(0)
    for part, leaf in zip(parts(space), jax.tree.leaves(x), strict=True):
        batch = leaf.shape[: leaf.ndim - len(part.shape)]
        for number in jnp.moveaxis(leaf.reshape(*batch, -1), -1, 0):
            total = total * part.n + number.astype(jnp.int32)
    return total


def count(part: Discrete) -> int:
    """Return how many elements a discrete part has."""
    return part.n ** math.prod(part.shape)


def masked(x: Array, legal: Any) -> Array:
    """Return `x` [..., n], and -infinity where `legal` [..., n] is false; () masks nothing."""
    return x if isinstance(legal, tuple) else jnp.where(legal, x, -jnp.inf)
