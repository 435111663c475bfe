"""Instructions in words, to be read, remembered and followed in a grid-world."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct

from memrl_jax import checks, draws
from memrl_jax.environments.interface import Interface
from memrl_jax.spaces import Discrete
from memrl_jax.types import Array, Key

COLOURS, SHAPES = ("red", "green", "blue"), ("ball", "key")
KINDS = len(COLOURS) * len(SHAPES)
VOCABULARY = ("", "go", "to", "the", "then", *COLOURS, *SHAPES)
SILENCE, GO, TO, THE, THEN, COLOUR = range(6)
SHAPE = COLOUR + len(COLOURS)  # number of the first word for a shape

FLOOR, WALL, OBJECT = range(3)  # what cells show; objects of kind k are OBJECT + k
UP, DOWN, LEFT, RIGHT, TAKE = range(5)
MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1], [0, 0]], np.int32)  # rows are counted downwards


def words(tokens: Iterable[Any]) -> str:
    """Return the text of some words, given by their numbers [T]; silence is left out."""
    return " ".join(VOCABULARY[token] for token in tokens if token != SILENCE)


@struct.dataclass
class Params:
    """Parameters of `Instructions`; all but the time limit may be traced."""

    named: int | Array
    delay: int | Array
    max_steps_in_episode: int


class Errand(NamedTuple):
    """The state of `Instructions`."""

    kinds: Array  # [objects] int32, the colour times the number of shapes, plus the shape
    places: Array  # [objects, 2] int32, row and column; the first `named` are those to be taken
    at: Array  # [2] int32, where the agent is
    taken: Array  # [] int32, number of objects
    time: Array  # [] int32


@dataclass(frozen=True)
class Instructions(Interface):
    """Read which objects to take, in which order; then find them in a room, from memory.

    Different objects lie in a room of `size` x `size` cells, the agent stands in another cell. The
    first 4 `named` + 1 steps tell, word by word, what to take, e.g. "go to the red ball then the
    blue key"; then nothing is shown or done for `delay` steps; then the agent acts, and the words
    are gone. Each right object is worth 1 / `named`; the last of them ends the episode, and so does
    a wrong one. The time limit, which truncates, is four times what the farthest objects take.

    Observation: (word, cells). The word is 0 when there is none; see `words`. The cells, int32
    [2 sight + 1, 2 sight + 1] with the agent in the middle, are 0 floor, 1 outside, and from 2 on
    objects by kind; all 0 until the agent acts. Actions: go up (0), down (1), left (2) or right
    (3), or take what lies where one stands (4). In the manner of Chevalier-Boisvert et al. (2019),
    BabyAI.
    """

    size: int = 5
    objects: int = 4
    named: int = 2
    delay: int = 0
    sight: int = 2

    actions = Discrete(len(MOVES))

    def __post_init__(self) -> None:
        checks.at_least("size", self.size, 3, 99)
        checks.positive("objects", self.objects, KINDS)
        checks.positive("named", self.named, self.objects)
        checks.at_least("delay", self.delay, 0, checks.INT32 // 2)
        checks.positive("sight", self.sight, 99)

    @property
    def observations(self) -> tuple[Discrete, Discrete]:
        """Space of observations: a word, and what is in the cells around."""
        width = 2 * self.sight + 1
        return Discrete(len(VOCABULARY)), Discrete(OBJECT + KINDS, (width, width))

    @property
    def default_params(self) -> Params:
        """Parameters as the task was constructed."""
        walk = self.named * (2 * self.size - 1)
        return Params(self.named, self.delay, 4 * self.named + 1 + self.delay + 4 * walk)

    def reset_env(self, key: Key, params: Params) -> tuple[Any, Errand]:
        """Place the objects and the agent."""
        kind_key, place_key = draws.split(key)
        kinds = draws.choice(kind_key, KINDS, (self.objects,), replace=False)
        cells = draws.choice(place_key, self.size**2, (self.objects + 1,), replace=False)
        places = jnp.stack(jnp.divmod(cells, self.size), axis=1).astype(jnp.int32)
        zero = jnp.int32(0)
        state = Errand(kinds.astype(jnp.int32), places[1:], places[0], zero, zero)
        return self._see(state, params), state

    def step_env(self, key: Key, state: Errand, action: Array, params: Params) -> Any:
        """Go or take, once all is read; `key` is not used."""
        acts = _read(state, params)
        here = jnp.all(state.places == state.at[None], axis=1) & self._left(state)
        takes = acts & (action == TAKE) & jnp.any(here)
        right = takes & here[state.taken]
        move = jnp.where(acts, jnp.asarray(MOVES)[action], 0)
        at = jnp.clip(state.at + move, 0, self.size - 1)
        taken = state.taken + right.astype(jnp.int32)
        state = Errand(state.kinds, state.places, at, taken, state.time + 1)
        ends = (takes & ~right) | (taken == params.named)
        return self._see(state, params), state, right / params.named, ends, {}

    def best(self, state: Errand, params: Params) -> Array:
        """Return the next action of a shortest path to the next object, int32 []."""
        down, right = state.places[state.taken] - state.at
        vertical = jnp.where(down > 0, DOWN, UP)
        horizontal = jnp.where(right > 0, RIGHT, LEFT)
        beside = jnp.where(right == 0, TAKE, horizontal)
        return jnp.where(down == 0, beside, vertical).astype(jnp.int32)

    def _left(self, state: Errand) -> Array:
        """Tell which objects still lie in the room, bool [objects]."""
        return jnp.arange(self.objects) >= state.taken

    def _see(self, state: Errand, params: Params) -> tuple[Array, Array]:
        span = np.arange(-self.sight, self.sight + 1, dtype=np.int32)
        around = np.stack(np.meshgrid(span, span, indexing="ij"), axis=-1)
        cells = state.at[None, None] + around
        outside = jnp.any((cells < 0) | (cells >= self.size), axis=-1)
        there = jnp.all(cells[:, :, None] == state.places[None, None], axis=-1)
        there = there & self._left(state)[None, None]
        kinds = jnp.where(there, OBJECT + state.kinds[None, None], FLOOR)
        shown = jnp.where(outside, WALL, jnp.sum(kinds, axis=-1, dtype=jnp.int32))
        return _word(state, params), jnp.where(_read(state, params), shown, FLOOR)


def _read(state: Errand, params: Params) -> Array:
    """Tell whether reading and delay are over, so that the agent acts, bool []."""
    return state.time > 4 * params.named + params.delay


def _word(state: Errand, params: Params) -> Array:
    """Return the word that is told now, int32 []."""
    place = state.time - 2  # "go to", and then four words for every object, the last one "then"
    kind = state.kinds[place // 4]
    phrase = jnp.stack([THE, COLOUR + kind // len(SHAPES), SHAPE + kind % len(SHAPES), THEN])
    begins = jnp.where(state.time == 0, GO, TO)
    word = jnp.where(place < 0, begins, phrase[place % 4])
    return jnp.where(state.time > 4 * params.named, SILENCE, word).astype(jnp.int32)
