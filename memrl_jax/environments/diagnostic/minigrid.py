"""MiniGrid's memory corridors: at the far end, go to the object that was seen at the near one."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from memrl_jax import checks, draws, tree
from memrl_jax.environments.diagnostic.dials import bound
from memrl_jax.environments.gymnax import from_gymnax
from memrl_jax.environments.interface import Interface
from memrl_jax.spaces import Discrete
from memrl_jax.types import Array, Environment, Key

UNSEEN, FLOOR, WALL, KEY, BALL = range(5)  # what a cell of a view may show
TURN_LEFT, TURN_RIGHT, FORWARD = range(3)
HEADINGS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.int32)  # x to the right, y downwards
VIEW = 7  # cells ahead, the agent's own among them, and cells across
HALL = 4  # where the shortest hallway ends


@struct.dataclass
class Params:
    """What may vary between corridors without recompiling."""

    size: int | Array  # of the whole map, odd, 7 .. largest
    max_steps_in_episode: int | Array


class Corridor(NamedTuple):
    """The state of `MemoryCorridor`."""

    at: Array  # [2] int32, x and y of the agent
    heading: Array  # [] int32, see HEADINGS
    end: Array  # [] int32, x where the hallway ends
    cue: Array  # [] int32, the object in the start room, KEY or BALL
    upper: Array  # [] int32, the object at the upper end of the crossing
    time: Array  # [] int32


@dataclass(frozen=True)
class MemoryCorridor(Interface):
    """Go to the object, of the two at the far end, that is the same as the one in the first room.

    MiniGrid's Memory environments, Chevalier-Boisvert et al. (2023), with the same maps, rewards
    and views. A room with a key or a ball leads into a hallway; where that ends, a key and a ball
    lie to both sides. To step next to one of these ends the episode: with 1 - 0.9 t / limit at step
    t if it is the one that the room has, with 0 otherwise. The time limit is 5 `size`^2 steps. The
    agent begins anywhere between room and crossing and looks towards the latter. `varied` draws the
    length of the hallway, the longest of which has `size` - 7 cells.

    Observation: what the cells ahead show, int32 [7, 7], with the agent at the bottom in the
    middle: 0 to 4, not seen, floor, wall, key, ball. Walls hide what is behind them. Actions: 0 and
    1 turn left and right, 2 goes forward; MiniGrid's other four do nothing there. A `size` up to
    `largest` may be traced. Raises ValueError if `largest` is even or below 7.
    """

    largest: int = 17
    varied: bool = False

    actions = Discrete(3)
    observations = Discrete(5, (VIEW, VIEW))

    def __post_init__(self) -> None:
        odd("largest", checks.at_least("largest", self.largest, 7))

    @property
    def default_params(self) -> Params:
        """Parameters of the largest map."""
        return Params(self.largest, 5 * self.largest**2)

    def reset_env(self, key: Key, params: Params) -> tuple[Array, Corridor]:
        """Draw the hallway, the objects and the start."""
        end_key, start_key, object_key = draws.split(key, 3)
        size = jnp.int32(params.size)
        shortest = HALL if self.varied else size - 3
        end = draws.randint(end_key, (), shortest, size - 2)
        x = draws.randint(start_key, (), 1, end + 1)
        cue, upper = draws.randint(object_key, (2,), KEY, BALL + 1)
        zero = jnp.int32(0)
        state = Corridor(jnp.stack([x, size // 2]), zero, end, cue, upper, zero)
        return see(state, size), state

    def step_env(self, key: Key, state: Corridor, action: Array, params: Params) -> Any:
        """Turn or go forward."""
        size = jnp.int32(params.size)
        turn = jnp.int32(action == TURN_RIGHT) - jnp.int32(action == TURN_LEFT)
        ahead = state.at + tree.take(jnp.asarray(HEADINGS), state.heading)
        free = (action == FORWARD) & (cells(state, size, *ahead) == FLOOR)
        state = state._replace(
            at=jnp.where(free, ahead, state.at),
            heading=(state.heading + turn) % 4,
            time=state.time + 1,
        )
        x, y = state.at[0], state.at[1] - size // 2
        over = (x == state.end + 1) & (jnp.abs(y) == 1)
        right = (y == -1) == (state.cue == state.upper)
        late = state.time / jnp.float32(params.max_steps_in_episode)
        reward = jnp.where(over & right, 1 - 0.9 * late, 0.0)
        return see(state, size), state, reward, over, {}


def cells(state: Corridor, size: Array, x: Array, y: Array) -> Array:
    """Return what the cells at x and y [...] show, int32 [...]."""
    y = y - size // 2  # 0 along the hallway
    beside = jnp.abs(y)
    outside = (x <= 0) | (x >= size - 1) | (beside >= size // 2)
    room = (x <= 4) & (beside == 2) | (x == 4) & (beside == 1)
    hallway = (x > 4) & (x < state.end) & (beside == 1)
    crossing = (x == state.end) & (y != 0) | (x == state.end + 2)
    kinds = jnp.where(outside | room | hallway | crossing, WALL, FLOOR)
    kinds = jnp.where((x == 1) & (y == -1), state.cue, kinds)
    far = jnp.where(y < 0, state.upper, KEY + BALL - state.upper)
    return jnp.where((x == state.end + 1) & (beside == 2), far, kinds)


def see(state: Corridor, size: Array) -> Array:
    """Show the cells ahead that no wall hides, int32 [7, 7]."""
    ahead = jnp.arange(VIEW - 1, -1, -1)[:, None]
    right = jnp.arange(VIEW)[None] - VIEW // 2
    dx, dy = tree.take(jnp.asarray(HEADINGS), state.heading)
    shown = cells(
        state, size, state.at[0] + ahead * dx - right * dy, state.at[1] + ahead * dy + right * dx
    )
    shown = shown.at[VIEW - 1, VIEW // 2].set(FLOOR)
    return jnp.where(lit(shown != WALL), shown, UNSEEN)


def lit(clear: Array) -> Array:
    """Tell which cells of a view are seen, given those one can see through, both bool [7, 7].

    MiniGrid's rule, row by row from the agent's on: sight spreads along a row through cells that
    are clear, first to the right, then to the left, and from every such cell straight and aslant
    into the row before it. Rows are bits here, the leftmost cell being the lowest.
    """
    places = jnp.arange(VIEW, dtype=jnp.uint32)
    open_rows = jnp.sum(clear.astype(jnp.uint32) << places, axis=1, dtype=jnp.uint32)
    whole = jnp.uint32(2**VIEW - 1)
    row, rows = jnp.uint32(1 << VIEW // 2), []
    for i in reversed(range(VIEW)):
        to_right = (whole >> 1) & open_rows[i]
        for _ in range(VIEW - 1):
            row |= (row & to_right) << 1
        ahead = row & to_right
        ahead |= ahead << 1
        to_left = (whole - 1) & open_rows[i]
        for _ in range(VIEW - 1):
            row |= (row & to_left) >> 1
        rows.append(row)
        aslant = row & to_left
        row = ahead | aslant | aslant >> 1
    return (jnp.stack(rows[::-1])[:, None] >> places & 1).astype(bool)


def odd(field: str, size: int) -> int:
    """Return an odd number; raises ValueError for an even one."""
    if size % 2 == 0:
        raise ValueError(f"{field}: {size} is even, so that the map has no middle row")
    return size


def memory_corridor(
    size: int | Array = 13, largest: int | None = None, varied: bool = False
) -> Environment:
    """Make a memory corridor of MiniGrid; a `size` [] may be traced if `largest` limits it.

    The time limit is that of the largest size. See `MemoryCorridor`.
    """
    if not isinstance(size, jax.Array):
        odd("size", checks.at_least("size", size, 7))
    task = MemoryCorridor(bound("size", size, "largest", largest), varied)
    return from_gymnax(task, size=size)
