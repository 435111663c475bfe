"""Many seeds of one pure function, over the devices at hand.

Seeds are spread over devices. Within a device they are mapped one after another on CPU, where
that is faster than vmap and compiles sooner, and vmapped on an accelerator. All of it is one
compiled program. A seed's numbers do not depend on how many run beside it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from memrl_jax import tree
from memrl_jax.types import Array, Key

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


def mesh(seeds: int) -> Mesh:
    """Return a mesh of the devices that run `seeds` seeds: at most one per seed."""
    devices = jax.devices()[:seeds]
    return Mesh(np.array(devices), ("seeds",))


def pad(states: Any, seeds: int) -> Any:
    """Shard states [S, ...] over the devices, with copies of the last one to fill them evenly.

    The padding costs no time. Programs are compiled for a sharding, so new and loaded states must
    have the same one.
    """
    where = mesh(seeds)
    extra = -seeds % where.size

    def repeat(x: Array) -> Array:
        last = tree.clone_keys(x)[-1:]
        return jnp.concatenate([x, jnp.broadcast_to(last, (extra, *x.shape[1:]))])

    states = jax.tree.map(repeat, states) if extra else states
    return jax.device_put(states, NamedSharding(where, P("seeds")))


def padded(shapes: Any, seeds: int) -> Any:
    """Return the shapes and shardings that `pad` gives to states of shapes [S, ...]."""
    where = mesh(seeds)
    sharding, rows = NamedSharding(where, P("seeds")), seeds + -seeds % where.size

    def lay(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=sharding)

    return jax.tree.map(lay, shapes)


def over_seeds(f: Callable[..., Any], seeds: int) -> Callable[..., Any]:
    """Return `g(xs, *shared)`, jitted: `f(x, *shared)` for every seed of padded `xs` [S, ...]."""
    where = mesh(seeds)
    one_by_one = where.devices.flat[0].platform == "cpu"

    def local(xs: Any, *shared: Any) -> Any:
        def one(x: Any) -> Any:
            return f(x, *shared)

        return jax.lax.map(one, xs) if one_by_one else jax.vmap(one)(xs)

    return _shard(local, where)


def update_seeds(f: Callable[..., Any], seeds: int) -> Callable[..., Any]:
    """Like `over_seeds`, for an `f` that returns its `x` updated; `xs` is donated.

    States are updated in place, so a large one is held once.
    """
    where = mesh(seeds)
    one_by_one = where.devices.flat[0].platform == "cpu"

    def local(xs: Any, *shared: Any) -> Any:
        if not one_by_one:
            return jax.vmap(lambda x: f(x, *shared))(xs)

        def one(i: Array, xs: Any) -> Any:
            x = f(jax.tree.map(lambda x: x[i], tree.clone_keys(xs)), *shared)
            return jax.tree.map(lambda xs, x: xs.at[i].set(x), xs, x)

        return jax.lax.fori_loop(0, len(jax.tree.leaves(xs)[0]), one, xs)

    return _shard(local, where, donate_argnums=0)


def _shard(local: Callable[..., Any], where: Mesh, **options: Any) -> Callable[..., Any]:
    def sharded(xs: Any, *shared: Any) -> Any:
        specs = (P("seeds"), *(P() for _ in shared))
        return jax.shard_map(
            local, mesh=where, in_specs=specs, out_specs=P("seeds"), check_vma=False
        )(xs, *shared)

    # Explicit, because jax would choose another sharding for empty arrays.
    return jax.jit(sharded, out_shardings=NamedSharding(where, P("seeds")), **options)
