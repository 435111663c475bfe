"""Agents: a policy and how it learns."""

from collections.abc import Callable
from typing import Any, NamedTuple

from memrl_jax.agents.dqn import DQNConfig, dqn
from memrl_jax.agents.exploration import ExplorationConfig
from memrl_jax.agents.mfec import MFECConfig, mfec
from memrl_jax.agents.nec import NECConfig, nec
from memrl_jax.agents.optimizer import OptimizerConfig
from memrl_jax.agents.ppo import PPOConfig, ppo
from memrl_jax.agents.pqn import PQNConfig, pqn
from memrl_jax.agents.restarting import restarting
from memrl_jax.agents.sac import SACConfig, sac
from memrl_jax.agents.tabular import TabularConfig, tabular
from memrl_jax.settings import BodyConfig, ReplayConfig
from memrl_jax.types import Agent, Body, ReplayMemory, Spec


class Parts(NamedTuple):
    """The parts that agents are made from; `build.parts` returns them."""

    spec: Spec
    horizon: int  # no episode is longer than this many steps
    body: Callable[[BodyConfig], Body]
    replay: Callable[[ReplayConfig], ReplayMemory]


def _dqn(config: DQNConfig, parts: Parts) -> Agent:
    return dqn(config, parts.spec, parts.body(config.body), parts.replay(config.experience))


def _mfec(config: MFECConfig, parts: Parts) -> Agent:
    return mfec(config, parts.spec, parts.horizon)


def _nec(config: NECConfig, parts: Parts) -> Agent:
    return nec(config, parts.spec, parts.body(config.body), parts.replay(config.experience))


def _ppo(config: PPOConfig, parts: Parts) -> Agent:
    return ppo(config, parts.spec, parts.body(config.body))


def _pqn(config: PQNConfig, parts: Parts) -> Agent:
    return pqn(config, parts.spec, parts.body(config.body))


def _sac(config: SACConfig, parts: Parts) -> Agent:
    return sac(config, parts.spec, parts.body(config.body), parts.replay(config.experience))


def _tabular(config: TabularConfig, parts: Parts) -> Agent:
    return tabular(config, parts.spec)


# name -> (the class of its config, a function of a config and the parts that makes the agent)
AGENTS: dict[str, tuple[type, Callable[[Any, Parts], Agent]]] = {
    "dqn": (DQNConfig, _dqn),
    "mfec": (MFECConfig, _mfec),
    "nec": (NECConfig, _nec),
    "ppo": (PPOConfig, _ppo),
    "pqn": (PQNConfig, _pqn),
    "sac": (SACConfig, _sac),
    "tabular": (TabularConfig, _tabular),
}

__all__ = ["AGENTS", "Parts", "restarting"]
__all__ += ["dqn", "mfec", "nec", "ppo", "pqn", "sac", "tabular"]
__all__ += ["DQNConfig", "MFECConfig", "NECConfig", "PPOConfig", "PQNConfig", "SACConfig"]
__all__ += ["ExplorationConfig", "OptimizerConfig", "TabularConfig"]
