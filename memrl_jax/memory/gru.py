"""Gated recurrent unit."""

from flax import linen as nn

from memrl_jax.checks import positive
from memrl_jax.memory.base import from_cell
from memrl_jax.types import NeuralMemory


def gru(features: int = 64) -> NeuralMemory:
    """Gated recurrent unit: state and output [features]. Cho et al. (2014), equations 5 to 8."""
    return from_cell(nn.GRUCell(positive("features", features)))
