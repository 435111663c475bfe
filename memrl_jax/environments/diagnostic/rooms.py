"""Three rooms one after the other: something to find, apples to pick, and doors to choose from."""

from dataclasses import dataclass
from itertools import permutations
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct

from memrl_jax import checks, draws, tree
from memrl_jax.environments.diagnostic.dials import bound
from memrl_jax.environments.gymnax import from_gymnax
from memrl_jax.environments.interface import Interface
from memrl_jax.spaces import Discrete
from memrl_jax.types import Array, Environment, Key

WALL, FLOOR, APPLE, KEY, DOOR, RED, GREEN, BLUE = range(8)  # what a cell of a view may show
KINDS = 8
SIZE, SIGHT = 7, 2  # a room has 7 x 7 cells, and cells up to 2 rows and columns away are seen
FIND, CHOOSE = 15, 15  # the most steps in the first room and in the last
START = np.array([3, 3], np.int32)
IN_SIGHT = np.array([1, 3], np.int32)
MOVES = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]], np.int32)  # up, right, down, left
EDGE = np.array(
    [(i, j) for i in range(SIZE) for j in range(SIZE) if {i, j} & {0, SIZE - 1}], np.int32
)
APPLES = np.array([[i, j] for i in (0, 3, 6) for j in (0, 3, 6) if (i, j) != (3, 3)], np.int32)
DOORS = np.array([[0, 1], [0, 3], [0, 5]], np.int32)
ORDERS = np.array([*permutations((RED, GREEN, BLUE))], np.int32)


@struct.dataclass
class Params:
    """What may vary between tasks without recompiling."""

    delay: int | Array  # steps in the room of apples, up to the longest
    apple: float | Array  # what an apple is worth
    max_steps_in_episode: int


class Rooms(NamedTuple):
    """The state of `KeyDoor` and `VisualMatch`."""

    at: Array  # [2] int32, row and column of the agent, in the present room
    place: Array  # [2] int32, where the first room has its key or colour
    cue: Array  # [] int32, the colour; KEY while that is not taken, and FLOOR afterwards
    apples: Array  # [8] bool, which of APPLES are there
    doors: Array  # [3] int32, what DOORS show
    time: Array  # [] int32


def _room(time: Array, params: Params) -> Array:
    """Return which room the agent is in, int32 []: 0, 1 or 2."""
    return jnp.int32(time >= FIND) + jnp.int32(time >= FIND + params.delay)


def _move(at: Array, action: Array) -> Array:
    """Go a cell up (0), right (1), down (2) or left (3), unless the room ends there."""
    return jnp.clip(at + tree.take(jnp.asarray(MOVES), action), 0, SIZE - 1)


def _late(state: Rooms, params: Params) -> Array:
    """Tell whether the time in the last room is over, or a shorter limit is reached, bool []."""
    limit = jnp.minimum(params.max_steps_in_episode, FIND + params.delay + CHOOSE)
    return state.time >= limit


def _here(at: Array, places: Any) -> Array:
    """Tell which of places [..., 2] the agent is at, bool [...]."""
    return jnp.all(at == places, axis=-1)


def _see(state: Rooms, params: Params) -> Array:
    """Show the cells around the agent, int32 [5, 5]: the same way up, whatever it did last."""
    near = jnp.arange(-SIGHT, SIGHT + 1)
    rows, columns = state.at[0] + near[:, None], state.at[1] + near[None]
    room = _room(state.time, params)

    def put(view: Array, where: Any, what: Any, when: Any) -> Array:
        return jnp.where(when & (rows == where[0]) & (columns == where[1]), what, view)

    inside = (rows >= 0) & (rows < SIZE) & (columns >= 0) & (columns < SIZE)
    view = jnp.where(inside, FLOOR, WALL)
    view = put(view, state.place, state.cue, room == 0)
    for i, place in enumerate(APPLES):
        view = put(view, place, APPLE, (room == 1) & state.apples[i])
    for i, place in enumerate(DOORS):
        view = put(view, place, state.doors[i], room == 2)
    return view


def _go_on(state: Rooms, action: Array, params: Params) -> tuple[Rooms, Array, Array]:
    """Move the agent and pick apples: the state, what they are worth, and the room it moved in.

    Rooms change with the time, and the agent begins each at the start.
    """
    room = _room(state.time, params)
    at = _move(state.at, action)
    eaten = state.apples & _here(at, APPLES) & (room == 1)
    state = state._replace(at=at, apples=state.apples & ~eaten, time=state.time + 1)
    return state, jnp.float32(params.apple) * jnp.any(eaten), room


def _enter(state: Rooms, room: Array, params: Params) -> Rooms:
    """Put the agent at the start if it has left a room."""
    return state._replace(at=jnp.where(_room(state.time, params) > room, START, state.at))


