"""The T-Maze: a cue seen early tells which arm to take at the far end of a corridor."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import struct

from memrl_jax import checks, draws
from memrl_jax.environments.interface import Interface
from memrl_jax.environments.options import like
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Array, Key

LEFT, RIGHT, UP, DOWN = range(4)


@struct.dataclass
class EnvState:
    """Where the agent and its goal are; every field is an int32 scalar."""

    x: Array  # cells to the right of the start; the junction is at `corridor`
    y: Array  # 1 in the upper arm, -1 in the lower, 0 in the corridor
    goal: Array  # the rewarded arm, 1 or -1
    time: Array  # steps taken in this episode


@struct.dataclass
class EnvParams:
    """What may vary between mazes without recompiling; every field may be traced."""

    corridor: int | Array  # steps from the start to the junction
    max_steps_in_episode: int | Array
    bonus: float | Array = 1.0  # reward for ending in the cued arm


@dataclass(frozen=True)
class TMaze(Interface):
    """T-Maze (Bakker, 2001), passive or active (Ni et al., 2023).

    A corridor leads right from the start, x = 0, to the junction, x = `corridor`. There, up or
    down ends the episode: with `bonus` in the cued arm, with 0 in the other. Passive: the cue is
    seen at the start. Active: it is seen one cell to the left of the start, at x = -1. Every step
    but an episode's last costs 1 / `corridor` if it leaves the agent behind the shortest path
    (active: the one by way of the cue). The best return is `bonus`; without a memory, the best mean
    return is half of it.

    Observation, float32 [2]: the cue, 1 for up and -1 for down, and 0 where it is not seen; then 1
    at the junction and in the arms, else 0. All other cells look the same. Actions: 0 left,
    1 right, 2 up, 3 down; walls leave the agent in place, and so does any other integer.

    The time limit is twice what the best agent needs. `max_steps_in_episode` = `corridor` + 1
    (active: + 3) is the horizon of Ni et al., whose episodes all have that length: an agent that
    enters an arm early waits in it.

    The class has the interface of gymnax 1.x. Raises ValueError if `corridor` is below 1, or so
    long that the time limit exceeds int32.
    """

    corridor: int = 8
    active: bool = False

    def __post_init__(self) -> None:
        checks.positive("corridor", self.corridor, high=checks.INT32 // 2 - 3)
        like("active", self.active, False)

    @property
    def name(self) -> str:
        """Name in the list of environments."""
        return "TMaze-active" if self.active else "TMaze"

    @property
    def oracle(self) -> int:
        """Cell where the cue is seen; also the leftmost one."""
        return -1 if self.active else 0

    @property
    def default_params(self) -> EnvParams:
        """Parameters of a maze as it was constructed."""
        shortest = self.corridor + 1 - 2 * self.oracle
        return EnvParams(corridor=self.corridor, max_steps_in_episode=2 * shortest)

    def reset_env(self, key: Key, params: EnvParams) -> tuple[Array, EnvState]:
        """Place the agent at the start and draw the goal: observation [2] and state."""
        goal = 2 * draws.bernoulli(key).astype(jnp.int32) - 1
        state = EnvState(x=jnp.int32(0), y=jnp.int32(0), goal=goal, time=jnp.int32(0))
        return self.get_obs(state, params), state

    def step_env(
        self, key: Key, state: EnvState, action: int | Array, params: EnvParams
    ) -> tuple[Array, EnvState, Array, Array, dict[str, Any]]:
        """Take a step without starting anew: observation [2], state, reward, terminated, info.

        `key` is not used: only the goal is random.
        """
        corridor = jnp.int32(params.corridor)
        right = jnp.int32(action == RIGHT) - jnp.int32(action == LEFT)
        up = jnp.int32(action == UP) - jnp.int32(action == DOWN)
        state = EnvState(
            x=jnp.clip(state.x + right, self.oracle, corridor),
            y=jnp.where(state.x == corridor, up, 0),
            goal=state.goal,
            time=state.time + 1,
        )
        terminated = self.is_terminated(state, params)
        info = {"discount": 1.0 - terminated.astype(jnp.float32)}
        reward = self._reward(state, params)
        return self.get_obs(state, params), state, reward, terminated, info

    def _reward(self, state: EnvState, params: EnvParams) -> Array:
        """Reward, float32 [], earned on arriving in `state` (Ni et al., 2023)."""
        last = self.is_terminated(state, params) | self.is_truncated(state, params)
        behind = state.x < state.time + 2 * self.oracle
        bonus = jnp.where(state.y == state.goal, jnp.float32(params.bonus), 0.0)
        penalty = jnp.where(behind, -1.0 / jnp.float32(params.corridor), 0.0)
        return jnp.where(last, bonus, penalty)

    def get_obs(self, state: EnvState, params: EnvParams) -> Array:
        """Observation, float32 [2]: cue and junction."""
        cue = jnp.where(state.x == self.oracle, state.goal, 0)
        return jnp.array([cue, state.x == params.corridor], jnp.float32)

    def is_terminated(self, state: EnvState, params: EnvParams) -> Array:
        """Tell whether an arm has been entered, [] bool."""
        return state.y != 0

    @property
    def actions(self) -> Discrete:
        """Space of actions, declared without importing gymnax, which takes seconds."""
        return Discrete(4)

    @property
    def observations(self) -> Continuous:
        """Space of observations, declared without importing gymnax."""
        low, high = jnp.array([-1.0, 0.0], jnp.float32), jnp.array([1.0, 1.0], jnp.float32)
        return Continuous((2,), jnp.dtype(jnp.float32), low, high)
