"""Functions of `jax.random`: the same bits from the same keys, with less overhead on a CPU.

There jax runs Threefry's rounds in a loop that copies all it carries five times over. A draw of
128 numbers takes 2.5 us so, and 0.4 us with the rounds written out, and a training program compiles
a sixth sooner. Draws of a few numbers stay a loop, which compiles soonest, but one that carries
these numbers alone: XLA runs whatever in a program does not wait for anything else in several
threads, and the copies of constants that jax's loops begin with, three each, were most of that in
a training loop, which takes a sixth less time without them. Keys are given and returned as jax's
own; on other platforms nothing is different. Salmon et al. (2011), Threefry 2x32 with 20 rounds.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import random as extend

from memrl_jax.types import Array, Key

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
SMALL = 16  # numbers of one key up to which XLA makes one kernel of a loop: compiles sooner


def _keys(key: Array) -> tuple[Array, Array, Array]:
    """Return the three words of a key [2] that are added in turns."""
    return key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(PARITY)


def _rounds(high: Array, low: Array, rotations: Any) -> tuple[Array, Array]:
    for rotation in rotations:
        high = high + low
        low = high ^ (low << jnp.uint32(rotation) | low >> jnp.uint32(32 - rotation))
    return high, low


def _threefry(key: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Encrypt a counter of two words [...] with a key [2], all uint32."""
    keys = _keys(key)
    high, low = high + keys[0], low + keys[1]
    for i in range(5):
        high, low = _rounds(high, low, ROTATIONS[i % 2])
        high, low = high + keys[(i + 1) % 3], low + keys[(i + 2) % 3] + jnp.uint32(i + 1)
    return high, low


def _numbered(key: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Encrypt the numbers of all places of an array."""
    size = math.prod(shape)
    low = jax.lax.iota(jnp.uint32, size)
    encrypt = _few if size <= SMALL else _threefry
    high, low = encrypt(key, jnp.zeros_like(low), low)
    return high.reshape(shape), low.reshape(shape)


@jax.custom_batching.custom_vmap
def _few(key: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Encrypt few counters [n] as `_threefry` does, in a loop; for many keys at once, without."""
    keys, rotations = jnp.stack(_keys(key)), jnp.array(ROTATIONS, jnp.uint32)

    def group(i: Array, words: tuple[Array, Array]) -> tuple[Array, Array]:
        high, low = _rounds(*words, rotations[i % 2])
        return high + keys[(i + 1) % 3], low + keys[(i + 2) % 3] + (i + 1).astype(jnp.uint32)

    return jax.lax.fori_loop(0, 5, group, (high + keys[0], low + keys[1]))


@_few.def_vmap
def _few_each(size: int, batched: Any, *args: Array) -> tuple[Any, Any]:
    axes = tuple(0 if x else None for x in batched)
    words = jax.vmap(_threefry, axes, axis_size=size)(*args)
    # Else jaxlib 0.11 fuses draws with those of the keys that they make, and compiles for minutes.
    return jax.lax.optimization_barrier(words), (True, True)


def _seed(seed: Array) -> Array:
    return jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    return jnp.stack(_numbered(key, tuple(shape)), axis=-1)


def _bits(key: Array, width: int, shape: tuple[int, ...]) -> Array:
    high, low = _numbered(key, tuple(shape))
    if width == 64:
        return high.astype(jnp.uint64) << 32 | low
    return (high ^ low).astype(f"uint{width}")


def _fold_in(key: Array, data: Any) -> Array:
    data = jnp.asarray(data, jnp.uint32)[None]
    return jnp.concatenate(_few(key, jnp.zeros_like(data), data))


_UNROLLED = extend.define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_bits,
    fold_in=_fold_in,
    name="unrolled",
    tag="unrolled",
)


def _unrolled(key: Key) -> Key:
    """Return a key [...] from which the same numbers are drawn, by fewer operations.

    Only Threefry's typed keys are changed, and only on a CPU. jax's check of key reuse cannot
    follow the change, so while that is on, the key is returned as it is.
    """
    checked = jax.config.jax_debug_key_reuse  # type: ignore[attr-defined]
    if checked or not _is_key(key) or jax.default_backend() != "cpu":
        return key
    if jax.random.key_impl(key) != "threefry2x32":
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_UNROLLED)


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _fast(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of `jax.random` draw from unrolled keys; keys that it returns are jax's."""

    @wraps(draw)
    def drawn(key: Key, *args: Any, **options: Any) -> Any:
        fast = _unrolled(key)
        x = draw(fast, *args, **options)
        if fast is key or not _is_key(x):
            return x
        return jax.random.wrap_key_data(jax.random.key_data(x), impl="threefry2x32")

    return drawn


split = _fast(jax.random.split)
fold_in = _fast(jax.random.fold_in)
bernoulli = _fast(jax.random.bernoulli)
categorical = _fast(jax.random.categorical)
choice = _fast(jax.random.choice)
normal = _fast(jax.random.normal)
permutation = _fast(jax.random.permutation)
rademacher = _fast(jax.random.rademacher)
randint = _fast(jax.random.randint)
uniform = _fast(jax.random.uniform)
