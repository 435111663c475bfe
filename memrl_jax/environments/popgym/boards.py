"""Games on a hidden board: battleship and mine sweeper."""

from dataclasses import dataclass
from functools import cache, reduce
from operator import or_
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import checks, draws
from memrl_jax.environments.interface import Interface
from memrl_jax.environments.popgym.base import Limit
from memrl_jax.spaces import Discrete
from memrl_jax.types import Array, Key

SHIPS = (2, 3, 3, 4)


class Sea(NamedTuple):
    """The state of `Battleship`."""

    ships: Array  # [ships, 4] int32: first row, first column, last row, last column
    shot: Array  # [size, size] bool
    hits: Array  # [] int32, cells of ships among those shot at
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
        placed: list[tuple[int, Array]] = []
        for length, chance in zip(SHIPS, chances, strict=True):
            placed.append((length, place(placed, length, self.size, chance)))
        ships = jnp.stack([jnp.asarray(places(self.size, length))[i] for length, i in placed])
        zero, shot = jnp.int32(0), jnp.zeros((self.size, self.size), bool)
        return zero, Sea(ships, shot, zero, zero)

    def step_env(self, key: Key, state: Sea, action: Any, params: Limit) -> Any:
        """Shoot at a cell."""
        row, column = action
        top, left, bottom, right = state.ships.T
        ship = (top <= row) & (row <= bottom) & (left <= column) & (column <= right)
        hit = jnp.any(ship) & ~state.shot[row, column]
        cell = jnp.arange(self.size)
        shot = state.shot | ((cell[:, None] == row) & (cell == column))
        state = Sea(state.ships, shot, state.hits + hit, state.time + 1)
        miss = -1 / (self.size**2 - sum(SHIPS))
        reward = jnp.where(hit, 1 / sum(SHIPS), miss)
        return hit.astype(jnp.int32), state, reward, state.hits == sum(SHIPS), {}


def place(placed: list[tuple[int, Array]], length: int, size: int, chance: Array) -> Array:
    """Place a ship uniformly where it overlaps no other: the number of its place, int32 [].

    `placed` are the other ships' lengths and places, numbered as in `places`; `chance` [], uniform
    in [0, 1), decides.
    """
    free = jnp.asarray(bits(np.ones(len(places(size, length)), bool)))
    for other, number in placed:
        free &= ~jnp.asarray(overlaps(size, other, length))[number]
    counts = jax.lax.population_count(free).astype(jnp.int32)
    before = jnp.cumsum(counts)
    number = jnp.floor(chance * before[-1]).astype(jnp.int32)
    word = jnp.sum(before <= number, dtype=jnp.int32)
    return 32 * word + nth_bit(free[word], number - (before - counts)[word])


@cache
def places(size: int, length: int) -> np.ndarray:
    """Return the first row and column and the last ones of all places of a ship, int32 [M, 4]."""
    line, start = np.divmod(
        np.arange(size * (size - length + 1), dtype=np.int32), size - length + 1
    )
    along = np.stack([line, start, line, start + length - 1], axis=1)
    return np.concatenate([along, along[:, [1, 0, 3, 2]]])


@cache
def overlaps(size: int, one: int, other: int) -> np.ndarray:
    """Tell which places of another ship overlap each place of one: `bits` of bool [M, M']."""
    a, b = places(size, one)[:, None], places(size, other)[None]
    apart = (a[..., 2:] < b[..., :2]) | (b[..., 2:] < a[..., :2])
    return bits(~np.any(apart, axis=-1))


def bits(x: np.ndarray) -> np.ndarray:
    """Pack bool [..., n] into uint32 [..., ceil(n / 32)], the first one lowest, with zeros."""
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % 32)])
    words = padded.reshape(*x.shape[:-1], -1, 32)
    return np.bitwise_or.reduce(words * (np.uint32(1) << np.arange(32, dtype=np.uint32)), axis=-1)


def nth_bit(word: Array, n: Array) -> Array:
    """Return where the bit is, int32 [], of which `n` set ones are lower in a uint32 word []."""
    found = jnp.int32(0)
    for half in (16, 8, 4, 2, 1):
        low = word & jnp.uint32(2**half - 1)
        count = jax.lax.population_count(low).astype(jnp.int32)
        above = n >= count
        n = jnp.where(above, n - count, n)
        word = jnp.where(above, word >> half, low)
        found += jnp.where(above, half, 0)
    return found


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
    taken: list[Array] = []
    for one, other in zip(drawn, most, strict=True):
        before = reduce(or_, [x == one for x in taken], jnp.bool_(False))
        taken.append(jnp.where(before, other, one))
    return jnp.stack(taken)
