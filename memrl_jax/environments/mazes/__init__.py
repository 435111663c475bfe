"""The mazes of Oh et al. (2016), "Control of Memory, Active Perception, and Action in Minecraft".

They are grid-worlds with the actions, rewards and maps of that paper, not Minecraft's pixels.
"""

from memrl_jax.environments.mazes.imaze import imaze
from memrl_jax.environments.mazes.maze import Maps, maze, success
from memrl_jax.environments.mazes.original import original
from memrl_jax.environments.mazes.pattern_matching import pattern_matching
from memrl_jax.environments.mazes.random_mazes import sequential_goals, single_goal
from memrl_jax.environments.mazes.rules import Goal, Rules

__all__ = [
    "Goal", "Maps", "Rules", "imaze", "maze", "original", "pattern_matching", "sequential_goals",
    "single_goal", "success",
]  # fmt: skip
