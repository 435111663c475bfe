"""Long short-term memory."""

from typing import Any

import jax
from flax import linen as nn

from memrl_jax.checks import at_least, positive
from memrl_jax.memory.base import from_cell, horizon_bias
from memrl_jax.types import Array, Key, NeuralMemory


def lstm(features: int = 64, horizon: int | None = None) -> NeuralMemory:
    """Long short-term memory: state two of [features], output [features].

    `horizon`: begin with biases by which cells keep what they hold for up to so many steps (see
    `horizon_bias`); by default gates begin half open, and forget within a few. Raises ValueError
    for a horizon below 3.
    Hochreiter & Schmidhuber (1997), with the forget gate of Gers et al. (2000).
    """
    memory = from_cell(nn.OptimizedLSTMCell(positive("features", features)))
    if horizon is None:
        return memory
    at_least("horizon", horizon, 3)

    def init(key: Key, x: Array) -> Any:
        cell_key, bias_key = jax.random.split(key)
        params = memory.init(cell_key, x)["params"]
        keep = horizon_bias(bias_key, features, horizon)
        # Open input gates would take up a cue in a twentieth of the updates, but also everything
        # else on the way: on the T-Maze, agents then did not learn to walk.
        forget, take = params["hf"] | {"bias": keep}, params["hi"] | {"bias": -keep}
        return {"params": params | {"hf": forget, "hi": take}}

    return memory._replace(init=init)
