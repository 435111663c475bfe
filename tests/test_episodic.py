"""Tables of keys and values against a plain NumPy table, and values from neighbours."""

import re
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax import episodic
from memrl_jax.episodic import Tables, kernel_mean, plain_mean
from memrl_jax.episodic.tables import fingerprint, largest

ACTIONS, CAPACITY, WIDTH, WRITES, QUERIES, NEIGHBOURS = 3, 32, 4, 3, 2, 5
RATE = np.float32(0.1)
TURN = 2**32  # where the clock goes round


def tabular(old: Any, new: Any) -> Any:
    return old + RATE * (new - old)


class Table:
    """One table, entry by entry."""

    def __init__(self) -> None:
        self.keys = np.zeros((CAPACITY, WIDTH), np.float32)
        self.values = np.zeros(CAPACITY, np.float32)
        self.used = np.full(CAPACITY, -1)

    def find(self, key: np.ndarray) -> int | None:
        (slots,) = np.nonzero((self.used >= 0) & (self.keys == key).all(axis=1))
        return int(slots[0]) if len(slots) else None

    def nearest(self, key: np.ndarray) -> np.ndarray:
        """Return the slots of the nearest entries; of equally near ones the lowest."""
        distance = ((self.keys.astype(np.float64) - key) ** 2).sum(axis=1)
        distance[self.used < 0] = np.inf
        order = np.argsort(distance, kind="stable")[:NEIGHBOURS]
        return order[np.isfinite(distance[order])]

    def write(self, key: np.ndarray, value: np.float32, merge: Any, time: int) -> None:
        slot = self.find(key)
        if slot is None:
            slot = int(np.argmin(self.used))
            self.keys[slot], self.values[slot] = key, value
        else:
            self.values[slot] = merge(self.values[slot], value)
        self.used[slot] = time


def operations(count: int, whole: bool) -> dict[str, np.ndarray]:
    """Make up calls: whole keys have many ties and equals, others are seen once or a few times."""
    rng = np.random.default_rng(0)

    def keys(per_call: int) -> np.ndarray:
        shape = count, per_call
        if whole:
            return rng.integers(-1, 2, (*shape, WIDTH)).astype(np.float32)
        some = rng.normal(size=(60, WIDTH))
        new = rng.normal(size=(*shape, WIDTH))
        known = rng.uniform(size=(*shape, 1)) < 0.5
        return np.where(known, some[rng.integers(60, size=shape)], new).astype(np.float32)

    return {
        "query": keys(QUERIES),
        "touches": rng.uniform(size=count) < 0.5,
        "action": rng.integers(ACTIONS, size=(count, WRITES)).astype(np.int32),
        "key": keys(WRITES),
        "value": rng.normal(size=(count, WRITES)).astype(np.float32),
        "valid": rng.uniform(size=(count, WRITES)) < 0.7,
    }


def one_call(merge: Any) -> Any:
    def call(tables: Tables, x: dict[str, Any]) -> tuple[Tables, Any]:
        near = episodic.nearest(tables, x["query"], NEIGHBOURS)
        equal = episodic.find(tables, x["query"])
        touched = episodic.touch(tables, near.slot)
        tables = jax.tree.map(lambda x_, y: jnp.where(x["touches"], x_, y), touched, tables)
        tables = episodic.write(tables, x["action"], x["key"], x["value"], x["valid"], merge)
        return tables, (near, equal)

    return call


@cache
def calls(merge: Any) -> Any:
    return jax.jit(lambda tables, xs: jax.lax.scan(one_call(merge), tables, xs))


@pytest.mark.parametrize("merge, whole", [(jnp.maximum, True), (tabular, False)])
def test_ten_thousand_operations_against_numpy(merge: Any, whole: bool) -> None:
    count = 1_600  # calls, each about 2 lookups, 2 searches, half a touch and 2.1 writes
    xs = operations(count, whole)
    first = episodic.empty(ACTIONS, CAPACITY, WIDTH)
    # The clock goes round on the way.
    first = first._replace(clock=jnp.uint32(TURN - 1_000))
    tables, (near, (slot, held)) = jax.device_get(calls(merge)(first, xs))
    plain = [Table() for _ in range(ACTIONS)]
    merge = np.maximum if merge is jnp.maximum else merge
    time = 0
    for i in range(count):
        for q, query in enumerate(xs["query"][i]):
            for a, table in enumerate(plain):
                expected = table.nearest(query)
                found = near.found[i, q, a]
                assert found.sum() == len(expected) and not found[len(expected) :].any()
                np.testing.assert_array_equal(near.slot[i, q, a][found], expected)
                np.testing.assert_array_equal(near.keys[i, q, a][found], table.keys[expected])
                np.testing.assert_array_equal(near.values[i, q, a][found], table.values[expected])
                equal = table.find(query)
                assert held[i, q, a] == (equal is not None)
                assert equal is None or slot[i, q, a] == equal
        if xs["touches"][i]:
            time += 1
            for a, table in enumerate(plain):
                table.used[near.slot[i, :, a][near.found[i, :, a]]] = time
        for j in np.flatnonzero(xs["valid"][i]):
            time += 1
            action, key, value = (xs[name][i, j] for name in ("action", "key", "value"))
            plain[action].write(key, value, merge, time)
    assert time == int(tables.clock) + 1_000 > 1_000  # it did go round
    for a, table in enumerate(plain):
        np.testing.assert_array_equal(tables.keys[a], table.keys)
        np.testing.assert_array_equal(tables.values[a], table.values)
        assert (table.used >= 0).all()  # and entries were evicted


