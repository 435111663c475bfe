"""Small versions of what agents with a memory are for, each with a policy that knows everything.

That policy is a method, `best(state, params)`, which sees the state; its value is what can be
reached.
"""

from typing import Any

from memrl_jax.environments.applications.instructions import Instructions
from memrl_jax.environments.applications.recommender import Recommender
from memrl_jax.environments.applications.robot import HiddenRobot

APPLICATIONS: dict[str, Any] = {
    "Recommender": Recommender,
    "HiddenRobot": HiddenRobot,
    "Instructions": Instructions,
}

__all__ = ["APPLICATIONS", "HiddenRobot", "Instructions", "Recommender"]
