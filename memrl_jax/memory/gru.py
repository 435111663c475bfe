"""Gated recurrent unit."""

from flax import linen as nn

from memrl_jax.checks import positive
from memrl_jax.memory.base import from_cell, with_horizon
from memrl_jax.types import NeuralMemory


def gru(features: int = 64, horizon: int | None = None) -> NeuralMemory:
    """Gated recurrent unit: state and output [features].

    `horizon`: begin with biases by which units keep what they hold for up to so many steps (see
    `with_horizon`); by default gates begin half open, and forget within a few. Raises ValueError
    for a horizon below 3.
    Cho et al. (2014), equations 5 to 8.
    """
    memory = from_cell(nn.GRUCell(positive("features", features)))
    return with_horizon(memory, features, horizon, {"iz": 1})
