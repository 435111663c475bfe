"""Environments in gymnax's shape, with the boundaries between episodes made visible.

gymnax resets by itself and shows the next episode's first observation in place of the last one.
Here the true last observation is a timestep of its own, and the step after it starts the next
episode, so time limits can be told from deaths and bootstrapped from the right observation.
"""

import inspect
import math
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


def from_gymnax(name: Any, /, **params: Any) -> Environment:
    """Adapt a gymnax id, or any object with gymnax 1.x's `reset`, `step` and `default_params`.

    `params` replace fields of the environment's parameters or, where it has no such field,
    arguments of its constructor. `horizon` is `max_steps_in_episode`, or 10 000 where there is no
    such parameter. Raises ValueError for an unknown id or parameter.
    """
    env, env_params = (_make if isinstance(name, str) else _own)(name, params)
    plain = getattr(getattr(type(env), "step", None), "__module__", "") in _PLAIN
    reset, step, restart = (_pieces if plain else _public)(env, env_params)
    actions = _actions(env, env_params)
    if isinstance(actions, Discrete):
        first_action = jnp.zeros((), jnp.int32)
    else:
        first_action = jnp.zeros(actions.shape, actions.dtype)

    # What a step gives decides the dtypes, so that a loop can carry it.
    like = jax.eval_shape(lambda key: step(key, reset(key)[1], first_action)[:2], jax.random.key(0))

    def first(observation: Any, state: Any) -> tuple[Episode, TimeStep]:
        observation, state = tree.cast((observation, state), like)
        zero, one, true = jnp.float32(0), jnp.float32(1), jnp.bool_(True)
        timestep = TimeStep(observation, first_action, zero, one, true, ~true)
        return Episode(state, ~true), timestep

    def adapted_reset(key: Key) -> tuple[Episode, TimeStep]:
        return first(*reset(key))

    def adapted_step(key: Key, episode: Episode, action: Array) -> tuple[Episode, TimeStep]:
        # Only one of the two is kept, so both may use the same key.
        fresh = first(*restart(key, episode.state))
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

    observations = _observations(env, env_params, like[0])
    horizon = math.ceil(getattr(env_params, "max_steps_in_episode", 10_000))
    checks.at_least("max_steps_in_episode", horizon, 1)
    return Environment(adapted_reset, adapted_step, actions, observations, horizon)


def _make(name: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """Make a gymnax environment by id; `options` go to its parameters or its constructor."""
    import gymnax

    checks.known("environment", name, gymnax.registered_envs)
    env, params = gymnax.make(name)
    ours = {f.name for f in fields(params)}
    kwargs = {k: v for k, v in options.items() if k not in ours}
    if kwargs:
        taken = inspect.signature(type(env)).parameters
        for key in kwargs:
            checks.known(f"{name} option", key, sorted(ours | set(taken)))
        env, params = gymnax.make(name, **kwargs)
    return env, _replace(params, {k: v for k, v in options.items() if k in ours})


def _own(env: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    """Take an environment object as it is; `options` go to its parameters."""
    for attribute in ("reset", "step", "default_params", "observation_space", "action_space"):
        if not hasattr(env, attribute):
            raise ValueError(f"environment: {type(env).__name__} has no `{attribute}`")
    params = env.default_params
    for key in options:
        checks.known(f"{type(env).__name__} option", key, [f.name for f in fields(params)])
    return env, _replace(params, options) if options else params


def _replace(params: Any, options: dict[str, Any]) -> Any:
    """Replace fields of `params`; a whole number may stand for a float."""

    def like(name: str, value: Any) -> Any:
        default = getattr(params, name)
        if isinstance(value, str) and not isinstance(default, str):
            raise ValueError(f"environment_args: {name}={value!r} is not a number like {default!r}")
        return float(value) if isinstance(default, float) and isinstance(value, int) else value

    return params.replace(**{name: like(name, value) for name, value in options.items()})


def _pieces(env: Any, params: Any) -> tuple[Callable[..., Any], ...]:
    """Return `reset`, `step` and `restart` of an environment with gymnax's own `step`.

    That one resets by itself and pays for it at every step; here are the pieces it is made of.
    """

    def reset(key: Key) -> Any:
        return env.reset(key, params)

    def step(key: Key, state: Any, action: Array) -> tuple[Any, ...]:
        observation, state, reward, terminated, _ = env.step_env(key, state, action, params)
        return observation, state, reward, terminated, env.is_truncated(state, params)

    def restart(key: Key, state: Any) -> Any:
        return reset(key)

    return reset, step, restart


def _public(env: Any, params: Any) -> tuple[Callable[..., Any], ...]:
    """Return `reset`, `step` and `restart` of an environment with a `step` of its own.

    It begins the next episode itself, with what it carries over from the last one; the state here
    holds that episode's first observation until it is its turn.
    """

    def reset(key: Key) -> tuple[Any, Any]:
        observation, state = env.reset(key, params)
        return observation, (state, observation)

    def step(key: Key, state: Any, action: Array) -> tuple[Any, ...]:
        out = env.step(key, state[0], action, params)
        if len(out) != 6 or "final_observation" not in out[5]:
            raise ValueError(
                f"environment: step of {type(env).__name__} gave {len(out)} values; gymnax 1 gives "
                "6 (observation, state, reward, terminated, truncated, info) with the true last "
                "observation in info['final_observation']"
            )
        following, inner, reward, terminated, truncated, info = out
        return info["final_observation"], (inner, following), reward, terminated, truncated

    def restart(key: Key, state: Any) -> tuple[Any, Any]:
        return state[1], state

    return reset, step, restart


# An environment may declare its spaces in our types, and so spare the import of gymnax. Its class
# has to: a wrapper's instance passes on the attributes of what it wraps, whose spaces may differ.


def _actions(env: Any, params: Any) -> Discrete | Continuous:
    """Return what can be done; raises ValueError if that has several parts."""
    if hasattr(type(env), "actions"):
        return env.actions
    space = env.action_space(params)
    if hasattr(space, "spaces"):
        raise ValueError(f"environment: {type(env).__name__} has composite actions, {space}")
    return _spec(space, space)


def _observations(env: Any, params: Any, observation: Any) -> Any:
    """Return what is observed, e.g. `observation`."""
    if hasattr(type(env), "observations"):
        return env.observations
    return _spec(env.observation_space(params), observation)


def _spec(space: Any, x: Any) -> Any:
    """Translate a gymnax space into Discrete and Continuous, arranged like its element `x`.

    Shapes and dtypes are those of `x`, for some of gymnax's spaces declare others.
    """
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    if not hasattr(space, "spaces"):
        return Continuous(tuple(x.shape), jnp.dtype(x.dtype), space.low, space.high)
    if hasattr(x, "keys"):
        return type(x)((k, _spec(space.spaces[k], x[k])) for k in x)
    return tuple(_spec(*pair) for pair in zip(space.spaces, x, strict=True))
