"""Agents: a policy and how it learns."""

from collections.abc import Callable

from memrl_jax.agents.dqn import DQNConfig, dqn
from memrl_jax.types import Agent

AGENTS: dict[str, Callable[..., Agent]] = {"dqn": dqn}

__all__ = ["AGENTS", "DQNConfig", "dqn"]
