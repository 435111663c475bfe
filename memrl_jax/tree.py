"""Small functions on pytrees."""

from typing import Any

import jax
import jax.numpy as jnp

from memrl_jax.types import Array


def where(condition: Array, x: Any, y: Any) -> Any:
    """Choose `x` where `condition` is true and `y` elsewhere, leaf by leaf.

    `condition` [*b] has the leading axes of every leaf [*b, ...].
    """

    def select(x: Array, y: Array) -> Array:
        extra = (1,) * (jnp.ndim(x) - condition.ndim)
        return jnp.where(condition.reshape(condition.shape + extra), x, y)

    return jax.tree.map(select, x, y)


def at(xs: Any, index: Any) -> Any:
    """Index the leading axes of every leaf: `x[index]`."""
    return jax.tree.map(lambda x: x[index], xs)


def take(x: Array, index: Any) -> Array:
    """Index the leading axes of an array [...] by integers in range, which is not checked."""
    return x.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


def append(xs: Any, x: Any) -> Any:
    """Add `x` [...] as the last element of `xs` [T, ...]: [T + 1, ...]."""
    return jax.tree.map(lambda xs, x: jnp.concatenate([xs, x[None]]), xs, x)


def total(xs: Any) -> Any:
    """Sum every leaf [T, ...] over its first axis, in its own dtype: [...]."""
    return jax.tree.map(lambda x: jnp.sum(x, axis=0, dtype=x.dtype), xs)


def cast(x: Any, like: Any) -> Any:
    """Cast every leaf of `x` to the dtype of its counterpart in `like`; none stays weakly typed."""
    return jax.tree.map(lambda x, like: jax.lax.convert_element_type(x, like.dtype), x, like)


def nbytes(tree: Any) -> int:
    """Count the bytes of all leaves; `tree` may hold shapes only."""
    sizes = jax.tree.map(lambda x: x.size * x.dtype.itemsize, tree)
    return sum(jax.tree.leaves(sizes))


def clone_keys(x: Any) -> Any:
    """Clone the PRNG keys among the leaves; other leaves are returned as they are.

    JAX's check of key reuse (`jax_debug_key_reuse`) counts a key as used once it is indexed.
    """

    def clone(x: Any) -> Any:
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.random.clone(x) if is_key else x

    return jax.tree.map(clone, x)


def count(x: Array, n: Any = 1) -> Array:
    """Add `n`, 0 or more, to int32 counts [...], which saturate at 2**31 - 1."""
    total = x + n
    return jnp.where(total < x, jnp.iinfo(jnp.int32).max, total)
