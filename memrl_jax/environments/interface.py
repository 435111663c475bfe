"""gymnax's interface, for environments that do not import gymnax, which takes seconds."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from memrl_jax import draws, tree
from memrl_jax.spaces import Discrete, is_part
from memrl_jax.types import Array, Key


class Interface:
    """The methods of gymnax 1.x that follow from those an environment has to define.

    These are `default_params`, with the field `max_steps_in_episode`; the spaces `observations` and
    `actions` in our types; `reset_env(key, params)`, which returns an observation and a state;
    `step_env(key, state, action, params)`, which returns an observation, a state, a reward, whether
    the episode terminated and a dictionary; and `is_truncated(state, params)` of the state after
    that step. All methods are for one environment; vmap them.
    """

    default_params: Any
    observations: Any
    actions: Any

    @property
    def name(self) -> str:
        """Name of the environment."""
        return type(self).__name__

    @partial(jax.jit, static_argnames=("self",))
    def reset(self, key: Key, params: Any = None) -> tuple[Any, Any]:
        """Start an episode: observation and state."""
        return self.reset_env(key, self.default_params if params is None else params)

    @partial(jax.jit, static_argnames=("self",))
    def step(
        self, key: Key, state: Any, action: Any, params: Any = None
    ) -> tuple[Any, Any, Array, Array, Array, dict[str, Any]]:
        """Take a step, and start the next episode where this one ends.

        Returns observation, state, reward, terminated, truncated and info. If the episode ends, the
        first two are the next episode's; `info["final_observation"]` is always this one's.
        """
        params = self.default_params if params is None else params
        step_key, reset_key = draws.split(key)
        observation, state, reward, terminated, info = self.step_env(
            step_key, state, action, params
        )
        truncated = self.is_truncated(state, params)
        info |= {
            "terminated": terminated,
            "truncated": truncated,
            "final_observation": observation,
        }
        first = self.reset_env(reset_key, params)
        observation, state = tree.where(terminated | truncated, first, (observation, state))
        return observation, state, reward, terminated, truncated, info

    def reset_env(self, key: Key, params: Any) -> tuple[Any, Any]:
        """Start an episode: observation and state."""
        raise NotImplementedError

    def step_env(
        self, key: Key, state: Any, action: Any, params: Any
    ) -> tuple[Any, Any, Array, Array, dict[str, Any]]:
        """Take a step without starting anew: observation, state, reward, terminated, info."""
        raise NotImplementedError

    def is_truncated(self, state: Any, params: Any) -> Array:
        """Tell whether the time limit has been reached, [] bool."""
        return state.time >= params.max_steps_in_episode

    @property
    def num_actions(self) -> int:
        """Number of actions, where they are one `Discrete`."""
        return self.actions.n

    def action_space(self, params: Any = None) -> Any:
        """Space of actions in gymnax's types."""
        return theirs(self.actions)

    def observation_space(self, params: Any = None) -> Any:
        """Space of observations in gymnax's types."""
        return theirs(self.observations)


def theirs(space: Any) -> Any:
    """Convert a space to gymnax's types: tuples to `Tuple`, dictionaries to `Dict`."""
    from gymnax.environments import spaces

    if isinstance(space, Discrete):
        if not space.shape:
            return spaces.Discrete(space.n)
        return spaces.Box(jnp.int32(0), jnp.int32(space.n - 1), space.shape, jnp.int32)
    if is_part(space):
        return spaces.Box(jnp.asarray(space.low), jnp.asarray(space.high), space.shape, space.dtype)
    if isinstance(space, dict):
        return spaces.Dict({name: theirs(part) for name, part in space.items()})
    return spaces.Tuple([theirs(part) for part in space])
