"""Tables of keys and values, one per discrete action, with nearest-neighbour lookup.

Sizes: `A` actions, `C` entries per table (the capacity), `D` numbers in a key, `N` queries at once,
`K` neighbours.

Keys k are first ranked for a query q by q . k - |k|^2 / 2, in one matrix product for all queries
and tables. Float32 rounds this to about 1e-7 of |q| |k|, so the best 2 K are taken and ranked again
by |q - k|^2, computed from differences. Neighbours are exact unless more than K keys lie within
that rounding error of the K-th. `find` looks up a key equal to the query separately, however many
are near: by a fingerprint of its bits, and then by comparing the keys.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax import checks
from memrl_jax.tree import take
from memrl_jax.types import Array

BLOCK = 16  # numbers in a block of `largest`
LANES = 0x9E3779B9, 0x7F4A7C15  # odd factors, one for each half of a fingerprint


class Tables(NamedTuple):
    """The state of A tables; an entry is empty until it is written."""

    keys: Array  # [A, C, D] float32
    values: Array  # [A, C] float32
    used: Array  # [A, C] uint32, the time of the last use
    half: Array  # [A, C] float32, |key|^2 / 2; infinite where empty, so that it is never near
    prints: Array  # [A, 2, C] uint32, fingerprints of the keys
    clock: Array  # [] uint32, the time of the latest use; it wraps around


class Neighbours(NamedTuple):
    """The K nearest entries of every table, nearest first; equally near ones by slot."""

    slot: Array  # [N, A, K] int32
    found: Array  # [N, A, K] bool: false where a table has fewer entries
    keys: Array  # [N, A, K, D] float32
    values: Array  # [N, A, K] float32
    distance: Array  # [N, A, K] float32, squared; infinite where not found

    def of(self, action: Array) -> "Neighbours":
        """Return only those in the table of each query's action [N]: arrays [N, K, ...]."""
        row = jnp.arange(action.shape[0])
        return jax.tree.map(lambda x: x[row, action], self)


def empty(actions: int, capacity: int, width: int) -> Tables:
    """Make `actions` empty tables of `capacity` entries, whose keys have `width` numbers.

    Raises ValueError for sizes below 1.
    """
    for field, size in {"actions": actions, "capacity": capacity, "width": width}.items():
        checks.positive(field, size)
    return Tables(
        keys=jnp.zeros((actions, capacity, width), jnp.float32),
        values=jnp.zeros((actions, capacity), jnp.float32),
        used=jnp.zeros((actions, capacity), jnp.uint32),
        half=jnp.full((actions, capacity), jnp.inf, jnp.float32),
        prints=jnp.zeros((actions, 2, capacity), jnp.uint32),
        clock=jnp.uint32(0),
    )


def nearest(tables: Tables, query: Array, count: int) -> Neighbours:
    """Look up the `count` nearest entries of every table for queries [N, D].

    Raises ValueError unless `count` is from 1 to the capacity.
    """
    actions, capacity, width = tables.keys.shape
    checks.positive("neighbours", count, capacity)
    keys = tables.keys.reshape(-1, width)
    product = jnp.matmul(query, keys.T, precision="highest").reshape(-1, actions, capacity)
    slot = largest(product - tables.half[None], min(2 * count, capacity))
    # Sorted by slot, so that of equally near entries the lowest slot comes first.
    slot = jnp.sort(slot, axis=-1)
    action = jnp.arange(actions, dtype=jnp.int32)[None, :, None]
    distance = squared_distance(query[:, None, None], take(tables.keys, (action, slot)))
    found = take(tables.half, (action, slot)) < jnp.inf
    nearness, order = jax.lax.top_k(jnp.where(found, -distance, -jnp.inf), count)
    slot, found = (jnp.take_along_axis(x, order, axis=-1) for x in (slot, found))
    keys, values = (take(x, (action, slot)) for x in (tables.keys, tables.values))
    return Neighbours(slot, found, keys, values, -nearness)


