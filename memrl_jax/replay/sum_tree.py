"""A sum tree: non-negative weights, and draws in proportion to them.

Entry i of a level is the sum of block i of the level below; the leaves are the weights. When a
block changes, its sum is recomputed rather than adjusted by the difference: rounding errors do not
accumulate, and one write may contain the same leaf twice. Drawing or writing N leaves costs
O(N radix log_radix(count)): wide blocks make few, wide steps, which suits accelerators. The sums of
the top level's blocks are not stored: one computation serves all draws, so there may be many.
"""

import jax.numpy as jnp

from memrl_jax import draws
from memrl_jax.tree import take
from memrl_jax.types import Array

ROOT = 64  # most blocks of the top level
RADIX = 1024  # most entries of a block: 2**30 leaves in whole blocks can be indexed by int32
CELLS = 2**23  # equal parts of the total: float32 still tells their numbers apart
DRAWS = 2**20  # most leaves drawn at once: at least eight cells for each
SumTree = tuple[Array, ...]  # levels from the leaves up, each [blocks, radix] float32


def init(count: int, radix: int) -> SumTree:
    """Make a tree of `count` leaves, all zero."""
    blocks = -(-count // radix)
    levels = [jnp.zeros((blocks, radix), jnp.float32)]
    while blocks > ROOT:
        blocks = -(-blocks // radix)
        levels.append(jnp.zeros((blocks, radix), jnp.float32))
    return tuple(levels)


def read(tree: SumTree, index: Array) -> Array:
    """Return the leaves at `index` [N]."""
    return take(tree[0].reshape(-1), index)


def write(tree: SumTree, index: Array, weight: Array) -> SumTree:
    """Set the leaves at `index` [N] to `weight` [N], and update all sums above them."""
    levels = []
    for level in tree:
        entries = level.reshape(-1).at[index]
        level = entries.set(weight, mode="promise_in_bounds", wrap_negative_indices=False).reshape(
            level.shape
        )
        levels.append(level)
        index = index // level.shape[1]
        weight = take(level, index).sum(axis=1)
    return tuple(levels)


def total(tree: SumTree) -> Array:
    """Return the sum [] of all leaves."""
    return tree[-1].sum()


def find(tree: SumTree, position: Array, rest: Array | float = 0.0) -> Array:
    """Return the leaves [N] that cover `position` + `rest` [N], laid end to end up to the total.

    `rest` is the part of a position that float32 cannot hold; positions get smaller on the way
    down, and as much of it as fits is added. A leaf of weight zero is never found, unless all are.
    """
    index, position = _choose(tree[-1].sum(axis=1)[None], position)
    for level in reversed(tree):
        before = position
        position = before + rest
        rest = rest - (position - before)
        place, position = _choose(take(level, index), position)
        index = index * level.shape[1] + place
    return index


def _choose(weight: Array, position: Array) -> tuple[Array, Array]:
    """Return which entry of each block [N or 1, entries] covers `position` [N], and where in it."""
    entries = weight.shape[1]
    # A small matrix product is several times faster than a cumulative sum.
    before = jnp.triu(jnp.ones((entries, entries), jnp.float32), 1)
    begin = jnp.dot(weight, before, precision="highest")
    # The last one to begin here that has weight, however sums are rounded.
    here = (begin <= position[:, None]) & (weight > 0)
    place = jnp.max(jnp.where(here, jnp.arange(entries, dtype=jnp.int32)[None], 0), axis=1)
    return place, position - jnp.take_along_axis(begin, place[:, None], axis=1)[:, 0]


def stratified(key: Array, tree: SumTree, count: int) -> Array:
    """Draw leaves [count], one from each of `count` equal parts of the total.

    A leaf's expected number of draws is `count` times its share, as with independent draws, but it
    varies less. Shares of about 2**-46 are still drawn, but a leaf or a block with less than 2**-24
    of the block that it is in may be lost in its sum. Schaul et al. (2016), section 3.3.
    """
    cells = CELLS // count  # per part
    random, rest = draws.uniform(key, (2, count), jnp.float32)
    cell = jnp.arange(count, dtype=jnp.float32) * cells + jnp.floor(random * cells)
    width = total(tree) / (cells * count)
    return find(tree, cell * width, rest * width)
