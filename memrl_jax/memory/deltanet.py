"""Delta rule memory: writing replaces the value of a key instead of adding to it."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from memrl_jax import draws
from memrl_jax.checks import divides, positive, typed
from memrl_jax.memory.base import from_monoid
from memrl_jax.memory.layers import Heads, lookup, outer
from memrl_jax.memory.monoid import Monoid, Reach, Scan, between, decay
from memrl_jax.types import Array, Key, NeuralMemory

TINY = 1e-30  # the least factor that has a logarithm


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
def inverse(x: Array) -> Array:
    """Return the inverse of the identity plus what is below the diagonal of x [..., C, C].

    Blocks on the diagonal are inverted, of 1, 2, 4, ... rows: that of [[A, 0], [B, C]] is
    [[1/A, 0], [-1/C B 1/A, 1/C]]. No powers of x are formed, which can be large.
    """
    row, size = np.arange(x.shape[-1]), 1
    found = jnp.broadcast_to(jnp.eye(len(row), dtype=x.dtype), x.shape)
    while size < len(row):
        block = row // size
        pairs = (block[:, None] % 2 == 1) & (block[:, None] - block[None] == 1)
        found = found - found @ jnp.where(pairs, x, 0) @ found
        size *= 2
    return found


@inverse.defjvp
def _change_of_inverse(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    found = inverse(*primals)
    return found, -(found @ jnp.tril(*tangents, -1) @ found)


def _chunk(state: Array, updates: Update, reach: Reach) -> tuple[Array, Array]:
    """Find all changes of a chunk at once, and read and write by products.

    The state after step t is the one before the chunk and the sum over s <= t of outer products of
    changes and keys, all decayed since. A change depends on those before it: a linear system.
    Yang et al. (2024), section 3.2 (the UT transform); gated: Yang et al. (2025), section 3.3.
    """
    keep, rate, key, value, query = (x.swapaxes(0, 1) for x in updates)  # [heads, C, ...]
    rate, kept = rate[..., None], jnp.log(jnp.maximum(keep, TINY))
    pairs = decay(between(kept), reach.pairs[None])  # [heads, C, C]
    since = decay(jnp.cumsum(kept, axis=-1), reach.before[None])[..., None]
    news = rate * (value - since * (key @ state.mT))
    change = inverse(rate * pairs * (key @ key.mT)) @ news
    reading = since * (query @ state.mT) + (pairs * (query @ key.mT)) @ change
    lasting = pairs[:, -1, :, None] * change
    return since[:, -1:] * state + lasting.mT @ key, reading.swapaxes(0, 1)


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
        return self.out(y.reshape(*x.shape[:-1], self.features))


def _unit(x: Array) -> Array:
    """Scale x [..., d] to unit length; the epsilon keeps zero and its gradient finite."""
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)


def _decays(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    return jnp.log(draws.uniform(key, shape, dtype, 1.0, 16.0))


def _steps(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    """Draw steps log-uniformly from 0.001 to 0.1 and return their inverse softplus."""
    low, high = math.log(1e-3), math.log(1e-1)
    return jnp.log(jnp.expm1(jnp.exp(draws.uniform(key, shape, dtype, low, high))))


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
