"""First-person views of a maze.

A view is [rows, columns] cells with the agent at the bottom centre, looking up: row i is
rows - 1 - i cells ahead, column j is j - columns // 2 cells to the right. K = rows x columns.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from memrl_jax import checks
from memrl_jax.types import Array

BLOCKS = ("wall", "floor", "red", "cyan", "yellow", "lime", "blue")  # the channels of a view
WALL, FLOOR, RED, CYAN, YELLOW, LIME, BLUE = range(len(BLOCKS))

LEVEL_FROM = 2  # cells ahead where the floor comes into sight with the head up
DOWN_TO = 2  # cells ahead where sight ends with the head down


def cells(rows: int, columns: int) -> np.ndarray:
    """Return how far ahead and to the right of the agent the cells of a view lie, [2, K] int32.

    Raises ValueError for fewer than 3 rows, for an even number of columns, and for more than 99 of
    either: the table of which cell hides which grows with K^2.
    """
    checks.at_least("rows", rows, LEVEL_FROM + 1, high=99)
    if checks.positive("columns", columns, high=99) % 2 == 0:
        raise ValueError(f"columns: {columns} is even, so that the agent has no middle to stand in")
    ahead, right = np.mgrid[rows - 1 : -1 : -1, -(columns // 2) : columns // 2 + 1]
    return np.stack([ahead.ravel(), right.ravel()]).astype(np.int32)


def viewer(rows: int, columns: int) -> Callable[[Array, Array], Array]:
    """Return `view(blocks [K], pitch []) -> uint8 [rows, columns, 7]`, of 255 and 0.

    A visible cell shows its block one-hot, any other zeros. A cell is visible if it lies within 45
    degrees of straight ahead and no wall is in the way to one of its two faces towards the agent.
    With the head up (pitch 0), floor is visible from `LEVEL_FROM` cells ahead on, and walls from
    the next cell on; with the head down (pitch 1), everything up to `DOWN_TO` cells ahead.
    """
    ahead, right = where = cells(rows, columns)
    obstacles = jnp.asarray(_between(where).reshape(-1, rows * columns), jnp.float32)
    cone = np.abs(right) <= ahead
    level = jnp.asarray(cone & (ahead >= LEVEL_FROM))
    level_walls = jnp.asarray(cone)
    down = jnp.asarray(cone & (ahead <= DOWN_TO))

    def view(blocks: Array, pitch: Array) -> Array:
        wall = blocks == WALL
        clear = ((obstacles @ wall.astype(jnp.float32)) == 0).reshape(2, -1).any(axis=0)
        seen = clear & jnp.where(pitch == 0, jnp.where(wall, level_walls, level), down)
        one_hot = (blocks[:, None] == jnp.arange(len(BLOCKS))[None]) & seen[:, None]
        return (one_hot * jnp.uint8(255)).reshape(rows, columns, len(BLOCKS))

    return view


def _between(where: np.ndarray) -> np.ndarray:
    """Tell which cells lie between the agent and the near faces of each cell, bool [2, K, K].

    The faces are the front one and the one at the side of the agent; [i, j, k] is whether cell k
    is in the way to face i of cell j.
    """
    ahead, right = where.astype(np.float64)
    front = np.stack([ahead - 0.5, right])
    side = np.stack([ahead, right - 0.5 * np.sign(right)])
    return np.stack([_crosses(face[:, :, None], where[:, None, :]) for face in (front, side)])


def _crosses(point: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Tell whether the line from the agent to `point` [2, ...] crosses `cell` [2, ...] inside.

    On each axis, the line is within the cell on a part of it between 0 and 1.
    """
    with np.errstate(divide="ignore"):
        ends = np.stack([(cell - 0.5) / point, (cell + 0.5) / point])
    enters = ends.min(axis=0).max(axis=0)
    leaves = ends.max(axis=0).min(axis=0)
    return np.minimum(leaves, 1) - np.maximum(enters, 0) > 1e-6
