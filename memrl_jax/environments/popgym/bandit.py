"""Bandits whose chances of paying differ from episode to episode."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp

from memrl_jax import checks, draws
from memrl_jax.environments.interface import Interface
from memrl_jax.environments.popgym.base import Limit, right
from memrl_jax.spaces import Discrete
from memrl_jax.types import Array, Key


class Arms(NamedTuple):
    """The state of `MultiarmedBandit`."""

    chance: Array  # [arms] float32, of paying
    time: Array  # [] int32


@dataclass(frozen=True)
class MultiarmedBandit(Interface):
    """Find out which of some arms pays most often.

    The chance of every arm is drawn from 0 to 1 when an episode begins, and stays. An arm that pays
    is worth 1 / `steps`, one that does not -1 / `steps`. The time limit truncates. Observation:
    whether the last arm paid (0 at first); which arm that was is in the timestep's action.
    """

    arms: int = 10
    steps: int = 200

    observations = Discrete(2)

    def __post_init__(self) -> None:
        checks.positive("arms", self.arms)
        checks.positive("steps", self.steps)

    @property
    def actions(self) -> Discrete:
        """Space of actions: an arm."""
        return Discrete(self.arms)

    @property
    def default_params(self) -> Limit:
        """Parameters as the task was constructed."""
        return Limit(self.steps)

    def reset_env(self, key: Key, params: Limit) -> tuple[Array, Arms]:
        """Draw the arms' chances."""
        return jnp.int32(0), Arms(draws.uniform(key, (self.arms,), jnp.float32), jnp.int32(0))

    def step_env(self, key: Key, state: Arms, action: Array, params: Limit) -> Any:
        """Pull an arm."""
        paid = draws.uniform(key, (), jnp.float32) < state.chance[action]
        reward = right(paid) / params.max_steps_in_episode
        return (
            paid.astype(jnp.int32),
            Arms(state.chance, state.time + 1),
            reward,
            jnp.bool_(False),
            {},
        )
