"""Trials: several episodes of one task, through which a memory is kept."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax import checks, draws, tree
from memrl_jax.environments.base import Arrival, episodic
from memrl_jax.spaces import Discrete
from memrl_jax.types import Array, Environment, Key, TimeStep


class Trial(NamedTuple):
    """The state of a trial."""

    task: Any  # what all its episodes have in common
    episode: Any  # the state of the environment in this one
    legal: Any  # masks of the actions allowed now; () where all are
    left: Array  # [] int32: episodes that have not ended


def trials(
    env_of_task: Callable[[Any], Environment], task: Callable[[Key], Any], episodes: int
) -> Environment:
    """Make an environment in which one episode is a trial: `episodes` episodes of one drawn task.

    `task`: key -> a pytree of arrays; `env_of_task` makes the environment of one task, which may be
    traced; spaces and horizon are those of any. An inner episode ends where that environment says
    so, and the next one begins, by its `reset`, in the same timestep: no action is ignored, and of
    the true last observations only the trial's is seen. Observations become
    {"observation": what the environment shows, "ended": 1 where an inner episode has just ended}.
    `start` and `last` are the trial's alone, so memories are kept and returns go on within it; it
    terminates with its last episode. With the previous action and reward, which the network has to
    be shown too (`previous_action`, `previous_reward`), these are the inputs of RL^2. Raises
    ValueError unless `episodes` is from 1 on, and for a horizon beyond int32.
    Duan et al. (2016), section 2.2.
    """
    checks.positive("episodes", episodes)
    _, _, spec, horizon = env_of_task(task(jax.random.key(0)))
    checks.positive("horizon", episodes * horizon)

    def first(key: Key) -> tuple[Trial, Any]:
        task_key, key = draws.split(key)
        drawn = task(task_key)
        episode, begun = env_of_task(drawn).reset(key)
        return Trial(drawn, episode, begun.legal, jnp.int32(episodes)), _seen(begun, begun.last)

    def step(key: Key, trial: Trial, action: Any) -> Arrival:
        step_key, reset_key = draws.split(key)
        env = env_of_task(trial.task)
        episode, timestep = env.step(step_key, trial.episode, action)
        ended, reward = timestep.last, timestep.reward
        left = trial.left - ended.astype(jnp.int32)
        again = ended & (left > 0)
        episode, timestep = tree.where(again, env.reset(reset_key), (episode, timestep))
        trial = Trial(trial.task, episode, timestep.legal, left)
        return Arrival(trial, _seen(timestep, ended), reward, left == 0, False)

    legal = (lambda trial: trial.legal) if spec.legal else None
    observations = {"observation": spec.observations, "ended": Discrete(2)}
    return episodic(first, step, observations, spec.actions, episodes * horizon, legal=legal)


def _seen(timestep: TimeStep, ended: Array) -> dict[str, Any]:
    """Return what a trial shows of the timestep of an inner episode; `ended` [] bool."""
    return {"observation": timestep.observation, "ended": ended.astype(jnp.int32)}
