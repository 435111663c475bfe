"""Minimal gated recurrent unit."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from memrl_jax.checks import positive, typed
from memrl_jax.memory.base import from_monoid, with_horizon
from memrl_jax.memory.monoid import DIAGONAL, Scan
from memrl_jax.types import Array, NeuralMemory


class _Cell(nn.Module):
    features: int

    def setup(self) -> None:
        self.gate = nn.Dense(self.features)
        self.candidate = nn.Dense(self.features)

    def lift(self, x: Array) -> Any:
        # sigmoid(-g) is 1 - sigmoid(g) without its rounding where units keep almost nothing.
        g = self.gate(x)
        return nn.sigmoid(-g), nn.sigmoid(g) * self.candidate(x)

    def read(self, state: Array, x: Array) -> Array:
        return state


@typed
def mingru(features: int = 64, horizon: int | None = None, scan: Scan = "auto") -> NeuralMemory:
    """Minimal GRU, whose gate sees the input only: state and output [features].

    `horizon`: initialize biases so that units remember for up to so many steps (see
    `with_horizon`). `scan`: how sequences are unrolled (see `from_monoid`). Raises ValueError for a
    horizon below 3 and an unknown `scan`.
    Feng et al. (2024), section 3.1, not in log space.
    """
    cell = _Cell(positive("features", features))
    memory = from_monoid(DIAGONAL, cell, lambda: jnp.zeros(features, jnp.float32), scan)
    return with_horizon(memory, features, horizon, {"gate": -1})
