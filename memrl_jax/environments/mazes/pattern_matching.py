"""Pattern matching: whether two rooms look the same tells which goal to take."""

import numpy as np

from memrl_jax.environments.mazes.maze import Maps, maze
from memrl_jax.environments.mazes.rules import choice, priced
from memrl_jax.types import Environment

PATTERNS = 250  # on either side of the split, out of 2 ** 9

PLAN = (
    "###########",
    "#...###...#",
    "#....s....#",
    "#...#.#...#",
    "#####.#####",
    "####...####",
    "###########",
)
LEFT, RIGHT = (slice(1, 4), slice(1, 4)), (slice(1, 4), slice(7, 10))
RED_GOAL, CYAN_GOAL = (5, 4), (5, 6)


def pattern_matching(
    unseen: bool = False, max_steps_in_episode: int = 50, rows: int = 6, columns: int = 7
) -> Environment:
    """Make pattern matching (Oh et al., 2016, section 5.2) as a grid-world; see `maze`.

    The floors of two rooms of 3 x 3 cells are yellow and lime. The agent begins between them, and
    goes down a short corridor to the goals. If both rooms look the same from between them, cyan
    pays 1 and red -1, otherwise the other way round. Either goal ends the episode; every other step
    pays -2 / `max_steps_in_episode`. The floor plan is that of the original maps.

    As in these, 500 maps are for training and 500 are `unseen`, and in half of each the rooms look
    the same. No pattern is in both sets (in the original maps, some are, but never in maps whose
    rooms look the same).
    """
    same, other = patterns(unseen)
    plan = np.array([list(line) for line in PLAN])
    shape = (2 * PATTERNS, *plan.shape)
    goal = np.zeros(shape, np.uint8)
    goal[:, *LEFT] = np.concatenate([same, same])
    # An agent that turns from one room to the other sees the other one rotated by 180 degrees.
    goal[:, *RIGHT] = np.concatenate([same, other])[:, ::-1, ::-1]
    goal[:, *RED_GOAL] = np.repeat([1, 4], PATTERNS)
    goal[:, *CYAN_GOAL] = np.repeat([2, 5], PATTERNS)
    maps = Maps(np.broadcast_to(plan == "#", shape), goal, np.broadcast_to(plan == "s", shape))
    rules = priced(choice(right=2, wrong=1) + choice(right=4, wrong=5), max_steps_in_episode)
    return maze(maps, rules, rows, columns)


def patterns(unseen: bool) -> tuple[np.ndarray, np.ndarray]:
    """Draw the patterns of one side of the split, and for each a different one of that side.

    Both are uint8 [PATTERNS, 3, 3] of the goal ids of yellow, 3, and lime, 6. The draw is fixed.
    """
    rng = np.random.default_rng(0)
    split = rng.permutation(2**9)[: 2 * PATTERNS].reshape(2, PATTERNS)
    mine = split[int(unseen)]
    shift = rng.integers(1, PATTERNS, (2, PATTERNS))[int(unseen)]
    others = mine[(np.arange(PATTERNS) + shift) % PATTERNS]
    lime = np.stack([mine, others])[..., None] >> np.arange(9) & 1
    drawn = np.where(lime == 1, 6, 3).astype(np.uint8).reshape(2, PATTERNS, 3, 3)
    return drawn[0], drawn[1]
