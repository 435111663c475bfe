"""Games on a hidden board: battleship and mine sweeper."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp

from memrl_jax import checks, draws
from memrl_jax.environments.interface import Interface
from memrl_jax.environments.popgym.base import Limit
from memrl_jax.spaces import Discrete
from memrl_jax.types import Array, Key

SHIPS = (2, 3, 3, 4)


class Sea(NamedTuple):
    """The state of `Battleship`."""

    ships: Array  # [size, size] bool
    shot: Array  # [size, size] bool
    time: Array  # [] int32


@dataclass(frozen=True)
class Battleship(Interface):
    """Find four ships, 2, 3, 3 and 4 cells long, on a board of `size` x `size` cells.

    A cell of a ship hit for the first time is worth 1 / 12, any other shot costs 1 / (size^2 - 12).
    An episode terminates with the last hit, and is truncated after size^2 shots; both can be. Ships
    are placed one after the other, each uniformly where it overlaps no other. Observation: whether
    the last shot was such a hit (0 at first); where it went is in the timestep's action. Action:
    (row, column).
    """

    size: int = 8

    observations = Discrete(2)

    def __post_init__(self) -> None:
        checks.at_least("size", self.size, 5)

    @property
    def actions(self) -> tuple[Discrete, Discrete]:
        """Space of actions: a row and a column."""
        return Discrete(self.size), Discrete(self.size)

    @property
    def default_params(self) -> Limit:
        """Parameters of an episode."""
        return Limit(self.size**2)

    def reset_env(self, key: Key, params: Limit) -> tuple[Array, Sea]:
        """Place the ships."""
        chances = draws.uniform(key, (len(SHIPS),), jnp.float32)
        ships = jnp.zeros((self.size, self.size), bool)
        for length, chance in zip(SHIPS, chances, strict=True):
            ships = place(ships, length, chance)
        return jnp.int32(0), Sea(ships, jnp.zeros_like(ships), jnp.int32(0))

    def step_env(self, key: Key, state: Sea, action: Any, params: Limit) -> Any:
        """Shoot at a cell."""
        cell = jnp.arange(self.size)
        at = (cell[:, None] == action[0]) & (cell[None] == action[1])
        hit = jnp.any(at & state.ships & ~state.shot)
        state = Sea(state.ships, state.shot | at, state.time + 1)
        miss = -1 / (self.size**2 - sum(SHIPS))
        won = jnp.all(state.shot | ~state.ships)
        return hit.astype(jnp.int32), state, jnp.where(hit, 1 / sum(SHIPS), miss), won, {}


def place(ships: Array, length: int, chance: Array) -> Array:
    """Place a ship uniformly among all places where it touches no other's cells.

    `chance`, uniform in [0, 1), decides which of them: first those along rows, then along columns.
    """
    size = ships.shape[0]
    starts = size - length + 1

    def free(board: Array) -> Array:
        """Tell where a ship along a row can begin, [size, starts]."""
        return ~jnp.any(jnp.stack([board[:, i : i + starts] for i in range(length)]), axis=0)

    fits = jnp.concatenate([free(ships).ravel(), free(ships.T).ravel()])
    number = jnp.cumsum(fits)
    chosen = fits & (number == 1 + jnp.floor(chance * number[-1]).astype(jnp.int32))
    row, column = chosen.reshape(2, size, starts)

    def cells(begins: Array) -> Array:
        shifts = [jnp.pad(begins, ((0, 0), (i, length - 1 - i))) for i in range(length)]
        return jnp.any(jnp.stack(shifts), axis=0)

    return ships | cells(row) | cells(column).T


class Field(NamedTuple):
    """The state of `MineSweeper`. Cells are numbered row by row."""

    mines: Array  # [mines] int32, cells with a mine
    seen: Array  # [cells] bool
    exploded: Array  # [] bool
    time: Array  # [] int32


@dataclass(frozen=True)
class MineSweeper(Interface):
    """Uncover all cells without a mine on a board of `size` x `size` cells.

    With L = size^2 - `mines` cells to uncover, each is worth 1 / L, an uncovered one again costs
    0.5 / (L - 2), and a mine 0.5 + 1 / L. An episode terminates with a mine or when all are
    uncovered, and is truncated after L steps otherwise. Observation: the number of mines in the
    last cell and the eight around it (0 at first); which cell that was is in the timestep's action.
    Action: (row, column).
    """

    size: int = 4
    mines: int = 2

    def __post_init__(self) -> None:
        checks.at_least("size", self.size, 3)
        checks.positive("mines", self.mines, self.size**2 - 3)

    @property
    def observations(self) -> Discrete:
        """Space of observations: a number of mines."""
        return Discrete(min(self.mines, 9) + 1)

    @property
    def actions(self) -> tuple[Discrete, Discrete]:
        """Space of actions: a row and a column."""
        return Discrete(self.size), Discrete(self.size)

    @property
    def default_params(self) -> Limit:
        """Parameters of an episode."""
        return Limit(self.size**2 - self.mines)

    def reset_env(self, key: Key, params: Limit) -> tuple[Array, Field]:
        """Lay the mines."""
        mines = chosen(key, self.size**2, self.mines)
        return jnp.int32(0), Field(
            mines, jnp.zeros(self.size**2, bool), jnp.bool_(False), jnp.int32(0)
        )

    def step_env(self, key: Key, state: Field, action: Any, params: Limit) -> Any:
        """Uncover a cell."""
        count = self.size**2 - self.mines
        row, column = action
        cell = row * self.size + column
        mine = jnp.any(state.mines == cell)
        reward = jnp.where(state.seen[cell], -0.5 / (count - 2), 1 / count)
        reward = jnp.where(mine, -0.5 - 1 / count, reward)
        seen = state.seen | ((jnp.arange(self.size**2) == cell) & ~mine)
        near = abs(state.mines // self.size - row) <= 1
        near &= abs(state.mines % self.size - column) <= 1
        around = jnp.sum(near, dtype=jnp.int32)
        state = Field(state.mines, seen, mine, state.time + 1)
        return around, state, reward, self._over(state), {}

    def is_truncated(self, state: Field, params: Limit) -> Array:
        """Tell whether the time limit has been reached and nothing else ended the episode."""
        return (state.time >= params.max_steps_in_episode) & ~self._over(state)

    def _over(self, state: Field) -> Array:
        uncovered = jnp.sum(state.seen, dtype=jnp.int32) == self.size**2 - self.mines
        return state.exploded | uncovered


def chosen(key: Key, count: int, size: int) -> Array:
    """Choose `size` different ones of the numbers below `count`, each set equally likely: [size].

    Bentley & Floyd (1987): for each n of the last `size` numbers, take one drawn from 0 .. n, or n
    itself if that one was taken before.
    """
    most = jnp.arange(count - size, count, dtype=jnp.int32)
    drawn = draws.randint(key, (size,), 0, most + 1)
    taken = jnp.full(size, -1, jnp.int32)
    for i in range(size):
        taken = taken.at[i].set(jnp.where(jnp.any(taken == drawn[i]), most[i], drawn[i]))
    return taken
