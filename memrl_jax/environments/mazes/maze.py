"""Mazes of blocks, seen in the first person."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from memrl_jax import checks, draws, tree
from memrl_jax.environments.base import Arrival, episodic
from memrl_jax.environments.mazes.rules import Rules, machine
from memrl_jax.environments.mazes.view import BLOCKS, FLOOR, WALL, cells, viewer
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Array, Environment, Key

LOOK_LEFT, LOOK_RIGHT, LOOK_UP, LOOK_DOWN, FORWARD, BACKWARD = ACTIONS = range(6)
# Each is [rows, columns] and 90 degrees to the right of the one before, with rows counted upwards.
DIRECTIONS = np.array([[0, 1], [-1, 0], [0, -1], [1, 0]])


class Maps(NamedTuple):
    """N maps of H x W cells; all cells outside are wall."""

    wall: Any  # [N, H, W] bool
    goal: Any  # [N, H, W] uint8, the goal id of a floor block, or 0
    spawn: Any  # [N, H, W] bool, where an episode may begin


class State(NamedTuple):
    """One agent in one map; all are int32 scalars."""

    at: Array  # index of its cell among the cells of all maps
    facing: Array  # 0 .. 3, see DIRECTIONS
    pitch: Array  # 0 head up, 1 down
    visited: Array  # the state of the rules: which goals were visited
    time: Array  # steps taken in this episode


def maze(maps: Maps, rules: Rules, rows: int = 6, columns: int = 7) -> Environment:
    """Make an environment of maps and rules, after the Minecraft tasks of Oh et al. (2016).

    This is a grid-world with their actions, rewards and maps, not Minecraft and not its pixels.
    Observations are first-person views, uint8 [rows, columns, 7], one-hot in 255; see `viewer`.
    Actions: 0 and 1 turn left and right by 90 degrees, 2 and 3 raise and lower the head, 4 and 5
    go a cell forward and backward unless a wall is there; any other integer does nothing. After
    each action, the rules apply to the cell under the agent.

    An episode begins with the head up, in a map, a spawn cell and a direction drawn uniformly (the
    paper visits its maps in a shuffled order). The time limit truncates: the discount stays 1.
    Raises ValueError for maps without a spawn cell or with a goal id that the rules do not know,
    and for `rows` and `columns` that `cells` refuses.
    """
    where = cells(rows, columns)
    margin = max(rows - 1, columns // 2)
    world = _world(maps, rules.colours, margin)
    visit = machine(rules)
    limit = checks.positive("max_steps_in_episode", rules.max_steps_in_episode)
    view = viewer(rows, columns)
    width = maps.wall.shape[2] + 2 * margin
    strides = jnp.asarray(DIRECTIONS @ [width, 1], jnp.int32)

    def first(key: Key) -> tuple[State, tuple[()]]:
        u = draws.uniform(key, (3,))
        n = _floor(u[0], len(world.spawns))
        at = tree.take(world.cell, (n, _floor(u[1], tree.take(world.spawns, n))))
        zero = jnp.int32(0)
        return State(at, _floor(u[2], 4), zero, zero, zero), ()

    def step(key: Key, state: State, action: Array) -> Arrival:
        turn = jnp.int32(action == LOOK_RIGHT) - jnp.int32(action == LOOK_LEFT)
        facing = (state.facing + turn) % 4
        nod = jnp.int32(action == LOOK_DOWN) - jnp.int32(action == LOOK_UP)
        pitch = jnp.clip(state.pitch + nod, 0, 1)
        walk = jnp.int32(action == FORWARD) - jnp.int32(action == BACKWARD)
        ahead = state.at + walk * tree.take(strides, facing)
        at = jnp.where(tree.take(world.block, ahead) == WALL, state.at, ahead)
        under = (state.visited, tree.take(world.goal, at).astype(jnp.int32))
        visited, reward, ends = (tree.take(table, under) for table in visit)
        time = state.time + 1
        return Arrival(State(at, facing, pitch, visited, time), (), reward, ends, time >= limit)

    def observe(state: State) -> Array:
        forward = tree.take(strides, state.facing)
        right = tree.take(strides, (state.facing + 1) % 4)
        return view(
            tree.take(world.block, state.at + where[0] * forward + where[1] * right), state.pitch
        )

    seen = Continuous((rows, columns, len(BLOCKS)), jnp.dtype(jnp.uint8), 0, 255)
    return episodic(first, step, seen, Discrete(len(ACTIONS)), limit, observe=observe)


def success(total_return: Any, length: Any, horizon: int) -> Any:
    """Tell from the return and length of episodes whether they succeeded; arrays of any shape.

    Success is the right goal, or both goals in the right order. Without the penalty for its steps
    such an episode returns about 1 or 1.5, any other 0.5 at most. The penalty of a step is
    2 / horizon in every task of Oh et al. (2016), and so in every one here.
    """
    return total_return + length * (2 / horizon) > 0.75


class _World(NamedTuple):
    """All maps with a margin of wall, flattened and concatenated."""

    block: Array  # [cells] uint8, as seen
    goal: Array  # [cells] uint8
    cell: Array  # [N, S] int32, the spawn cells of every map, then zeros
    spawns: Array  # [N] int32, the number of spawn cells


def _world(maps: Maps, colours: Mapping[int, int], margin: int) -> _World:
    frame = ((0, 0), (margin, margin), (margin, margin))
    wall = np.pad(np.asarray(maps.wall, bool), frame, constant_values=True)
    goal = np.pad(np.asarray(maps.goal, np.uint8), frame)
    spawn = np.pad(np.asarray(maps.spawn, bool), frame)
    unknown = set(np.unique(goal).tolist()) - {0, *colours}
    if unknown:
        raise ValueError(
            f"goal: ids {sorted(unknown)} of the maps are not among the rules' {sorted(colours)}"
        )
    block = np.full(256, FLOOR, np.uint8)
    block[list(colours)] = list(colours.values())
    spawns = spawn.sum(axis=(1, 2))
    if not spawns.all():
        raise ValueError(f"spawn: map {int(np.argmin(spawns))} of {len(spawns)} has no spawn cell")
    cell = np.zeros((len(spawns), spawns.max()), np.int32)
    cell[np.arange(spawns.max()) < spawns[:, None]] = np.flatnonzero(spawn)
    return _World(
        jnp.asarray(np.where(wall, WALL, block[goal]).astype(np.uint8).ravel()),
        jnp.asarray(goal.ravel()),
        jnp.asarray(cell),
        jnp.asarray(spawns, jnp.int32),
    )


def _floor(u: Array, n: Any) -> Array:
    """Turn u in [0, 1) into an integer in 0 .. n - 1; exact for n below 2 ** 23."""
    return jnp.floor(u * n).astype(jnp.int32)
