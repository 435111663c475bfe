"""Environments in gymnax's shape, with the boundaries between episodes made visible.

gymnax resets by itself and shows the next episode's first observation in place of the last one.
Here the true last observation is a timestep of its own, and the step after it starts the next
episode, so time limits can be told from deaths and bootstrapped from the right observation.
"""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax import checks, tree
from memrl_jax.types import Array, Continuous, Discrete, Environment, Key, TimeStep

# Where a `step` is defined that is exactly `step_env` with gymnax's automatic reset around it.
_PLAIN = ("gymnax.environments.environment", "memrl_jax.environments.tmaze")


class Episode(NamedTuple):
    """The state of one adapted environment."""

    state: Any
    last: Array  # [] bool: the next step resets


def from_gymnax(name: Any, **params: Any) -> Environment:
    """Adapt a gymnax id, or any object with gymnax 1.x's `reset`, `step` and `default_params`.

    `params` replace fields of the environment's parameters or, where it has no such field,
    arguments of its constructor. Raises ValueError for an unknown id or parameter.
    """
    env, env_params = (_make if isinstance(name, str) else _own)(name, params)
    step = _without_reset(env, env_params)
    # An environment may declare its spaces in our types, and so spare the import of gymnax.
    observations = getattr(env, "observations", None) or _spec(env.observation_space(env_params))
    actions = getattr(env, "actions", None) or _spec(env.action_space(env_params))
    if isinstance(actions, Discrete):
        first_action = jnp.zeros((), jnp.int32)
    elif isinstance(actions, Continuous):
        first_action = jnp.zeros(actions.shape, actions.dtype)
    else:
        raise ValueError(f"environment: {name} has composite actions, {actions}")

    def reset(key: Key) -> tuple[Any, Any]:
        return env.reset(key, env_params)

    # What a step gives decides the dtypes, so that a loop can carry it.
    like = jax.eval_shape(lambda key: step(key, reset(key)[1], first_action)[:2], jax.random.key(0))

    def first(observation: Any) -> TimeStep:
        zero, one, true = jnp.float32(0), jnp.float32(1), jnp.bool_(True)
        return TimeStep(observation, first_action, zero, one, true, ~true)

    def adapted_reset(key: Key) -> tuple[Episode, TimeStep]:
        observation, state = tree.cast(reset(key), like)
        return Episode(state, jnp.bool_(False)), first(observation)

    def adapted_step(key: Key, episode: Episode, action: Array) -> tuple[Episode, TimeStep]:
        # Only one of the two is kept, so both may use the same key.
        fresh = adapted_reset(key)
        observation, state, reward, terminated, truncated = step(key, episode.state, action)
        observation, state = tree.cast((observation, state), like)
        timestep = TimeStep(
            observation,
            tree.cast(action, first_action),
            jnp.float32(reward),
            1 - jnp.float32(terminated),
            jnp.bool_(False),
            jnp.bool_(terminated | truncated),
        )
        return tree.where(episode.last, fresh, (Episode(state, timestep.last), timestep))

    horizon = int(getattr(env_params, "max_steps_in_episode", 0)) or 10_000
    return Environment(adapted_reset, adapted_step, actions, observations, horizon)


def _make(name: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """Make a gymnax environment by id; `options` go to its parameters or its constructor."""
    import gymnax

    checks.known("environment", name, gymnax.registered_envs)
    env, params = gymnax.make(name)
    ours = {f.name for f in fields(params)}
    kwargs = {k: v for k, v in options.items() if k not in ours}
    if kwargs:
        taken = inspect.signature(type(env).__init__).parameters
        for key in kwargs:
            checks.known(f"{name} option", key, sorted(ours | set(taken) - {"self"}))
        env, params = gymnax.make(name, **kwargs)
    return env, params.replace(**{k: v for k, v in options.items() if k in ours})


def _own(env: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    """Take an environment object as it is; `options` go to its parameters."""
    for attribute in ("reset", "step", "default_params", "observation_space", "action_space"):
        if not hasattr(env, attribute):
            raise ValueError(f"environment: {type(env).__name__} has no `{attribute}`")
    params = env.default_params
    for key in options:
        checks.known(f"{type(env).__name__} option", key, [f.name for f in fields(params)])
    return env, params.replace(**options) if options else params


def _without_reset(env: Any, params: Any) -> Callable[..., Any]:
    """Return `step(key, state, action)` -> observation, state, reward, terminated, truncated.

    gymnax's own `step` resets by itself and pays for it at every step; where it is the plain
    one, the pieces it is made of are used. A `step` of the environment's own is kept.
    """

    def pieces(key: Key, state: Any, action: Array) -> tuple[Any, ...]:
        observation, state, reward, terminated, _ = env.step_env(key, state, action, params)
        return observation, state, reward, terminated, env.is_truncated(state, params)

    def public(key: Key, state: Any, action: Array) -> tuple[Any, ...]:
        out = env.step(key, state, action, params)
        if len(out) != 6 or "final_observation" not in out[5]:
            raise ValueError(
                f"environment: step of {type(env).__name__} gave {len(out)} values; gymnax 1 gives "
                "6 (observation, state, reward, terminated, truncated, info) with the true last "
                "observation in info['final_observation']"
            )
        _, state, reward, terminated, truncated, info = out
        return info["final_observation"], state, reward, terminated, truncated

    module = getattr(type(env).step, "__module__", "")
    return pieces if module in _PLAIN else public


def _spec(space: Any) -> Any:
    """Translate a gymnax space into a pytree of Discrete and Continuous."""
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    if hasattr(space, "spaces"):
        inner = space.spaces
        if isinstance(inner, dict):
            return {k: _spec(v) for k, v in inner.items()}
        return tuple(_spec(v) for v in inner)
    return Continuous(tuple(space.shape), jnp.dtype(space.dtype), space.low, space.high)
