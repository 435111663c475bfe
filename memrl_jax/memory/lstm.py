"""Long short-term memory."""

from flax import linen as nn

from memrl_jax.checks import positive
from memrl_jax.memory.base import from_cell, with_horizon
from memrl_jax.types import NeuralMemory


def lstm(features: int = 64, horizon: int | None = None) -> NeuralMemory:
    """Long short-term memory: state two of [features], output [features].

    `horizon`: begin with biases by which cells keep what they hold for up to so many steps (see
    `with_horizon`); by default gates begin half open, and forget within a few. Raises ValueError
    for a horizon below 3.
    Hochreiter & Schmidhuber (1997), with the forget gate of Gers et al. (2000).
    """
    memory = from_cell(nn.OptimizedLSTMCell(positive("features", features)))
    # Open input gates would take up a cue in a twentieth of the updates, but everything else on the
    # way, too: on the T-Maze, agents then did not learn to walk.
    return with_horizon(memory, features, horizon, {"hf": 1, "hi": -1})
