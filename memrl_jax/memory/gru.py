"""Gated recurrent unit."""

import jax.numpy as jnp
from flax import linen as nn

from memrl_jax.checks import positive, typed
from memrl_jax.memory.base import with_horizon
from memrl_jax.memory.gates import Gates, from_gates
from memrl_jax.types import Array, NeuralMemory


def _update(h: Array, x: Gates, from_h: Gates) -> Array:
    r, z = nn.sigmoid(x[0] + from_h[0]), nn.sigmoid(x[1] + from_h[1])
    return (1 - z) * jnp.tanh(x[2] + r * from_h[2]) + z * h


@typed
def gru(features: int = 64, horizon: int | None = None) -> NeuralMemory:
    """Gated recurrent unit: state and output [features].

    `horizon`: initialize biases so that units remember for up to so many steps (see
    `with_horizon`); by default gates begin half open and forget within a few steps. Raises
    ValueError for a horizon below 3.
    Cho et al. (2014), equations 5 to 7. In place of equation 8, tanh(W x + U (r h)), the reset gate
    acts after the product, tanh(W x + b + r (U h + c)), as in cuDNN and flax: faster, and what most
    libraries mean by a GRU.
    """
    memory = from_gates(nn.GRUCell(positive("features", features)), "rzn", _update)
    return with_horizon(memory, features, horizon, {"iz": 1})
