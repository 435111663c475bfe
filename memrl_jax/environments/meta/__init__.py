"""Environments to learn to learn in: every trial is another task, and has several episodes of it.

`strategies` has what is known to do well in them without any learning to learn.
"""

from collections.abc import Callable

from memrl_jax.environments.meta.bandits import bernoulli_bandit
from memrl_jax.environments.meta.goals import meta_maze, point_robot
from memrl_jax.environments.meta.mdps import MDP, random_mdp, tabular_mdp
from memrl_jax.types import Environment

META: dict[str, Callable[..., Environment]] = {
    "BernoulliBandit": bernoulli_bandit,
    "TabularMDP": tabular_mdp,
    "MetaMaze-trials": meta_maze,
    "PointRobot-trials": point_robot,
}

__all__ = [
    "MDP", "META", "bernoulli_bandit", "meta_maze", "point_robot", "random_mdp", "tabular_mdp",
]  # fmt: skip
