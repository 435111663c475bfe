"""Long short-term memory."""

import jax.numpy as jnp
from flax import linen as nn

from memrl_jax.checks import positive, typed
from memrl_jax.memory.base import with_horizon
from memrl_jax.memory.gates import Gates, from_gates
from memrl_jax.types import Array, NeuralMemory


def update(state: tuple[Array, Array], x: Gates, from_h: Gates) -> tuple[Array, Array]:
    """Return the next cell and hidden state [features], from the two parts of every gate."""
    i, f, g, o = (a + b for a, b in zip(x, from_h, strict=True))
    c = nn.sigmoid(f) * state[0] + nn.sigmoid(i) * jnp.tanh(g)
    return c, nn.sigmoid(o) * jnp.tanh(c)


@typed
def lstm(features: int = 64, horizon: int | None = None) -> NeuralMemory:
    """Long short-term memory: state two of [features], output [features].

    `horizon`: initialize biases so that cells remember for up to so many steps (see
    `with_horizon`); by default gates begin half open and forget within a few steps. Raises
    ValueError for a horizon below 3.
    Hochreiter & Schmidhuber (1997), with the forget gate of Gers et al. (2000).
    """
    memory = from_gates(nn.OptimizedLSTMCell(positive("features", features)), "ifgo", update)
    # With open input gates, agents learn to store a cue in a twentieth of the updates, but cells
    # also store every later input: on the T-Maze, agents then did not learn to walk.
    return with_horizon(memory, features, horizon, {"hf": 1, "hi": -1})
