"""Delta rule memory: writing replaces the value of a key instead of adding to it."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from memrl_jax.checks import divides, positive, typed
from memrl_jax.memory.base import from_monoid
from memrl_jax.memory.layers import Heads, lookup, outer
from memrl_jax.memory.monoid import Monoid, Reach, Scan, decays
from memrl_jax.memory.monoid import between as betw
from memrl_jax.types import Array, Key, NeuralMemory


TINY = 1e-30


class Update(NamedTuple):
    """What one input does to the state."""

    keep: Array  # [heads] the factor by which the state decays
    rate: Array  # [heads] how far the key's value moves toward the new one
    key: Array  # [heads, d] of unit length
    value: Array  # [heads, d]
    query: Array  # [heads, d] of unit length


def _apply(state: Array, update: Update) -> Array:
    state = update.keep[..., None, None] * state
    change = update.rate[..., None] * (update.value - lookup(state, update.key))
    return state + outer(change, update.key)


def _expand(update: Update) -> tuple[Array, Array]:
    rate, keep = update.rate[..., None, None], update.keep[..., None, None]
    eye = jnp.eye(update.key.shape[-1], dtype=update.key.dtype)
    decay = keep * (eye[None] - rate * outer(update.key, update.key))
    return decay, rate * outer(update.value, update.key)


def _identity(pair: tuple[Array, Array]) -> tuple[Array, Array]:
    decay, addend = pair
    eye = jnp.eye(decay.shape[-1], dtype=decay.dtype)
    return jnp.broadcast_to(eye, decay.shape), jnp.zeros_like(addend)


@jax.custom_jvp
def inverse(lower: Array) -> Array:
    """Return the inverse of 1 plus the part below the diagonal of `lower` [..., C, C].

    Blocks on the diagonal, of 1, 2, 4, ... rows, are inverted one after the other: the inverse of
    [[A, 0], [C, B]] is [[1/A, 0], [-1/B C 1/A, 1/B]].
    """
    row = np.arange(lower.shape[-1])
    inverted, size = jnp.eye(len(row), dtype=lower.dtype), 1
    while size < len(row):
        block = row // size
        below = (block[:, None] - block == 1) & (block[:, None] % 2 == 1)
        part = jnp.where(below, lower, 0)
        inverted = inverted - (part if size == 1 else inverted @ part @ inverted)
        size *= 2
    return jnp.broadcast_to(inverted, lower.shape)


@inverse.defjvp
def _(primals, tangents):
    x = inverse(*primals)
    return x, -(x @ jnp.tril(tangents[0], -1) @ x)


def _chunk(state: Array, updates: Update, reach: Reach) -> tuple[Array, Array]:
    keep, rate, key, value, query = (x.swapaxes(0, 1) for x in updates)  # [heads, C, ...]
    rate, keys = rate[..., None], key.mT
    kept = jnp.log(jnp.maximum(keep, TINY))
    between = decays(betw(kept), reach.pairs[None])
    since = decays(jnp.cumsum(kept, axis=-1), reach.before[None])[..., None]
    # What every step changes, [heads, C, d]: each sees what those before it have changed.
    seen = rate * between * (key @ keys)
    new = rate * (value - since * (key @ state.mT))
    change = inverse(seen) @ new
    reading = since * (query @ state.mT) + (between * (query @ keys)) @ change
    after = since[:, -1, :, None] * state + (between[:, -1, :, None] * change).mT @ key
    return after, reading.swapaxes(0, 1)


# S <- keep S (I - rate k k') + rate v k'
DELTA = Monoid(
    identity=_identity,
    combine=lambda first, then: (first[0] @ then[0], first[1] @ then[0] + then[1]),
    apply=_apply,
    expand=_expand,
    query=lambda state, update: lookup(state, update.query),
    chunk=_chunk,
)


class _Cell(nn.Module):
    features: int
    heads: int
    gated: bool

    def setup(self) -> None:
        self.key, self.value, self.query = (Heads(self.features, self.heads) for _ in range(3))
        self.rate = nn.Dense(self.heads, use_bias=False)
        if self.gated:
            self.gate = Heads(self.features, self.heads)
            self.step = nn.Dense(self.heads, bias_init=_steps)
            self.decay = self.param("decay", _decays, (self.heads,), jnp.float32)
        self.norm = nn.RMSNorm(epsilon=1e-5)
        self.out = nn.Dense(self.features, use_bias=False)

    def lift(self, x: Array) -> Update:
        rate = nn.sigmoid(self.rate(x))
        keep = jnp.ones_like(rate)
        if self.gated:
            decay = jnp.broadcast_to(jnp.exp(self.decay), rate.shape)
            keep = jnp.exp(-decay * nn.softplus(self.step(x)))
        key, query = _unit(nn.silu(self.key(x))), _unit(nn.silu(self.query(x)))
        return Update(keep, rate, key, nn.silu(self.value(x)), query)

    def read(self, reading: Array, x: Array) -> Array:
        y = self.norm(reading)
        if self.gated:
            y = y * nn.silu(self.gate(x))
        return self.out(y.reshape(*x.shape[:-1], -1))


def _unit(x: Array) -> Array:
    """Scale x [..., d] to unit length; the epsilon keeps zero and its gradient finite."""
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)


def _decays(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    return jnp.log(jax.random.uniform(key, shape, dtype, 1.0, 16.0))


def _steps(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    """Draw steps log-uniformly from 0.001 to 0.1 and return their inverse softplus."""
    low, high = math.log(1e-3), math.log(1e-1)
    return jnp.log(jnp.expm1(jnp.exp(jax.random.uniform(key, shape, dtype, low, high))))


@typed
def deltanet(
    features: int = 64, heads: int = 4, gated: bool = False, scan: Scan = "auto"
) -> NeuralMemory:
    """DeltaNet: state [heads, d, d] with d = features / heads, output [features].

    Writing moves the state's value for a key toward the new value, instead of adding to it.
    `gated`: the state also decays by a factor that depends on the input, and the input gates what
    is read, both as in the authors' Gated DeltaNet. Keys and queries have unit length after a SiLU,
    as in Yang et al. (2024), without the papers' short convolutions. `scan`: how sequences are
    unrolled (see `from_monoid`). Raises ValueError if `heads` does not divide `features`.
    Schlag et al. (2021), equation 24; Yang et al. (2024), equation 1; gated: Yang, Kautz &
    Hatamizadeh (2025), equation 10 and figure 1.
    """
    d = divides("features", positive("features", features), "heads", positive("heads", heads))
    cell = _Cell(features, heads, gated)
    return from_monoid(DELTA, cell, lambda: jnp.zeros((heads, d, d), jnp.float32), scan)
