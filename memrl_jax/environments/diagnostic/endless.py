"""T-Mazes in a row: each has a cue of its own, and the first wrong arm ends the episode."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct

from memrl_jax import checks, draws
from memrl_jax.environments.diagnostic.dials import bound
from memrl_jax.environments.gymnax import from_gymnax
from memrl_jax.environments.interface import Interface
from memrl_jax.environments.tmaze import DOWN, LEFT, RIGHT, UP
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Array, Environment, Key


@struct.dataclass
class Params:
    """What may vary between rows of mazes without recompiling."""

    corridor: int | Array  # steps from the start of a maze to its junction, 1 .. longest
    max_steps_in_episode: int


class Row(NamedTuple):
    """Where the agent is in the present maze."""

    x: Array  # [] int32, cells to the right of the maze's start
    goal: Array  # [] int32, the arm that leads on, 1 (up) or -1 (down)
    passed: Array  # [] int32, mazes behind the agent
    time: Array  # [] int32


@dataclass(frozen=True)
class EndlessTMaze(Interface):
    """T-Mazes in a row: the cued arm of each leads to the next one.

    After Bakker (2001): the cue is seen at the start of a corridor, x = 0, and tells which arm of
    the junction at x = `corridor` to take. That arm is worth 1 / `mazes` and leads to the start of
    another maze with a new cue; the other arm ends the episode, as does the last maze. The time
    limit is twice what the best agent needs with the longest corridor. Best return: 1; without a
    memory, every junction is a guess, and the mean return is below 1 / `mazes`.

    Observation, float32 [2]: the cue, 1 for up and -1 for down, and 0 where it is not seen; 1 at
    the junction, else 0. Actions: 0 left, 1 right, 2 up, 3 down; walls leave the agent in place. A
    corridor of up to `longest` steps may be traced. Raises ValueError if a number is below 1.
    """

    longest: int = 8
    mazes: int = 5

    actions = Discrete(4)
    observations = Continuous(
        (2,), np.dtype(np.float32), np.array([-1, 0], np.float32), np.float32(1)
    )

    def __post_init__(self) -> None:
        checks.positive("longest", self.longest)
        checks.positive("mazes", self.mazes)

    @property
    def default_params(self) -> Params:
        """Parameters of the longest mazes."""
        return Params(self.longest, 2 * self.mazes * (self.longest + 1))

    def reset_env(self, key: Key, params: Params) -> tuple[Array, Row]:
        """Begin the first maze."""
        zero = jnp.int32(0)
        state = Row(zero, _cue(key), zero, zero)
        return self._see(state, params), state

    def step_env(self, key: Key, state: Row, action: Array, params: Params) -> Any:
        """Go a cell, or from an arm into the next maze."""
        aside = jnp.int32(action == UP) - jnp.int32(action == DOWN)
        arm = jnp.where(state.x == params.corridor, aside, 0)
        right = arm == state.goal
        along = jnp.int32(action == RIGHT) - jnp.int32(action == LEFT)
        state = Row(
            x=jnp.where(right, 0, jnp.clip(state.x + along, 0, params.corridor)),
            goal=jnp.where(right, _cue(key), state.goal),
            passed=state.passed + right,
            time=state.time + 1,
        )
        over = (arm != 0) & (~right | (state.passed == self.mazes))
        reward = jnp.where(right, jnp.float32(1 / self.mazes), 0.0)
        return self._see(state, params), state, reward, over, {}

    def _see(self, state: Row, params: Params) -> Array:
        cue = jnp.where(state.x == 0, state.goal, 0)
        return jnp.stack([cue, state.x == params.corridor]).astype(jnp.float32)


def _cue(key: Key) -> Array:
    return 2 * draws.bernoulli(key).astype(jnp.int32) - 1


def endless_tmaze(
    corridor: int | Array = 8, longest: int | None = None, mazes: int = 5
) -> Environment:
    """Make T-Mazes in a row; a `corridor` [] may be traced if `longest` limits it.

    See `EndlessTMaze`.
    """
    task = EndlessTMaze(bound("corridor", corridor, "longest", longest), mazes)
    return from_gymnax(task, corridor=corridor)
