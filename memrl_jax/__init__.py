"""Memory-augmented reinforcement learning as pure functions on JAX."""

from memrl_jax.config import Config, make_train, presets
from memrl_jax.types import (
    Agent,
    Environment,
    Network,
    NeuralMemory,
    ReplayMemory,
    Sample,
    Segment,
    TimeStep,
)

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "Config",
    "Environment",
    "Network",
    "NeuralMemory",
    "ReplayMemory",
    "Sample",
    "Segment",
    "TimeStep",
    "make_train",
    "presets",
]
