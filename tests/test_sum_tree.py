"""Sum trees against sums and searches over all leaves, in NumPy."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.replay import sum_tree

SIZES = [(37, 2), (100, 3), (500, 8), (1000, 16), (4097, 64)]  # leaves, radix
WRITES, AT_ONCE = 10_000, 8
DRAWS = 100

total = jax.jit(sum_tree.total)
draw = jax.jit(jax.vmap(sum_tree.stratified, (0, None, None)), static_argnums=2)
find_many = jax.jit(sum_tree.find)
every_size = pytest.mark.parametrize("count, radix", SIZES)
two_sizes = pytest.mark.parametrize("count, radix", [SIZES[1], SIZES[3]])


def find(tree, position):
    """Find any number of positions with one compilation."""
    padded = np.zeros(30_000, np.float32)
    padded[: len(position)] = position
    return np.asarray(find_many(tree, padded))[: len(position)]


def weights(rng, count):
    """Weights over six orders of magnitude, and many zeros."""
    return np.where(rng.random(count) < 0.4, 0, 10 ** rng.uniform(-3, 3, count)).astype(np.float32)


@jax.jit
def write_all(tree, index, weight):
    """Write [WRITES, AT_ONCE] weights, one row after another."""
    return jax.lax.scan(lambda tree, x: (sum_tree.write(tree, *x), None), tree, (index, weight))[0]


def filled(leaves, radix):
    index = np.resize(np.arange(len(leaves)), (WRITES, AT_ONCE))
    return write_all(sum_tree.init(len(leaves), radix), index, leaves.astype(np.float32)[index])


@cache
def written(count, radix):
    """A tree after many writes, some to one leaf twice at once, and the leaves it should have."""
    rng = np.random.default_rng(count)
    index = rng.integers(0, count, (WRITES, AT_ONCE), dtype=np.int32)
    index[:, -1] = index[:, 0]
    pool = weights(rng, 997)
    weight = pool[(index + 7 * np.arange(WRITES)[:, None]) % pool.size]
    index[-1], weight[-1] = count // 2, 1  # so that not all are zero
    leaves = np.zeros(count, np.float32)
    for i, w in zip(index, weight, strict=True):
        leaves[i] = w
    return write_all(sum_tree.init(count, radix), index, weight), leaves


def keys(count):
    return jax.random.split(jax.random.key(3), count)


def ends(leaves):
    return leaves.cumsum(dtype=np.float64)


@every_size
def test_every_level_is_the_sum_of_its_leaves(count, radix):
    tree, leaves = written(count, radix)
    np.testing.assert_array_equal(np.ravel(tree[0])[:count], leaves)
    for level, entries in enumerate(tree):
        first = np.arange(0, count, radix**level)
        sums = np.zeros(entries.size)
        sums[: len(first)] = np.add.reduceat(leaves.astype(np.float64), first)
        np.testing.assert_allclose(np.ravel(entries), sums, rtol=2e-6)
    assert tree[-1].shape[0] <= sum_tree.ROOT


@every_size
def test_sums_do_not_drift(count, radix):
    tree, leaves = written(count, radix)
    np.testing.assert_allclose(total(tree), ends(leaves)[-1], rtol=1e-6)
    for after, anew in zip(tree, filled(leaves, radix), strict=True):
        np.testing.assert_allclose(after, anew, rtol=1e-6)


@every_size
def test_reading_gives_what_was_written(count, radix):
    tree, leaves = written(count, radix)
    index = np.random.default_rng(0).integers(0, count, 300)
    np.testing.assert_array_equal(sum_tree.read(tree, jnp.asarray(index)), leaves[index])


@pytest.mark.parametrize("radix", [2, 16])
def test_of_several_weights_written_to_a_leaf_at_once_one_is_kept(radix):
    index, weight = jnp.array([3, 8, 3, 3]), jnp.array([1.0, 2.0, 4.0, 8.0])
    tree = sum_tree.write(sum_tree.init(10, radix), index, weight)
    leaves = np.ravel(tree[0])
    assert leaves[3] in (1, 4, 8) and leaves[8] == 2
    assert total(tree) == leaves.sum() == leaves[3] + leaves[8]


@every_size
def test_positions_find_the_leaves_that_cover_them(count, radix):
    # Sums of small whole numbers are exact in any order, so borders are too.
    leaves = np.random.default_rng(1).integers(0, 5, count) * (np.arange(count) % 3 > 0)
    leaves[count // 2] = 3
    position = np.arange(0, leaves.sum(), 0.5)
    found = find(filled(leaves, radix), position)
    np.testing.assert_array_equal(found, np.searchsorted(ends(leaves), position, side="right"))
    assert (leaves[found] > 0).all()


@every_size
def test_positions_are_found_up_to_rounding(count, radix):
    tree, leaves = written(count, radix)
    end = ends(leaves)
    position = np.random.default_rng(2).uniform(0, end[-1], 10_000).astype(np.float32)
    error = 1e-6 * end[-1]
    first, last = (np.searchsorted(end, position + e, side="right") for e in (-error, error))
    clear = first == last
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(find(tree, position)[clear], first[clear])


@every_size
def test_a_zero_is_never_found(count, radix):
    tree, leaves = written(count, radix)
    borders = ends(leaves).astype(np.float32)
    sums = [np.cumsum(entries, axis=1).ravel() for entries in tree]  # borders within blocks
    around = np.concatenate([borders, *sums])
    up, down = (np.nextafter(around, np.float32(to)) for to in (np.inf, 0))
    whole = np.float32(total(tree)) * np.array([1, 1 + 1e-6, 1.5, np.inf])
    found = find(tree, np.concatenate([[0], around, up, down, whole]))
    assert (leaves[found] > 0).all()
    positive = np.flatnonzero(leaves)
    assert found[0] == positive[0] and (found[-4:] == positive[-1]).all()


@every_size
def test_one_weight_among_zeros_is_always_found(count, radix):
    for leaf in {0, count // 2, count - 1}:
        tree = filled(np.arange(count) == leaf, radix)
        np.testing.assert_array_equal(find(tree, [0, 1e-30, 0.3, 0.7, 1, 1e9]), leaf)


@every_size
def test_in_a_tree_of_zeros_some_leaf_is_found(count, radix):
    found = find(sum_tree.init(count, radix), [0, 1])
    assert ((found >= 0) & (found < count)).all()


@pytest.mark.parametrize("count, radix, draws", [(100, 3, DRAWS), (1000, 16, DRAWS), (100, 3, 1)])
def test_draws_are_in_proportion_to_the_weights(count, radix, draws):
    tree, leaves = written(count, radix)
    drawn = draw(keys(30_000 // draws), tree, draws)
    seen = np.bincount(np.ravel(drawn), minlength=count)
    assert (seen[leaves == 0] == 0).all()
    expected = 30_000 * leaves / ends(leaves)[-1]
    rare = expected < 5  # these count as one
    seen, expected = (np.append(x[~rare], x[rare].sum()) for x in (seen, expected))
    chi_squared = np.sum((seen - expected) ** 2 / expected)
    assert jax.scipy.special.gammaincc((len(expected) - 1) / 2, chi_squared / 2) > 1e-4


def test_leaves_too_small_for_float32_to_tell_apart_are_all_drawn():
    """Beside one that weighs 63, 2**20 of 2**-20; a step of float32 there is 2**-18."""
    leaves = np.full(2**20, 2**-20, np.float32)
    leaves[0] = 63
    tree = [leaves.reshape(-1, 8)]
    while len(tree[-1]) > sum_tree.ROOT:
        tree.append(tree[-1].sum(axis=1).reshape(-1, 8))
    drawn = np.asarray(draw(keys(2000), tuple(tree), 64))
    assert (drawn[:, :-1] == 0).all()
    seen = np.bincount(drawn[:, -1] % 64, minlength=64)
    chi_squared = np.sum((seen - 2000 / 64) ** 2 / (2000 / 64))
    assert jax.scipy.special.gammaincc(63 / 2, chi_squared / 2) > 1e-4


@two_sizes
def test_every_part_is_drawn_from_once(count, radix):
    tree, leaves = written(count, radix)
    found = draw(keys(300), tree, DRAWS)
    end = ends(leaves) / ends(leaves)[-1] * DRAWS
    begin, part = np.append(0, end[:-1]), np.arange(DRAWS)
    assert (begin[found] < part + 1 + 1e-3).all() and (end[found] > part - 1e-3).all()


def test_as_many_draws_as_equal_weights_draw_each_once():
    found = draw(keys(300), filled(np.ones(DRAWS), 3), DRAWS)
    np.testing.assert_array_equal(found, np.tile(np.arange(DRAWS), (300, 1)))


def test_a_single_leaf_is_a_tree():
    tree = filled(np.array([0.5]), 2)
    assert total(tree) == 0.5 and len(tree) == 1
    np.testing.assert_array_equal(find(tree, [0, 0.3, 0.5, 2]), 0)
