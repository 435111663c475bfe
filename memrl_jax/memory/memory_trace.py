"""Exponential moving averages of the inputs: a very cheap baseline."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from memrl_jax.checks import divides, positive, typed, within
from memrl_jax.memory.base import from_monoid
from memrl_jax.memory.monoid import DIAGONAL, Scan
from memrl_jax.types import Array, NeuralMemory


class _Cell(nn.Module):
    features: int
    decays: tuple[float, ...]

    def setup(self) -> None:
        self.project = nn.Dense(self.features)

    def lift(self, x: Array) -> Any:
        x = self.project(x)
        decay = jnp.repeat(jnp.asarray(self.decays, x.dtype), self.features // len(self.decays))
        decay = jnp.broadcast_to(decay, x.shape)
        return decay, (1 - decay) * x

    def read(self, state: Array, x: Array) -> Array:
        return state


@typed
def memory_trace(
    features: int = 64, decays: tuple[float, ...] = (0.0, 0.5, 0.9, 0.99), scan: Scan = "auto"
) -> NeuralMemory:
    """Exponential moving averages of the projected inputs: state and output [features].

    The features are split evenly among the `decays`, which are not learned; a decay of 0 gives the
    present input. `scan`: how sequences are unrolled (see `from_monoid`). Raises ValueError if
    `features` is not a multiple of the number of decays or one of these is not in [0, 1].
    Eberhard et al. (2025), equation 2.
    """
    for decay in decays:
        within("decays", decay, 0, 1)
    count = positive("len(decays)", len(decays))
    divides("features", positive("features", features), "len(decays)", count)
    cell = _Cell(features, tuple(decays))
    return from_monoid(DIAGONAL, cell, lambda: jnp.zeros(features, jnp.float32), scan)
