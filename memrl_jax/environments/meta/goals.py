"""gymnax's environments with a hidden goal, which stays through a trial."""

from collections.abc import Callable
from typing import Any

from memrl_jax.environments.gymnax import from_gymnax
from memrl_jax.environments.trials import trials
from memrl_jax.types import Environment, Key


def meta_maze(episodes: int = 2, **params: Any) -> Environment:
    """Make trials of gymnax's MetaMaze (Miconi et al., 2019): the goal is the task.

    `params` are gymnax's. Its episodes keep their goal too: the agent that reaches it is put
    elsewhere and may come back, until time is up or chance puts it on the goal. Observations have
    the last action, the last reward and the time in them.
    """
    return _with_one_goal(from_gymnax("MetaMaze-misc", **params), episodes)


def point_robot(episodes: int = 2, **params: Any) -> Environment:
    """Make trials of gymnax's PointRobot (Dorfman et al., 2021): the goal is the task.

    `params` are gymnax's. Its episodes keep their goal too: the robot that reaches it is put
    elsewhere and may come back. Observations have the last action, the last reward and the time in
    them.
    """
    return _with_one_goal(from_gymnax("PointRobot-misc", **params), episodes)


def _with_one_goal(env: Environment, episodes: int) -> Environment:
    """Make trials in which every episode has the goal that was drawn with the first."""

    def goal(key: Key) -> Any:
        return env.reset(key)[0].state.goal

    def of_goal(goal: Any) -> Environment:
        return env._replace(reset=_reset_to(env, goal))

    return trials(of_goal, goal, episodes)


def _reset_to(env: Environment, goal: Any) -> Callable[[Key], Any]:
    """Return a `reset` that replaces the goal, which no observation shows."""

    def reset(key: Key) -> Any:
        episode, timestep = env.reset(key)
        return episode._replace(state=episode.state.replace(goal=goal)), timestep

    return reset
