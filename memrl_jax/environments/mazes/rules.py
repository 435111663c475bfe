"""What the goals of a maze pay: sequences of floor blocks to be visited in order."""

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
    terminate: bool  # its end ends the episode; otherwise it begins again


class Rules(NamedTuple):
    """One task: what pays, and how it looks."""

    goals: tuple[Goal, ...]
    colours: Mapping[int, int]  # goal id -> the block that is seen; see `view.BLOCKS`
    step_reward: float  # wherever no goal pays
    max_steps_in_episode: int


def choice(right: int, wrong: int) -> tuple[Goal, ...]:
    """Either of two blocks ends the episode, and one of them is right."""
    return Goal((right,), (1.0,), True), Goal((wrong,), (-1.0,), True)


def order(first: int, second: int) -> tuple[Goal, ...]:
    """Two blocks are to be visited, and one order is right.

    The second visit also begins the other order: the right one pays 0.5 and 1, the wrong one the
    negative of that.
    """
    right = Goal((first, second), (0.5, 1.5), True)
    return right, Goal((second, first), (-0.5, -1.5), True)


def priced(goals: tuple[Goal, ...], max_steps_in_episode: int) -> Rules:
    """Let any other step cost so much that a whole episode of them costs 2, as in all tasks."""
    limit = checks.positive("max_steps_in_episode", max_steps_in_episode)
    return Rules(goals, COLOURS, -2 / limit, limit)


class Machine(NamedTuple):
    """Rules as tables over S states, beginning with 0, and goal ids, where 0 is no goal."""

    following: Array  # [S, ids] int32
    reward: Array  # [S, ids] float32
    terminated: Array  # [S, ids] bool


def machine(rules: Rules) -> Machine:
    """Follow the rules wherever they may lead; a state is how far the agent is in each goal."""
    ids = range(max(rules.colours) + 1)
    states, table = [(0,) * len(rules.goals)], []
    for state in states:  # grows on the way
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
    """Visit one cell: the progress in each goal after it, the reward, and whether this ends it.

    Every goal that waits for this id moves on and pays; the rewards add up.
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
