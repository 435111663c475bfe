"""Matrix LSTM."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from memrl_jax.checks import divides, positive, typed
from memrl_jax.memory.base import from_monoid
from memrl_jax.memory.layers import Heads, lookup, outer
from memrl_jax.memory.monoid import Monoid, Reach, Scan, between
from memrl_jax.types import Array, Key, NeuralMemory

NOTHING = -1e30  # logarithm of a scale so small that what it scales is zero


class State(NamedTuple):
    """The state divided by exp(scale), without which the exponential gates would overflow."""

    scale: Array  # [heads]
    cell: Array  # [heads, d, d] values times keys
    keys: Array  # [heads, d]


class Update(NamedTuple):
    """What one input does to the state."""

    forget: Array  # [heads] logarithm of the forget gate
    write: Array  # [heads] logarithm of the input gate
    key: Array  # [heads, d]
    value: Array
    query: Array


def _add(first: State, then: State) -> State:
    # The state does not depend on the scale it is represented in, so nothing is lost by stopping
    # the scale's gradient.
    scale = jax.lax.stop_gradient(jnp.maximum(first.scale, then.scale))
    a, b = jnp.exp(first.scale - scale), jnp.exp(then.scale - scale)
    cell = a[..., None, None] * first.cell + b[..., None, None] * then.cell
    return State(scale, cell, a[..., None] * first.keys + b[..., None] * then.keys)


def _addend(update: Update) -> State:
    return State(update.write, outer(update.value, update.key), update.key)


def _decayed(state: State, forget: Array) -> State:
    return state._replace(scale=state.scale + forget)


def _attend(state: State, update: Update) -> Array:
    total = jnp.abs(jnp.sum(state.keys * update.query, axis=-1))
    reading = lookup(state.cell, update.query)
    return reading / jnp.maximum(total, jnp.exp(-state.scale))[..., None]


def _identity(pair: tuple[Array, State]) -> tuple[Array, State]:
    forget, state = jax.tree.map(jnp.zeros_like, pair)
    return forget, state._replace(scale=state.scale + NOTHING)


def _chunk(state: State, updates: Update, reach: Reach) -> tuple[State, Array]:
    """Attend within a chunk by products [C, C], and to what was before by the state.

    Every step has the scale that it has step by step: the largest logarithm of what it sees.
    """
    forget, write, key, value, query = (x.swapaxes(0, 1) for x in updates)  # [heads, C, ...]
    pairs = jnp.where(reach.pairs[None], between(forget) + write[:, None], NOTHING)
    since = jnp.cumsum(forget, axis=-1) + state.scale[:, None]
    since = jnp.where(reach.before[None], since, NOTHING)  # [heads, C]
    scale = jax.lax.stop_gradient(jnp.maximum(jnp.max(pairs, axis=-1), since))
    pairs, since = jnp.exp(pairs - scale[..., None]), jnp.exp(since - scale)[..., None]
    seen = pairs * (query @ key.mT)
    total = jnp.sum(seen, axis=-1) + jnp.sum(since * query * state.keys[:, None], axis=-1)
    reading = seen @ value + since * (query @ state.cell.mT)
    reading = reading / jnp.maximum(jnp.abs(total), jnp.exp(-scale))[..., None]
    last, kept = pairs[:, -1, :, None] * key, since[:, -1]
    cell = kept[..., None] * state.cell + value.mT @ last
    keys = kept * state.keys + jnp.sum(last, axis=1)
    return State(scale[:, -1], cell, keys), reading.swapaxes(0, 1)


STABILIZED = Monoid(
    identity=_identity,
    combine=lambda first, then: (first[0] + then[0], _add(_decayed(first[1], then[0]), then[1])),
    apply=lambda state, update: _add(_decayed(state, update.forget), _addend(update)),
    expand=lambda update: (update.forget, _addend(update)),
    query=_attend,
    chunk=_chunk,
)


class _Cell(nn.Module):
    features: int
    heads: int

    def setup(self) -> None:
        sizes = self.features, self.heads
        self.key, self.value, self.query = (Heads(*sizes, use_bias=True) for _ in range(3))
        self.write = nn.Dense(self.heads, bias_init=nn.initializers.normal(0.1))
        self.forget = nn.Dense(self.heads, bias_init=_forget_biases)
        self.output = nn.Dense(self.features)

    def lift(self, x: Array) -> Update:
        key = self.key(x) / math.sqrt(self.features // self.heads)
        forget = nn.log_sigmoid(self.forget(x))
        return Update(forget, self.write(x), key, self.value(x), self.query(x))

    def read(self, reading: Array, x: Array) -> Array:
        return nn.sigmoid(self.output(x)) * reading.reshape(*x.shape[:-1], self.features)


def _forget_biases(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    return jnp.linspace(3.0, 6.0, shape[0], dtype=dtype)


@typed
def mlstm(features: int = 64, heads: int = 4, scan: Scan = "auto") -> NeuralMemory:
    """Matrix LSTM: output [features], d = features / heads.

    State: scale [heads], cell [heads, d, d] and keys [heads, d]. The input gate is exponential, the
    forget gate a sigmoid. The keys' bias is divided by the root of d, like their weights. The
    cell only, without the authors' block around it (convolution, norm, projections up and down).
    `scan`: how sequences are unrolled (see `from_monoid`). Raises ValueError if `heads` does not
    divide `features`.
    Beck et al. (2024), equations 19 to 27.
    """
    d = divides("features", positive("features", features), "heads", positive("heads", heads))

    def initial_state() -> State:
        cell, keys = jnp.zeros((heads, d, d), jnp.float32), jnp.zeros((heads, d), jnp.float32)
        return State(jnp.full(heads, NOTHING, jnp.float32), cell, keys)

    return from_monoid(STABILIZED, _Cell(features, heads), initial_state, scan)
