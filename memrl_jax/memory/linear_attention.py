"""Linear attention."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from memrl_jax import tree
from memrl_jax.checks import divides, positive, typed
from memrl_jax.memory.base import from_monoid
from memrl_jax.memory.layers import Heads, lookup, outer
from memrl_jax.memory.monoid import Monoid, Reach, Scan
from memrl_jax.types import Array, NeuralMemory


class State(NamedTuple):
    """Sums over everything written."""

    values: Array  # [heads, d, d] sum of values times keys
    keys: Array  # [heads, d] sum of keys


class Update(NamedTuple):
    """What one input does to the state."""

    key: Array  # [heads, d]
    value: Array
    query: Array


def _addend(update: Update) -> State:
    return State(outer(update.value, update.key), update.key)


def _add(first: State, then: State) -> State:
    return jax.tree.map(jnp.add, first, then)


def _attend(state: State, update: Update) -> Array:
    total = jnp.sum(state.keys * update.query, axis=-1, keepdims=True)
    return lookup(state.values, update.query) / (total + 1e-6)


def _chunk(state: State, updates: Update, reach: Reach) -> tuple[State, Array]:
    """Attend within a chunk by products [C, C], and to what was before by the state."""
    key, value, query = (x.swapaxes(0, 1) for x in updates)  # [heads, C, d]
    seen = jnp.where(reach.pairs[None], query @ key.mT, 0)
    earlier = jnp.where(reach.before[None, :, None], query, 0)
    total = jnp.sum(seen, axis=-1) + jnp.sum(earlier * state.keys[:, None], axis=-1)
    reading = (seen @ value + earlier @ state.values.mT) / (total[..., None] + 1e-6)
    last = jnp.where(reach.pairs[-1][None, :, None], key, 0)
    kept = tree.where(reach.before[-1], state, jax.tree.map(jnp.zeros_like, state))
    return _add(kept, State(value.mT @ last, jnp.sum(last, axis=1))), reading.swapaxes(0, 1)


# Nothing decays.
SUM = Monoid(
    identity=lambda pair: jax.tree.map(jnp.zeros_like, pair),
    combine=lambda first, then: ((), _add(first[1], then[1])),
    apply=lambda state, update: _add(state, _addend(update)),
    expand=lambda update: ((), _addend(update)),
    query=_attend,
    chunk=_chunk,
)


class _Cell(nn.Module):
    features: int
    heads: int

    def setup(self) -> None:
        self.key, self.value, self.query = (Heads(self.features, self.heads) for _ in range(3))
        self.out = nn.Dense(self.features)

    def lift(self, x: Array) -> Update:
        return Update(1 + nn.elu(self.key(x)), self.value(x), 1 + nn.elu(self.query(x)))

    def read(self, reading: Array, x: Array) -> Array:
        return self.out(reading.reshape(*x.shape[:-1], self.features))


@typed
def linear_attention(features: int = 64, heads: int = 4, scan: Scan = "auto") -> NeuralMemory:
    """Linear attention over the whole episode: output [features].

    State [heads, d, d] and [heads, d] with d = features / heads. `scan`: how sequences are unrolled
    (see `from_monoid`). Raises ValueError if `heads` does not divide `features`.
    Katharopoulos et al. (2020), equations 16 to 20, with a linear layer for f and without the input
    that equation 20 adds to what is read: `stack` adds a layer's output to its residual stream.
    """
    d = divides("features", positive("features", features), "heads", positive("heads", heads))

    def initial_state() -> State:
        return State(jnp.zeros((heads, d, d), jnp.float32), jnp.zeros((heads, d), jnp.float32))

    return from_monoid(SUM, _Cell(features, heads), initial_state, scan)
