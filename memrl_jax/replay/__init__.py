"""Replay memories: experience kept in rings of device arrays."""

from collections.abc import Callable

from memrl_jax.replay.prioritized import prioritized
from memrl_jax.replay.uniform import uniform
from memrl_jax.types import ReplayMemory

REPLAYS: dict[str, Callable[..., ReplayMemory]] = {"uniform": uniform, "prioritized": prioritized}

__all__ = ["REPLAYS", "prioritized", "uniform"]
