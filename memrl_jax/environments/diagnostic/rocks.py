"""RockSample: which of the rocks around are worth a detour can only be told from a distance."""

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct

from memrl_jax import checks, draws, tree
from memrl_jax.environments.gymnax import from_gymnax
from memrl_jax.environments.interface import Interface
from memrl_jax.spaces import Discrete
from memrl_jax.types import Array, Environment, Key

NORTH, EAST, SOUTH, WEST, SAMPLE = range(5)
MOVES = np.array([[-1, 0], [0, 1], [1, 0], [0, -1], [0, 0]], np.int32)
NOTHING, GOOD, BAD = range(3)  # what a check says
REWARD = 10.0  # of a good rock, and of leaving; a bad rock costs as much


@struct.dataclass
class Params:
    """What may vary between tasks without recompiling."""

    half: float | Array  # distance at which a check is half as much better than a guess, in cells
    max_steps_in_episode: int


class Field(NamedTuple):
    """The state of `RockSample`."""

    at: Array  # [2] int32, row and column of the agent
    good: Array  # [rocks] bool
    heard: Array  # [] int32, what the last action found out
    time: Array  # [] int32


@dataclass(frozen=True)
class RockSample(Interface):
    """Take the good rocks of a field and leave it at the east (Smith & Simmons, 2004).

    A field of `size` x `size` cells has `rocks` at places that depend on `seed`, the same in all
    episodes; each rock is good with a chance of one half, drawn anew. Actions: 0 to 3 go north,
    east, south or west; from the last column, east leaves the field and ends the episode, and its
    other edges leave the agent in place. 4 takes a sample of the rock under the agent. 5 + i checks
    rock i from afar, and is right with a chance of (1 + 2^(-d / `half`)) / 2 at a distance of d
    cells. Leaving is worth 10, a sample of a good rock 10, after which the rock is bad, and one of
    a bad rock -10. Two deviations from the paper: a sample without a rock costs nothing, and an
    episode is truncated after 100 steps. Observation: row, column, and what a check said: nothing,
    good or bad. `half` may be traced. Raises ValueError if `size` is below 2, and for no rocks or
    more than there are cells.
    """

    size: int = 7
    rocks: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        checks.at_least("size", self.size, 2)
        checks.positive("rocks", self.rocks, self.size**2)
        checks.at_least("seed", self.seed, 0)

    @property
    def observations(self) -> tuple[Discrete, ...]:
        """Space of observations."""
        return Discrete(self.size), Discrete(self.size), Discrete(3)

    @property
    def actions(self) -> Discrete:
        """Space of actions."""
        return Discrete(SAMPLE + 1 + self.rocks)

    @property
    def default_params(self) -> Params:
        """Parameters of the paper, and a time limit."""
        return Params(half=20.0, max_steps_in_episode=100)

    def reset_env(self, key: Key, params: Params) -> tuple[Any, Field]:
        """Begin in the middle of the west side, with rocks drawn anew."""
        at = jnp.int32([self.size // 2, 0])
        good = draws.bernoulli(key, shape=(self.rocks,))
        state = Field(at, good, jnp.int32(NOTHING), jnp.int32(0))
        return _see(state), state

    def step_env(self, key: Key, state: Field, action: Array, params: Params) -> Any:
        """Move, take a sample or check a rock."""
        places = jnp.asarray(self.places)
        there = state.at + tree.take(jnp.asarray(MOVES), jnp.minimum(action, SAMPLE))
        left = there[1] == self.size
        taken = jnp.all(state.at == places, axis=1) & (action == SAMPLE)
        sample = jnp.sum(jnp.where(taken, jnp.where(state.good, REWARD, -REWARD), 0.0))
        rock = jnp.maximum(action - SAMPLE - 1, 0)
        chance = _chance(state.at, tree.take(places, rock), params)
        right = draws.uniform(key, (), jnp.float32) < chance
        said = jnp.where(right == tree.take(state.good, rock), GOOD, BAD)
        state = Field(
            at=jnp.clip(there, 0, self.size - 1),
            good=state.good & ~taken,
            heard=jnp.where(action > SAMPLE, said, NOTHING),
            time=state.time + 1,
        )
        return _see(state), state, jnp.where(left, REWARD, sample), left, {}

    @property
    def places(self) -> np.ndarray:
        """Rows and columns of the rocks, int32 [rocks, 2]."""
        return _places(self.size, self.rocks, self.seed)


@cache
def _places(size: int, rocks: int, seed: int) -> np.ndarray:
    cells = np.random.default_rng(seed).choice(size**2, rocks, replace=False)
    return np.stack(np.divmod(cells, size), axis=1).astype(np.int32)


@checks.typed
def rock_sample(size: int = 7, rocks: int = 8, seed: int = 0, half: float = 20.0) -> Environment:
    """Make a field of rocks, with checks that are right as often as `half` says.

    Raises ValueError unless `half` is above 0. See `RockSample`.
    """
    return from_gymnax(RockSample(size, rocks, seed), half=checks.above("half", half, 0))


def _chance(at: Array, place: Array, params: Params) -> Array:
    """Return the chance that a check is right, float32 []."""
    distance = jnp.sqrt(jnp.sum((at - place).astype(jnp.float32) ** 2))
    return (1 + 2 ** (-distance / params.half)) / 2


def _see(state: Field) -> tuple[Array, Array, Array]:
    return state.at[0], state.at[1], state.heard
