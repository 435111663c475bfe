"""A robot that has to find a place, and then to go there again and again."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct

from memrl_jax import checks, draws, tree
from memrl_jax.environments.interface import Interface
from memrl_jax.environments.options import like
from memrl_jax.kinds import FLOAT32
from memrl_jax.spaces import Continuous
from memrl_jax.types import Array, Key

TICK = 0.1  # seconds of a step
WALL = 2.0  # metres from the middle
GAIN, DAMPING = 10.0, 2.0  # newtons per metre, and per metre / s, of the controller `best`


@struct.dataclass
class Params:
    """Parameters of `HiddenRobot`; all but the time limit may be traced."""

    strength: float | Array
    friction: float | Array
    radius: float | Array
    max_steps_in_episode: int


class Robot(NamedTuple):
    """The state of `HiddenRobot`."""

    position: Array  # [2] float32, metres
    velocity: Array  # [2] float32, metres / s
    goal: Array  # [2] float32
    time: Array  # [] int32


@dataclass(frozen=True)
class HiddenRobot(Interface):
    """Drive to a hidden goal as often as time allows, without seeing how fast one is.

    A point of mass 1 kg is driven through a square, -2 to 2 m, whose walls stop it. When an episode
    begins, a goal is drawn on the circle of 1 m around the middle. Within `radius` of it, the robot
    gets a reward of 1 and is put back to the middle, at rest; the goal stays, so that whoever
    remembers it need not search again. An episode is truncated after `steps` steps of 0.1 s.

    Observation, float32 [3], [5] or [7]: the position; with `velocity`, the velocity; with `goal`,
    the goal; and last, 1 if the robot was just put back, else 0. Action, float32 [2]: a force, of
    which at most 1 counts in each direction, times `strength` newtons; `friction` times the
    velocity works against it. `best` returns 15.8 on average, with the default numbers, and random
    forces 0.2.
    """

    velocity: bool = False
    goal: bool = False
    steps: int = 200
    strength: float = 1.0
    friction: float = 0.5
    radius: float = 0.25

    actions = Continuous((2,), np.dtype(np.float32), np.float32(-1), np.float32(1))

    def __post_init__(self) -> None:
        like("velocity", self.velocity, False)
        like("goal", self.goal, False)
        checks.positive("steps", self.steps)
        checks.within("strength", self.strength, 0, FLOAT32)
        checks.within("friction", self.friction, 0, 1 / TICK)
        checks.within("radius", self.radius, 0, 1)

    @property
    def observations(self) -> Continuous:
        """Space of observations."""
        seen = [WALL] * 2 + [np.inf] * (2 * self.velocity) + [1.0] * (2 * self.goal + 1)
        high = np.array(seen, np.float32)
        low = np.append(-high[:-1], np.float32(0))
        return Continuous(high.shape, high.dtype, low, high)

    @property
    def default_params(self) -> Params:
        """Parameters as the task was constructed."""
        return Params(self.strength, self.friction, self.radius, self.steps)

    def reset_env(self, key: Key, params: Params) -> tuple[Array, Robot]:
        """Draw a goal, and put the robot in the middle."""
        angle = draws.uniform(key, (), jnp.float32, 0.0, 2 * jnp.pi)
        goal, rest = jnp.stack([jnp.cos(angle), jnp.sin(angle)]), jnp.zeros(2, jnp.float32)
        state = Robot(rest, rest, goal, jnp.int32(0))
        return self._see(state, jnp.float32(0)), state

    def step_env(self, key: Key, state: Robot, action: Array, params: Params) -> Any:
        """Drive for 0.1 s; `key` is not used."""
        push = params.strength * jnp.clip(action, -1.0, 1.0)
        velocity = state.velocity + TICK * (push - params.friction * state.velocity)
        position = state.position + TICK * velocity
        velocity = jnp.where(jnp.abs(position) < WALL, velocity, 0.0)
        position = jnp.clip(position, -WALL, WALL)
        arrived = jnp.sum((position - state.goal) ** 2) <= params.radius**2
        rest = jnp.zeros(2, jnp.float32)
        position, velocity = tree.where(arrived, (rest, rest), (position, velocity))
        reward = arrived.astype(jnp.float32)
        state = Robot(position, velocity, state.goal, state.time + 1)
        return self._see(state, reward), state, reward, jnp.bool_(False), {}

    def best(self, state: Robot, params: Params) -> Array:
        """Return the force of a proportional-derivative controller to the goal, float32 [2]."""
        return jnp.clip(GAIN * (state.goal - state.position) - DAMPING * state.velocity, -1.0, 1.0)

    def _see(self, state: Robot, arrived: Array) -> Array:
        velocity, goal = [state.velocity] * self.velocity, [state.goal] * self.goal
        return jnp.concatenate([state.position, *velocity, *goal, arrived[None]])
