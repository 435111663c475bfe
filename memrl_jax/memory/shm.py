"""Stable Hadamard memory."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from memrl_jax.checks import positive, typed
from memrl_jax.memory.base import from_monoid
from memrl_jax.memory.monoid import DIAGONAL, Scan
from memrl_jax.types import Array, Key, NeuralMemory

THETAS = 128  # in the paper; only the first is used here


class Update(NamedTuple):
    """What one input does to the state."""

    calibration: Array  # [hidden], of the factor 1 + tanh(outer(theta, calibration))
    theta: Array  # [hidden]
    value: Array  # [hidden]
    key: Array  # [hidden]
    query: Array  # [hidden]


def _expand(update: Update) -> tuple[Array, Array]:
    decay = 1 + jnp.tanh(jnp.outer(update.theta, update.calibration))
    return decay, jnp.outer(update.value, update.key)


HADAMARD = DIAGONAL._replace(
    apply=lambda state, update: DIAGONAL.apply(state, _expand(update)),
    expand=_expand,
    query=lambda state, update: state @ update.query,
)


class _Cell(nn.Module):
    features: int
    hidden: int

    def setup(self) -> None:
        self.norm = nn.LayerNorm(epsilon=1e-5)
        self.key = nn.Dense(self.hidden, use_bias=False)
        self.query = nn.Dense(self.hidden, use_bias=False)
        self.value = nn.Dense(self.hidden, use_bias=False)
        self.calibration = nn.Dense(self.hidden, use_bias=False)
        self.strength = nn.Dense(1, use_bias=False)
        self.theta = self.param("theta", _theta, (1, self.hidden))
        self.skip = nn.Dense(self.hidden)
        self.out = nn.Dense(self.features)

    def lift(self, x: Array) -> Update:
        x = self.norm(x)
        value = nn.sigmoid(self.strength(x)) * self.value(x)
        theta = jnp.broadcast_to(self.theta[0], value.shape)
        return Update(self.calibration(x), theta, value, _share(self.key(x)), _share(self.query(x)))

    def read(self, reading: Array, x: Array) -> Array:
        return self.out(reading + self.skip(self.norm(x)))


def _theta(key: Key, shape: tuple[int, int]) -> Array:
    """Draw rows as if there were `THETAS`, because `xavier_uniform` scales them by their number."""
    return nn.initializers.xavier_uniform()(key, (THETAS, shape[1]), jnp.float32)[: shape[0]]


def _share(x: Array) -> Array:
    """Return the positive part of x [..., d], scaled to a sum of one."""
    x = nn.relu(x)
    return x / (1e-5 + jnp.sum(x, axis=-1, keepdims=True))


@typed
def shm(features: int = 64, hidden: int = 32, scan: Scan = "auto") -> NeuralMemory:
    """Stable Hadamard memory: state [hidden, hidden], output [features].

    Each element of the state is multiplied by a factor between 0 and 2 that depends on the input,
    then the outer product of a value and a key is added; what is read and a linear map of the input
    are summed, as in the authors' code. The paper draws one of 128 trained vectors `theta` for each
    step; here, as in the authors' code for POPGym, it is always the first, because a draw would
    make acting and learning differ. `scan`: how sequences are unrolled (see `from_monoid`).
    Le et al. (2025), equations 4 to 9.
    """
    cell = _Cell(positive("features", features), positive("hidden", hidden))
    return from_monoid(HADAMARD, cell, lambda: jnp.zeros((hidden, hidden), jnp.float32), scan)