def largest(x: Array, count: int) -> Array:
    """Return where the largest `count` = K of `x` [..., C] are, as `jax.lax.top_k` does: [..., K].

    They lie in the `count` blocks, of 16 numbers each, with the largest maxima. On a CPU it takes
    half to two thirds of the time to rank those blocks first, and then only what is in them.
    """
    size = x.shape[-1]
    if size < 2 * BLOCK * count:
        return jax.lax.top_k(x, count)[1]
    even = [(0, 0)] * (x.ndim - 1) + [(0, -size % BLOCK)]
    blocks = jnp.pad(x, even, constant_values=-jnp.inf).reshape(*x.shape[:-1], -1, BLOCK)
    _, block = jax.lax.top_k(blocks.max(axis=-1), count)
    block = jnp.sort(block, axis=-1)  # of equal numbers the first ones count
    near = jnp.take_along_axis(blocks, block[..., None], axis=-2)
    _, place = jax.lax.top_k(near.reshape(*x.shape[:-1], -1), count)
    return jnp.take_along_axis(block, place // BLOCK, axis=-1) * BLOCK + place % BLOCK


def squared_distance(query: Array, keys: Array) -> Array:
    """Return |q - k|^2 [...] of q and k [..., D], from their differences."""
    return jnp.sum((query - keys) ** 2, axis=-1)


def find(tables: Tables, key: Array) -> tuple[Array, Array]:
    """Find keys [N, D] in every table: return their slots, and whether they are there, [N, A] each.

    Keys are compared as floats: -0 equals 0, and NaN equals nothing.
    """
    over_tables = jax.vmap(_find, in_axes=(0, 0, None))
    return jax.vmap(over_tables, in_axes=(None, None, 0))(tables.keys, tables.prints, key)


def _find(keys: Array, prints: Array, key: Array) -> tuple[Array, Array]:
    """Find a key [D] in one table: its slot [], and whether it is there []."""
    alike = jnp.all(prints == fingerprint(key)[:, None], axis=0)
    # No key has the fingerprint of an empty entry, which is 0.
    slot = jnp.max(jnp.where(alike, jnp.arange(alike.shape[0], dtype=jnp.int32), 0))
    return slot, alike[slot] & jnp.all(keys[slot] == key)


def fingerprint(key: Array) -> Array:
    """Return a fingerprint, 64 bits [2] uint32, that depends on all bits of a key [D]; never 0.

    The bits of every number, combined with its position, go through MurmurHash3's finalizer
    (Appleby 2016), and so does the sum of the results.
    """
    bits = jax.lax.bitcast_convert_type(jnp.where(key == 0, 0.0, key), jnp.uint32)
    place = jnp.arange(1, key.shape[0] + 1, dtype=jnp.uint32)
    mixed = mix(bits[None] + jnp.array(LANES, jnp.uint32)[:, None] * place[None])
    return mix(mixed.sum(axis=-1, dtype=jnp.uint32)) | jnp.uint32(1)


def mix(x: Array) -> Array:
    """Mix the bits of each uint32 number [...], so that every bit depends on all of them."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def write(
    tables: Tables,
    action: Array,
    keys: Array,
    values: Array,
    valid: Array,
    merge: Callable[[Array, Array], Array],
) -> Tables:
    """Write the valid ones of M entries in order: `action`, `values`, `valid` [M], `keys` [M, D].

    If the action's table holds the key already, its value becomes `merge(old, new)`; otherwise the
    least recently used entry is replaced. The time taken grows with the number of valid entries.
    """
    order = jnp.flatnonzero(valid, size=valid.shape[0], fill_value=0)

    def place(tables: Tables, i: Array) -> tuple[Array, Array]:
        """Return the slot for entry i, and whether it holds that key already."""
        a = action[order[i]]
        slot, held = _find(tables.keys[a], tables.prints[a], keys[order[i]])
        return jnp.where(held, slot, _oldest(tables, a)), held

    def put(i: Array, carry: tuple[Tables, tuple[Array, Array]]) -> Any:
        # Write, then look up the next entry: the other way round, the tables would be copied.
        tables, (slot, held) = carry
        m = order[i]
        old = tables.values[action[m], slot]
        value = jnp.where(held, merge(old, values[m]), values[m])
        tables = _put(tables, action[m], slot, keys[m], value)
        return tables, place(tables, i + 1)

    count = jnp.sum(valid, dtype=jnp.int32)
    return jax.lax.fori_loop(0, count, put, (tables, place(tables, jnp.int32(0))))[0]


def _put(tables: Tables, action: Array, slot: Array, key: Array, value: Array) -> Tables:
    """Set one entry, and its time of use."""
    place, clock = (action, slot), tables.clock + 1
    return Tables(
        keys=tables.keys.at[place].set(key),
        values=tables.values.at[place].set(value),
        used=tables.used.at[place].set(clock),
        half=tables.half.at[place].set(jnp.sum(key**2) / 2),
        prints=tables.prints.at[action, :, slot].set(fingerprint(key)),
        clock=clock,
    )


def _oldest(tables: Tables, action: Array) -> Array:
    """Return the slot [] for a new key of an action []: an empty or the least recently used one."""
    # Unsigned differences stay right when the clock wraps around.
    unused = tables.clock - tables.used[action]
    unused = jnp.where(tables.half[action] < jnp.inf, unused, jnp.uint32(2**32 - 1))
    return jnp.argmax(unused).astype(jnp.int32)


def touch(tables: Tables, slot: Array) -> Tables:
    """Mark the entries at `slot` [N, A, K], as `nearest` returns them, as just used.

    All get the same time of use; of these, the lowest slot counts as the least recently used.
    """
    clock = tables.clock + 1
    action = jnp.arange(slot.shape[1], dtype=jnp.int32)[None, :, None]
    return tables._replace(used=tables.used.at[action, slot].set(clock), clock=clock)


def adjust(
    tables: Tables, action: Array, slot: Array, found: Array, keys: Array, values: Array
) -> Tables:
    """Add to the entries at `slot` [N, K] of the tables of `action` [N], where `found` [N, K].

    `keys` [N, K, D] and `values` [N, K] are added; several additions to the same entry are summed.
    """
    place = action[:, None], slot
    tables = tables._replace(
        keys=tables.keys.at[place].add(jnp.where(found[..., None], keys, 0.0)),
        values=tables.values.at[place].add(jnp.where(found, values, 0.0)),
    )
    moved = take(tables.keys, place)
    half = jnp.where(found, jnp.sum(moved**2, axis=-1) / 2, jnp.inf)
    prints = jnp.where(found[..., None], jax.vmap(jax.vmap(fingerprint))(moved), 0)
    return tables._replace(
        half=tables.half.at[place].set(half),
        prints=tables.prints.at[place[0], :, slot].set(prints),
    )