@dataclass(frozen=True)
class VisualMatch(Interface):
    """Choose the door of the colour that was seen in the first room.

    After Hung et al. (2019) and Ni et al. (2023), as a grid-world of rooms of 7 x 7 cells of which
    5 x 5 around the agent are seen, and with rules of its own. In the first room, for 15 steps, a
    cell has one of three colours: in sight of the start, or, if `active`, at the edge, so that it
    has to be found. In the second, for `delay` steps, each of eight cells has an apple with a
    chance of one half, worth `apple`. In the last there are three doors, of a colour each, in
    random order: to step on one ends the episode, with 1 for the colour that was seen, and with 0
    for another; after 15 steps it is truncated.

    Observation: what the cells show, int32 [5, 5], 0 to 7: wall, floor, apple, key, door, red,
    green, blue. Actions: 0 up, 1 right, 2 down, 3 left. A `delay` up to `longest` may be traced,
    and `apple` too. Without a memory, 1/3 is the most that the doors are worth on average.
    """

    longest: int = 30
    active: bool = False

    actions = Discrete(4)
    observations = Discrete(KINDS, (2 * SIGHT + 1, 2 * SIGHT + 1))

    def __post_init__(self) -> None:
        checks.positive("longest", self.longest)

    @property
    def default_params(self) -> Params:
        """Parameters of the longest task."""
        return Params(self.longest, 0.1, FIND + self.longest + CHOOSE)

    def reset_env(self, key: Key, params: Params) -> tuple[Array, Rooms]:
        """Colour a cell and the doors, and place the apples."""
        place_key, cue_key, apple_key, door_key = draws.split(key, 4)
        place = _edge(place_key) if self.active else IN_SIGHT
        doors = jnp.asarray(ORDERS)[draws.randint(door_key, (), 0, len(ORDERS))]
        cue = draws.randint(cue_key, (), RED, BLUE + 1)
        return _begin(place, cue, _apples(apple_key), doors, params)

    def step_env(self, key: Key, state: Rooms, action: Array, params: Params) -> Any:
        """Move, pick an apple, or go through a door."""
        state, reward, room = _go_on(state, action, params)
        door = _here(state.at, DOORS) & (room == 2)
        reward += jnp.any(door & (state.doors == state.cue))
        state = _enter(state, room, params)
        return _see(state, params), state, reward, jnp.any(door), {}

    def is_truncated(self, state: Rooms, params: Params) -> Array:
        """Tell whether the time is over, [] bool."""
        return _late(state, params)


@dataclass(frozen=True)
class KeyDoor(Interface):
    """Take the key in the first room, for a reward at the door of the last one.

    After Hung et al. (2019) and Ni et al. (2023), where it asks for credit assignment without a
    memory: what was done `delay` steps earlier is rewarded, but nothing has to be remembered to do
    it. Rooms, apples, actions and observations are those of `VisualMatch`. The first room has a key
    at its edge; to step on it takes it, which is worth nothing. The last has one door: to step on
    it ends the episode, with 1 if the key was taken, and with 0 if not.
    """

    longest: int = 30

    actions = VisualMatch.actions
    observations = VisualMatch.observations

    def __post_init__(self) -> None:
        checks.positive("longest", self.longest)

    @property
    def default_params(self) -> Params:
        """Parameters of the longest task."""
        return VisualMatch(self.longest).default_params

    def reset_env(self, key: Key, params: Params) -> tuple[Array, Rooms]:
        """Place the key, the apples and the door."""
        place_key, apple_key = draws.split(key)
        doors = jnp.int32([FLOOR, DOOR, FLOOR])
        return _begin(_edge(place_key), jnp.int32(KEY), _apples(apple_key), doors, params)

    def step_env(self, key: Key, state: Rooms, action: Array, params: Params) -> Any:
        """Move, take the key, pick an apple, or go through the door."""
        state, reward, room = _go_on(state, action, params)
        taken = _here(state.at, state.place) & (room == 0)
        door = _here(state.at, DOORS[1]) & (room == 2)
        reward += door & (state.cue == FLOOR)
        state = _enter(state._replace(cue=jnp.where(taken, FLOOR, state.cue)), room, params)
        return _see(state, params), state, reward, door, {}

    def is_truncated(self, state: Rooms, params: Params) -> Array:
        """Tell whether the time is over, [] bool."""
        return _late(state, params)


def _edge(key: Key) -> Array:
    return jnp.asarray(EDGE)[draws.randint(key, (), 0, len(EDGE))]


def _apples(key: Key) -> Array:
    return draws.bernoulli(key, shape=(len(APPLES),))


def _begin(
    place: Any, cue: Array, apples: Array, doors: Array, params: Params
) -> tuple[Array, Rooms]:
    state = Rooms(jnp.asarray(START), jnp.asarray(place), cue, apples, doors, jnp.int32(0))
    return _see(state, params), state


def visual_match(
    delay: int | Array = 30,
    longest: int | None = None,
    active: bool = False,
    apple: float = 0.1,
) -> Environment:
    """Make the task of matching a colour; a `delay` [] may be traced if `longest` limits it.

    See `VisualMatch`.
    """
    task = VisualMatch(bound("delay", delay, "longest", longest), active)
    return from_gymnax(task, delay=delay, apple=apple)


def key_door(
    delay: int | Array = 30, longest: int | None = None, apple: float = 0.1
) -> Environment:
    """Make the task of the key and the door, with a `delay` [] as in `visual_match`.

    See `KeyDoor`.
    """
    task = KeyDoor(bound("delay", delay, "longest", longest))
    return from_gymnax(task, delay=delay, apple=apple)
