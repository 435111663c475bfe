"""The rewards of a maze: its goals are sequences of floor blocks to be visited in order."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from memrl_jax import checks
from memrl_jax.environments.mazes.view import CYAN, LIME, RED, YELLOW
from memrl_jax.types import Array

COLOURS = {1: RED, 2: CYAN, 3: YELLOW, 4: RED, 5: CYAN, 6: LIME}  # as in the original maps


class Goal(NamedTuple):
    """Goal ids in the order in which they must be visited, and the reward of each visit."""

    sequence: tuple[int, ...]
    rewards: tuple[float, ...]
    terminate: bool  # the last visit ends the episode; otherwise the sequence starts over


class Rules(NamedTuple):
    """One task: which visits pay, and how the blocks look."""

    goals: tuple[Goal, ...]
    colours: Mapping[int, int]  # goal id -> the block that is seen; see `view.BLOCKS`
    step_reward: float  # of steps at which no goal pays
    max_steps_in_episode: int


def choice(right: int, wrong: int) -> tuple[Goal, ...]:
    """Return goals by which either of two blocks ends the episode: `right` pays 1, `wrong` -1."""
    return Goal((right,), (1.0,), True), Goal((wrong,), (-1.0,), True)


def order(first: int, second: int) -> tuple[Goal, ...]:
    """Return goals by which two blocks must be visited in order.

    The right order pays 0.5 and 1, the wrong one the negative of that. The second visit also counts
    as the first one of the other order, so its own reward is 1.5.
    """
    right = Goal((first, second), (0.5, 1.5), True)
    return right, Goal((second, first), (-0.5, -1.5), True)


def priced(goals: tuple[Goal, ...], max_steps_in_episode: int) -> Rules:
    """Return rules by which any other step pays -2 / `max_steps_in_episode`, as in all tasks."""
    limit = checks.positive("max_steps_in_episode", max_steps_in_episode)
    return Rules(goals, COLOURS, -2 / limit, limit)


class Machine(NamedTuple):
    """Rules as tables over S states, where 0 is the first, and goal ids, where 0 is no goal."""

    following: Array  # [S, ids] int32
    reward: Array  # [S, ids] float32
    terminated: Array  # [S, ids] bool


def machine(rules: Rules) -> Machine:
    """Tabulate the rules over all reachable states; a state is the progress in each goal."""
    ids = range(max(rules.colours) + 1)
    states, table = [(0,) * len(rules.goals)], []
    for state in states:  # grows in the loop
        row = [visit(rules, state, goal_id) for goal_id in ids]
        states += [s for s in dict.fromkeys(after for after, _, _ in row) if s not in states]
        table.append(row)
    following = [[states.index(after) for after, _, _ in row] for row in table]
    reward = [[r for _, r, _ in row] for row in table]
    terminated = [[ends for _, _, ends in row] for row in table]
    return Machine(
        jnp.asarray(np.array(following, np.int32)),
        jnp.asarray(np.array(reward, np.float32)),
        jnp.asarray(np.array(terminated, bool)),
    )


def visit(
    rules: Rules, progress: tuple[int, ...], goal_id: int
) -> tuple[tuple[int, ...], float, bool]:
    """Visit a cell: return the progress in each goal, the reward, and whether the episode ends.

    Every goal whose next id this is moves on and pays; the rewards add up.
    """
    pairs = list(zip(rules.goals, progress, strict=True))
    moves = [goal.sequence[p] == goal_id for goal, p in pairs]
    if not any(moves):
        return progress, rules.step_reward, False
    reward = sum(goal.rewards[p] for (goal, p), moved in zip(pairs, moves, strict=True) if moved)
    after = [p + moved for (_, p), moved in zip(pairs, moves, strict=True)]
    full = [p == len(goal.sequence) for goal, p in zip(rules.goals, after, strict=True)]
    ends = any(goal.terminate for goal, done in zip(rules.goals, full, strict=True) if done)
    return tuple(0 if done else p for p, done in zip(after, full, strict=True)), reward, ends
