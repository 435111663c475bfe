"""Neural memories: what an agent carries from step to step."""

from collections.abc import Callable

from memrl_jax.memory.base import from_cell, from_step
from memrl_jax.memory.gru import gru
from memrl_jax.memory.lstm import lstm
from memrl_jax.memory.none import none
from memrl_jax.types import NeuralMemory

MEMORIES: dict[str, Callable[..., NeuralMemory]] = {"none": none, "gru": gru, "lstm": lstm}

__all__ = ["MEMORIES", "from_cell", "from_step", "gru", "lstm", "none"]
