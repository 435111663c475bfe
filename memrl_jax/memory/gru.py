"""Gated recurrent unit."""

from typing import Any

import jax
from flax import linen as nn

from memrl_jax.checks import at_least, positive
from memrl_jax.memory.base import from_cell, horizon_bias
from memrl_jax.types import Array, Key, NeuralMemory


def gru(features: int = 64, horizon: int | None = None) -> NeuralMemory:
    """Gated recurrent unit: state and output [features].

    `horizon`: begin with biases by which units keep what they hold for up to so many steps (see
    `horizon_bias`); by default gates begin half open, and forget within a few. Raises ValueError
    for a horizon below 3.
    Cho et al. (2014), equations 5 to 8.
    """
    memory = from_cell(nn.GRUCell(positive("features", features)))
    if horizon is None:
        return memory
    at_least("horizon", horizon, 3)

    def init(key: Key, x: Array) -> Any:
        cell_key, bias_key = jax.random.split(key)
        params = memory.init(cell_key, x)["params"]
        keep = params["iz"] | {"bias": horizon_bias(bias_key, features, horizon)}
        return {"params": params | {"iz": keep}}

    return memory._replace(init=init)
