"""A sum tree: non-negative weights, and draws in proportion to them.

Entry i of a level is the sum of block i of the level below; the leaves are the weights. A sum is
computed anew from its block whenever something in it changes, not moved by the difference. So
rounding never adds up, and the same leaf may be written twice at once. Reading and writing N
leaves costs O(N radix log_radix(count)): wide blocks make few, wide steps, as accelerators like.
"""

import jax
import jax.numpy as jnp

from memrl_jax.types import Array

SumTree = tuple[Array, ...]  # levels from the leaves up, each [blocks, radix] float32


def init(count: int, radix: int) -> SumTree:
    """Make a tree of `count` leaves, all zero."""
    blocks = -(-count // radix)
    levels = [jnp.zeros((blocks, radix), jnp.float32)]
    while blocks > 1:
        blocks = -(-blocks // radix)
        levels.append(jnp.zeros((blocks, radix), jnp.float32))
    return tuple(levels)


def read(tree: SumTree, index: Array) -> Array:
    """Return the leaves at `index` [N]."""
    leaves = tree[0]
    radix = leaves.shape[1]
    return leaves.at[index // radix, index % radix].get(mode="promise_in_bounds")


def write(tree: SumTree, index: Array, weight: Array) -> SumTree:
    """Set the leaves at `index` [N], and all sums above them."""
    levels = []
    radix = tree[0].shape[1]
    for level in tree:
        block, place = index // radix, index % radix
        level = level.at[block, place].set(weight, mode="promise_in_bounds")
        levels.append(level)
        index = block
        weight = level.at[block].get(mode="promise_in_bounds").sum(axis=1)
    return tuple(levels)


def total(tree: SumTree) -> Array:
    """Return the sum of all leaves."""
    return tree[-1].sum()


def find(tree: SumTree, position: Array) -> Array:
    """Return the leaves [N] that cover `position` [N], laid end to end from 0 to the total.

    A leaf of weight zero covers nothing and is never found, unless all are zero.
    """
    index = jnp.zeros(position.shape, jnp.int32)
    for level in reversed(tree):
        block = level.at[index].get(mode="promise_in_bounds")
        end = jnp.cumsum(block, axis=1)
        place = jnp.sum(end <= position[:, None], axis=1, dtype=jnp.int32)
        # Rounding may put a position just behind the last weight.
        place = jnp.minimum(place, _last_positive(block))
        begin = jnp.take_along_axis(end - block, place[:, None], axis=1)[:, 0]
        # Rounding may also put it just before its block, and a zero could be first there.
        position = jnp.maximum(position - begin, 0.0)
        index = index * level.shape[1] + place
    return index


def _last_positive(block: Array) -> Array:
    radix = block.shape[1]
    return jnp.max(jnp.where(block > 0, jnp.arange(radix, dtype=jnp.int32), 0), axis=1)


def stratified(key: Array, tree: SumTree, count: int) -> Array:
    """Draw `count` leaves, one from each of as many equal parts of the total.

    A leaf's expected number of draws is `count` times its share, as in independent draws, but
    varies less. Schaul et al. (2016), section 3.3.
    """
    part = jnp.arange(count, dtype=jnp.float32) + jax.random.uniform(key, (count,))
    return find(tree, part * (total(tree) / count))
