"""Agents: a policy and how it learns."""

from collections.abc import Callable

from memrl_jax.agents.dqn import DQNConfig, dqn
from memrl_jax.agents.r2d2 import R2D2Config, r2d2
from memrl_jax.types import Agent

AGENTS: dict[str, Callable[..., Agent]] = {"dqn": dqn, "r2d2": r2d2}

__all__ = ["AGENTS", "DQNConfig", "R2D2Config", "dqn", "r2d2"]