@jax.jit
def look(tables: Tables, query: Any) -> tuple[episodic.Neighbours, Any]:
    """Look up queries [3, 4] in tables of one action: the five nearest, and equal keys."""
    near, equal = episodic.nearest(tables, query, 5), episodic.find(tables, query)
    return jax.tree.map(lambda x: x[:, 0], (near, equal))


@jax.jit
def write(tables: Tables, keys: Any, values: Any, valid: Any) -> Tables:
    action = jnp.zeros(valid.shape[0], jnp.int32)
    return episodic.write(tables, action, keys, values, valid, jnp.maximum)


def written(keys: Any) -> Tables:
    """Return a table that holds keys [M, 4], six at most of nine, and 0 to M - 1 as values."""
    keys = np.float32(keys)
    padded = np.zeros((6, 4), np.float32)
    padded[: len(keys)] = keys
    valid = np.arange(6) < len(keys)
    return write(episodic.empty(1, 9, 4), padded, np.arange(6, dtype=np.float32), valid)


def test_an_empty_table_has_no_neighbours() -> None:
    near, (_, held) = look(written(np.zeros((0, 4))), np.zeros((3, 4), np.float32))
    assert not near.found.any() and np.isinf(near.distance).all() and not held.any()
    assert (kernel_mean(near.distance, near.values, near.found) == 0).all()
    assert (plain_mean(near.values, near.found) == 0).all()


