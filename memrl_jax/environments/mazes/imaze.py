"""The I-Maze: an indicator at one end of a corridor tells which goal to take at the other."""

from collections.abc import Sequence

import numpy as np

from memrl_jax import checks
from memrl_jax.environments.mazes.maze import Maps, maze
from memrl_jax.environments.mazes.rules import choice, priced
from memrl_jax.types import Environment


def imaze(
    lengths: Sequence[int] = (5, 7, 9),
    max_steps_in_episode: int = 50,
    rows: int = 6,
    columns: int = 7,
) -> Environment:
    """Make the I-Maze (Oh et al., 2016, section 5.1) as a grid-world; see `maze`.

    `lengths` are the cells from one end to the other. The agent begins at the near end, in the
    middle of an arm with the indicator two cells away on one side. At the far end, red lies on one
    side and cyan on the other. If the indicator is yellow, red pays 1 and cyan -1; if it is lime,
    the other way round. Either goal ends the episode; every other step pays
    -2 / `max_steps_in_episode`. The mazes are those of the original maps. Observations have one
    shape for all lengths: in the paper, agents learn with (5, 7, 9) and are tested up to length 40
    in 100 steps. Raises ValueError without lengths, and for lengths below 3 or above 10,000.
    """
    if not lengths:
        raise ValueError("lengths: () has no length")
    for length in lengths:
        checks.at_least("lengths", length, 3, high=10_000)
    shape = (2 * len(lengths), max(lengths) + 2, 7)
    maps = Maps(np.ones(shape, bool), np.zeros(shape, np.uint8), np.zeros(shape, bool))
    for n, length in enumerate(lengths):
        both = slice(2 * n, 2 * n + 2)
        maps.wall[both, [1, length], 1:6] = False
        maps.wall[both, 1 : length + 1, 3] = False
        maps.goal[both, 1, 1] = 3, 6
        maps.goal[both, length, 1] = 1, 4
        maps.goal[both, length, 5] = 2, 5
        maps.spawn[both, 1, 3] = True
    rules = priced(choice(right=1, wrong=2) + choice(right=5, wrong=4), max_steps_in_episode)
    return maze(maps, rules, rows, columns)
