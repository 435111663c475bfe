"""Agents: a policy and how it learns."""

from collections.abc import Callable
from typing import Any, NamedTuple

from memrl_jax.agents.dqn import DQNConfig, dqn
from memrl_jax.agents.exploration import ExplorationConfig
from memrl_jax.agents.optimizer import OptimizerConfig
from memrl_jax.agents.restarting import restarting
from memrl_jax.agents.sac import SACConfig, sac
from memrl_jax.agents.tabular import TabularConfig, tabular
from memrl_jax.settings import BodyConfig, ReplayConfig
from memrl_jax.types import Agent, Body, ReplayMemory, Spec


class Parts(NamedTuple):
    """What there is to make an agent of; `build.parts` gives it."""

    spec: Spec
    horizon: int  # no episode is longer than this many steps
    body: Callable[[BodyConfig], Body]
    replay: Callable[[ReplayConfig], ReplayMemory]


def _dqn(config: DQNConfig, parts: Parts) -> Agent:
    return dqn(config, parts.spec, parts.body(config.body), parts.replay(config.experience))


def _tabular(config: TabularConfig, parts: Parts) -> Agent:
    return tabular(config, parts.spec)


def _sac(config: SACConfig, parts: Parts) -> Agent:
    return sac(config, parts.spec, parts.body(config.body), parts.replay(config.experience))


# name -> its config, and what makes it of its config and the parts that there are
AGENTS: dict[str, tuple[type, Callable[[Any, Parts], Agent]]] = {
    "dqn": (DQNConfig, _dqn),
    "tabular": (TabularConfig, _tabular),
    "sac": (SACConfig, _sac),
}

__all__ = ["AGENTS", "DQNConfig", "ExplorationConfig", "OptimizerConfig", "Parts", "dqn"]
__all__ += ["restarting"]
__all__ += ["SACConfig", "TabularConfig", "sac", "tabular"]
