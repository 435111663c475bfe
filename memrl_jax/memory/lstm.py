"""Long short-term memory."""

from flax import linen as nn

from memrl_jax.checks import positive
from memrl_jax.memory.base import from_cell
from memrl_jax.types import NeuralMemory


def lstm(features: int = 64) -> NeuralMemory:
    """Long short-term memory: state two of [features], output [features].

    Hochreiter & Schmidhuber (1997), with the forget gate of Gers et al. (2000).
    """
    return from_cell(nn.OptimizedLSTMCell(positive("features", features)))
