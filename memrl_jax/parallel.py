"""Many seeds of one pure function, over the devices of all processes.

Seeds are spread over devices. Within a device they are mapped one after another on CPU, where
that is faster than vmap and compiles sooner, and vmapped on an accelerator. All of it is one
compiled program. A seed's numbers do not depend on how many run beside it.

A seed may have several shards (see `shards`): each is a row of all states, so that R = seeds x
shards, and they may be on several devices. Every process calls these functions alike.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from memrl_jax import tree
from memrl_jax.shards import DEVICES, SHARDS
from memrl_jax.types import Array, Key

ROWS = P(("seeds", DEVICES))  # how the rows of states are laid out
WORD = 2**32 - 1  # the largest number that is folded into a key at a time


def seed_keys(seed: int, seeds: int, *stream: int) -> Key:
    """Return a key for every seed, [S]; the first keys are the same for any number of seeds.

    Different streams have no keys in common, as long as no `stream` is a prefix of another. The
    default is stream 0.
    """
    key = jax.random.key(seed)
    for number in stream or (0,):
        for word in _words(number):
            key = jax.random.fold_in(key, np.uint32(word))
    return jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(seeds))


def _words(number: int) -> tuple[int, ...]:
    """Split a number into words below 2^32 that are not a prefix of another number's.

    A key from which others are derived must not be used itself: `split` gives what `fold_in` does.
    """
    return (number,) if number < WORD else (WORD, number % 2**32, *_words(number // 2**32))


def mesh(seeds: int, shards: int = 1) -> Mesh:
    """Return a mesh of the devices that run `seeds` seeds: at most one per shard.

    A seed has several only where no device has several seeds: its rows, which are consecutive, are
    then those of its devices. Every process has equally many, or one more than the last.
    """
    down = min(seeds, jax.device_count())
    left = jax.device_count() // down
    across = max(n for n in range(1, min(shards, left) + 1) if shards % n == 0)
    devices = np.array(_devices(down * across)).reshape(down, across)
    return Mesh(devices, ("seeds", DEVICES))


def _devices(count: int) -> list[Any]:
    """Return `count` devices, process by process: the first ones of each."""
    every = range(jax.process_count())
    rank = {x: i for p in every for i, x in enumerate(jax.local_devices(process_index=p))}
    first = sorted(jax.devices(), key=lambda x: rank[x])[:count]
    return sorted(first, key=lambda x: x.process_index)


def pad(states: Any, seeds: int, shards: int = 1) -> Any:
    """Shard states [R, ...] over the devices, with copies of the last seed to fill them evenly.

    The padding costs no time. Programs are compiled for a sharding, so new and loaded states must
    have the same one.
    """
    where = mesh(seeds, shards)
    extra = range(-seeds % where.shape["seeds"])

    def repeat(x: Array) -> Array:
        return jnp.concatenate([x, *(tree.clone_keys(x)[-shards:] for _ in extra)])

    states = jax.tree.map(repeat, states) if extra else states
    return jax.tree.map(partial(_laid, NamedSharding(where, ROWS)), states)


def _laid(sharding: NamedSharding, x: Any) -> Array:
    """Lay an array out over devices, some of which other processes may have."""
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    if _is_key(x):
        data = _laid(sharding, jax.random.key_data(x))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    numbers = np.asarray(x)
    return jax.make_array_from_callback(numbers.shape, sharding, lambda index: numbers[index])


def padded(shapes: Any, seeds: int, shards: int = 1) -> Any:
    """Return the shapes and shardings that `pad` gives to states of shapes [R, ...]."""
    where = mesh(seeds, shards)
    sharding, extra = NamedSharding(where, ROWS), -seeds % where.shape["seeds"] * shards

    def lay(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((x.shape[0] + extra, *x.shape[1:]), x.dtype, sharding=sharding)

    return jax.tree.map(lay, shapes)


def fetched(xs: Any) -> Any:
    """Return arrays [R, ...], spread over devices or in NumPy, as NumPy arrays in every process."""

    def whole(x: Any) -> Any:
        if isinstance(x, np.ndarray) or x.is_fully_addressable:
            return x
        return multihost_utils.process_allgather(x, tiled=True)

    return jax.device_get(jax.tree.map(whole, xs))


def held(xs: Any, rows: int) -> Any:
    """Return what this process holds of the first `rows` rows of arrays [R, ...]: consecutive ones.

    Nothing is copied to the host if that is all.
    """
    return jax.tree.map(partial(_held, rows), tree.clone_keys(xs))


def _held(rows: int, x: Array) -> Any:
    if x.is_fully_addressable:
        return x[:rows]
    if _is_key(x):
        data = _held(rows, jax.random.key_data(x))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    parts = sorted(x.addressable_shards, key=lambda part: part.index[0].start or 0)
    first = parts[0].index[0].start or 0
    return np.concatenate([np.asarray(part.data) for part in parts])[: max(0, rows - first)]


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def over_seeds(f: Callable[..., Any], seeds: int, shards: int = 1) -> Callable[..., Any]:
    """Return `g(xs, *shared)`, jitted: `f(x, *shared)` for every row of padded `xs` [R, ...].

    The shards of a seed are computed together, with the axes of `shards`.
    """
    where = mesh(seeds, shards)
    one_by_one = where.devices.flat[0].platform == "cpu"

    def local(xs: Any, *shared: Any) -> Any:
        one = _of_seed(lambda x: f(x, *shared), shards)
        xs = _grouped(xs, where, shards)
        return _rows(jax.lax.map(one, xs) if one_by_one else jax.vmap(one)(xs), shards)

    return _mapped(local, where)


def update_seeds(f: Callable[..., Any], seeds: int, shards: int = 1) -> Callable[..., Any]:
    """Like `over_seeds`, for an `f` that returns its `x` updated; `xs` is donated.

    States are updated in place, so a large one is held once.
    """
    where = mesh(seeds, shards)
    one_by_one = where.devices.flat[0].platform == "cpu"

    def local(xs: Any, *shared: Any) -> Any:
        of_seed = _of_seed(lambda x: f(x, *shared), shards)
        xs = _grouped(xs, where, shards)
        if not one_by_one:
            return _rows(jax.vmap(of_seed)(xs), shards)

        def one(i: Array, xs: Any) -> Any:
            x = of_seed(jax.tree.map(lambda x: x[i], tree.clone_keys(xs)))
            return jax.tree.map(lambda xs, x: xs.at[i].set(x), xs, x)

        return _rows(jax.lax.fori_loop(0, len(jax.tree.leaves(xs)[0]), one, xs), shards)

    return _mapped(local, where, donate_argnums=0)


def _of_seed(f: Callable[[Any], Any], shards: int) -> Callable[[Any], Any]:
    """Return what computes a seed: `f`, or if there are several shards, `f` for those here."""
    return jax.vmap(f, axis_name=SHARDS) if shards > 1 else f


def _grouped(xs: Any, where: Mesh, shards: int) -> Any:
    """Return rows [n, ...] by seed, [n / here, here, ...], if a seed has several shards."""
    if shards == 1:
        return xs
    here = shards // where.shape[DEVICES]
    return jax.tree.map(lambda x: x.reshape(len(x) // here, here, *x.shape[1:]), xs)


def _rows(xs: Any, shards: int) -> Any:
    """Return what is by seed, [n, here, ...], by row."""
    if shards == 1:
        return xs
    return jax.tree.map(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), xs)


def _mapped(local: Callable[..., Any], where: Mesh, **options: Any) -> Callable[..., Any]:
    def sharded(xs: Any, *shared: Any) -> Any:
        specs = (ROWS, *(P() for _ in shared))
        return jax.shard_map(local, mesh=where, in_specs=specs, out_specs=ROWS, check_vma=False)(
            xs, *shared
        )

    # Explicit, because jax would choose another sharding for empty arrays.
    return jax.jit(sharded, out_shardings=NamedSharding(where, ROWS), **options)