def test_keys_nearer_than_float32_tells_apart_by_a_product() -> None:
    # Around (1000, 0, ...) products tell keys apart from a distance of about 0.3 on.
    rng = np.random.default_rng(0)
    keys = (rng.normal(size=(6, 4)) * 0.01 + np.eye(1, 4) * 1000).astype(np.float32)
    near, (slot, held) = look(written(keys), keys[3:])
    assert held.all()
    np.testing.assert_array_equal(slot, [3, 4, 5])
    expected = ((keys.astype(np.float64)[None] - keys[3:, None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(near.slot, np.argsort(expected)[:, :5])
    np.testing.assert_allclose(near.distance, np.sort(expected)[:, :5], rtol=1e-6)


def test_zero_has_one_sign_and_nan_equals_nothing() -> None:
    keys = np.ones((2, 4), np.float32)
    keys[:, 0] = 0, np.nan
    query = np.ones((3, 4), np.float32)
    query[:, 0] = -0.0, np.nan, 1
    _, (_, held) = look(written(keys), query)
    np.testing.assert_array_equal(held, [True, False, False])


def test_fingerprints_differ_by_every_bit_and_place() -> None:
    one = np.ones(4, np.float32).view(np.uint32)
    bit = np.eye(4, dtype=np.uint32)[:, None] << np.arange(32, dtype=np.uint32)[None, :, None]
    other = (one ^ bit).reshape(-1, 4).view(np.float32)
    keys = np.unique(np.concatenate([grid(), other]).view(np.uint32), axis=0).view(np.float32)
    prints = np.asarray(jax.vmap(fingerprint)(jnp.asarray(keys)))
    for half in prints.T:
        assert len(np.unique(half)) >= len(keys) - 1 and half.all()
    assert len(np.unique(prints, axis=0)) == len(keys)


def grid() -> np.ndarray:
    """Return all positions of four whole numbers, whose last bits are alike: [4096, 4]."""
    return np.stack(np.meshgrid(*[np.arange(8)] * 4), axis=-1).reshape(-1, 4).astype(np.float32)


def plain_kernel(query: np.ndarray, keys: np.ndarray, values: np.ndarray) -> float:
    weight = 1 / (((query - keys) ** 2).sum(axis=1) + 1e-3)
    return float((weight * values).sum() / weight.sum())


def test_gradients_of_the_kernel_by_finite_differences() -> None:
    rng = np.random.default_rng(0)
    query, keys, values = rng.normal(size=3), rng.normal(size=(5, 3)), rng.normal(size=5)
    query[:] = keys[0] + 0.01  # one is so near that the kernel is steep
    found = jnp.arange(7) < 5

    def value(query: Any, keys: Any, values: Any) -> Any:
        # Two were not found, and hold what would spoil everything.
        keys = jnp.concatenate([keys, jnp.zeros((2, 3))])
        values = jnp.concatenate([values, jnp.full(2, jnp.nan)])
        distance = jnp.where(found, episodic.squared_distance(query[None], keys), jnp.inf)
        return kernel_mean(distance, values, found)

    point = query, keys, values
    given = jax.jit(jax.value_and_grad(value, (0, 1, 2)))(*map(jnp.float32, point))
    np.testing.assert_allclose(given[0], plain_kernel(*point), rtol=1e-4)
    for i, gradient in enumerate(given[1]):
        assert np.all(gradient != 0)
        for place in np.ndindex(point[i].shape):
            moved = [np.array(x) for x in point]
            difference = 0.0
            for sign in (1, -1):
                moved[i][place] = point[i][place] + sign * 1e-6
                difference += sign * plain_kernel(*moved) / 2e-6
            np.testing.assert_allclose(gradient[place], difference, rtol=2e-3, atol=1e-5)


def test_the_nearest_outweighs_all_others_and_equal_ones_share() -> None:
    found = jnp.array([True, True, False])
    value = kernel_mean(jnp.array([0.0, 1e6, jnp.inf]), jnp.array([2.0, 9.0, jnp.nan]), found)
    np.testing.assert_allclose(value, 2.0, rtol=1e-6)
    value = kernel_mean(jnp.array([3.0, 3.0, jnp.inf]), jnp.array([2.0, 9.0, jnp.nan]), found)
    np.testing.assert_allclose(value, 5.5)
    assert plain_mean(jnp.array([2.0, 9.0, jnp.nan]), found) == 5.5


def test_what_is_added_to_one_entry_adds_up_and_is_found_again() -> None:
    keys = np.arange(16, dtype=np.float32).reshape(4, 4)
    slot = np.array([[0, 2], [2, 5]])  # 5 is empty
    found = slot < 4
    step = np.full((2, 2, 4), 0.5, np.float32)
    adjust = jax.jit(episodic.adjust)
    after = adjust(written(keys), np.zeros(2, np.int32), slot, found, step, step[..., 0])
    expected = keys + np.array([0.5, 0, 1, 0], np.float32)[:, None]
    np.testing.assert_array_equal(after.keys[0, :4], expected)
    np.testing.assert_array_equal(after.values[0, :4], [0.5, 1, 3, 3])
    near, (again, held) = look(after, np.stack([expected[0], expected[2], keys[0]]))
    np.testing.assert_array_equal(held, [True, True, False])
    np.testing.assert_array_equal(again[:2], [0, 2])
    np.testing.assert_array_equal(near.found, [[True] * 4 + [False]] * 3)
    np.testing.assert_array_equal(near.distance[:2, 0], 0)


def test_no_table_is_copied_in_a_loop() -> None:
    capacity = 1009

    def step(tables: Tables, key: Any) -> tuple[Tables, Any]:
        query = jax.random.normal(key, (4, 8))
        action = jnp.arange(4, dtype=jnp.int32) % 2
        near = episodic.nearest(tables, query, 3)
        tables = episodic.touch(tables, near.slot)
        tables = episodic.write(tables, action, query, query[:, 0], action == 0, jnp.maximum)
        near = episodic.nearest(tables, query, 3)
        slot, found, keys, values = (x[:, 0] for x in near[:4])
        return episodic.adjust(tables, action, slot, found, keys, values), near.values

    tables = episodic.empty(2, capacity, 8)
    keys = jax.random.split(jax.random.key(0), 3)
    run = jax.jit(lambda tables: jax.lax.scan(step, tables, keys), donate_argnums=0)
    text = run.lower(tables).compile().as_text() or ""
    assert re.search(rf"\[2,{capacity},8\]", text)
    copies = rf"= \w+\[2,(2,)?{capacity}(,8)?\]\S* (copy|select|copy-start)\("
    assert not re.search(copies, text)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: episodic.empty(2, 0, 3), "capacity: 0 is below 1"),
        (lambda: episodic.empty(2, 4, 0), "width: 0 is below 1"),
        (
            lambda: episodic.nearest(episodic.empty(2, 4, 3), jnp.zeros((1, 3)), 5),
            "neighbours: 5 is above 4",
        ),
    ],
)
def test_sizes_that_cannot_be(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


@pytest.mark.parametrize("size, count", [(5, 5), (320, 10), (321, 10), (1_000, 1), (1_003, 30)])
@pytest.mark.parametrize("values", [3, 10_000])  # of few values there are many alike
def test_the_largest_numbers_are_those_of_jax(size: int, count: int, values: int) -> None:
    rng = np.random.default_rng(size)
    x = rng.integers(values, size=(20, 2, size)).astype(np.float32)
    x[:10][rng.uniform(size=(10, 2, size)) < 0.5] = -np.inf  # as where entries are empty
    x[0], x[1, :, -1] = -np.inf, np.inf
    places = jax.jit(largest, static_argnums=1)(x, count)
    np.testing.assert_array_equal(places, jax.lax.top_k(x, count)[1])
