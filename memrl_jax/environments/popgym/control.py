"""Cart-pole and pendulum of which only a part is seen, with or without noise."""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct

from memrl_jax import checks, draws
from memrl_jax.environments.interface import Interface
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Array, Key

WIDE, STEEP = 2.4, math.pi / 15  # beyond, a cart-pole has fallen: metres and radians
FORCE = 10.0  # newtons
TORQUE, FAST = 2.0, 8.0  # the most that moves a pendulum, and its fastest: N m and radians / s
WORST = 16.2736044  # the highest cost of a pendulum's step


@struct.dataclass
class Params:
    """Parameters of a control task; `noise` may be traced."""

    noise: float | Array
    max_steps_in_episode: int


class Motion(NamedTuple):
    """The state of a control task."""

    physics: Array  # [4] float32 position, velocity, angle, its rate; or [2] angle and its rate
    time: Array  # [] int32


def _noisy(self: Any, key: Key, x: Array, params: Params) -> Array:
    """Add noise to an observation [2], and clip it to its bounds; without `noise`, return it."""
    if not self.noise:
        return x
    _, dtype, low, high = self.observations
    return jnp.clip(x + params.noise * draws.normal(key, x.shape, dtype), low, high)


@dataclass(frozen=True)
class CartPole(Interface):
    """Cart-pole of which positions or velocities are hidden; each of `steps` steps is worth 1 / L.

    `seen`: "positions" of cart and pole, float32 [x, angle], or "velocities", their rates. `noise`:
    the standard deviation of normal noise on both, which are then clipped to twice where the pole
    counts as fallen. An episode terminates there, and is truncated after L = `steps` steps; the
    step that ends it is worth as much. `faithful`: with velocities seen, the first observation of
    an episode shows positions, as POPGym's does by mistake. Action: push left (0) or right (1).
    Motion and limits are those of OpenAI's CartPole-v1 (Barto, Sutton & Anderson 1983).
    """

    seen: Literal["positions", "velocities"] = "positions"
    steps: int = 200
    noise: float = 0.0
    faithful: bool = False

    actions = Discrete(2)

    def __post_init__(self) -> None:
        checks.known("seen", self.seen, ("positions", "velocities"))
        checks.positive("steps", self.steps)
        checks.within("noise", self.noise, 0, math.inf)

    @property
    def observations(self) -> Continuous:
        """Space of observations."""
        high = np.array([2 * WIDE, 2 * STEEP], np.float32) if self.seen == "positions" else np.inf
        return Continuous((2,), np.dtype(np.float32), -high, high)

    @property
    def default_params(self) -> Params:
        """Parameters as the task was constructed."""
        return Params(self.noise, self.steps)

    def reset_env(self, key: Key, params: Params) -> tuple[Array, Motion]:
        """Place the cart close to the middle, the pole close to upright."""
        state_key, key = draws.split(key)
        physics = draws.uniform(state_key, (4,), jnp.float32, -0.05, 0.05)
        hidden = self.seen == "velocities" and not self.faithful
        return _noisy(self, key, physics[int(hidden) :: 2], params), Motion(physics, jnp.int32(0))

    def step_env(self, key: Key, state: Motion, action: Array, params: Params) -> Any:
        """Push the cart."""
        physics = pushed(state.physics, jnp.where(action == 1, FORCE, -FORCE))
        fallen = (jnp.abs(physics[0]) > WIDE) | (jnp.abs(physics[2]) > STEEP)
        reward = 1 / jnp.float32(params.max_steps_in_episode)
        observation = _noisy(self, key, physics[int(self.seen == "velocities") :: 2], params)
        return observation, Motion(physics, state.time + 1), reward, fallen, {}


def pushed(physics: Array, force: Array) -> Array:
    """Move a cart-pole [4] by a step of 0.02 s under a force: Euler's method, without friction."""
    gravity, cart, pole, half = 9.8, 1.0, 0.1, 0.5
    _, speed, angle, rate = physics
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    push = (force + pole * half * rate**2 * sine) / (cart + pole)
    turn = (gravity * sine - cosine * push) / (half * (4 / 3 - pole * cosine**2 / (cart + pole)))
    gain = push - pole * half * turn * cosine / (cart + pole)
    return physics + 0.02 * jnp.stack([speed, gain, rate, turn])


@dataclass(frozen=True)
class Pendulum(Interface):
    """Swing up a pendulum whose velocity is hidden.

    Observation, float32 [2]: cosine and sine of the angle, 0 upright; with `noise`, the standard
    deviation of normal noise, they are then clipped to -1 .. 1. Action, float32 [1]: a torque, of
    which at most 2 N m act. A step with reward r of OpenAI's Pendulum-v1, 0 to -16.27, is worth
    (r + 8.14) / 8.14 / L; an episode is truncated after L = `steps` steps.
    """

    steps: int = 200
    noise: float = 0.0

    observations = Continuous((2,), np.dtype(np.float32), np.float32(-1), np.float32(1))
    actions = Continuous((1,), np.dtype(np.float32), np.float32(-TORQUE), np.float32(TORQUE))

    def __post_init__(self) -> None:
        checks.positive("steps", self.steps)
        checks.within("noise", self.noise, 0, math.inf)

    @property
    def default_params(self) -> Params:
        """Parameters as the task was constructed."""
        return Params(self.noise, self.steps)

    def reset_env(self, key: Key, params: Params) -> tuple[Array, Motion]:
        """Begin at any angle, with a rate from -1 to 1."""
        state_key, key = draws.split(key)
        most = jnp.float32([jnp.pi, 1.0])
        physics = most * draws.uniform(state_key, (2,), jnp.float32, -1.0, 1.0)
        return self._see(key, physics, params), Motion(physics, jnp.int32(0))

    def step_env(self, key: Key, state: Motion, action: Array, params: Params) -> Any:
        """Turn the pendulum for 0.05 s."""
        angle, rate = state.physics
        torque = jnp.clip(action[0], -TORQUE, TORQUE)
        lean = jnp.mod(angle + jnp.pi, 2 * jnp.pi) - jnp.pi
        cost = lean**2 + 0.1 * rate**2 + 0.001 * torque**2
        reward = (WORST / 2 - cost) / (WORST / 2) / params.max_steps_in_episode
        rate = jnp.clip(rate + 0.05 * (15 * jnp.sin(angle) + 3 * torque), -FAST, FAST)
        physics = jnp.stack([angle + 0.05 * rate, rate])
        state = Motion(physics, state.time + 1)
        return self._see(key, physics, params), state, reward, jnp.bool_(False), {}

    def _see(self, key: Key, physics: Array, params: Params) -> Array:
        seen = jnp.stack([jnp.cos(physics[0]), jnp.sin(physics[0])])
        return _noisy(self, key, seen, params)
