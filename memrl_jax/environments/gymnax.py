"""Adapter of environments with gymnax's interface that keeps the last observation of an episode.

gymnax resets automatically and returns the next episode's first observation in place of the last
one. Here the true last observation is a timestep of its own, and the step after it starts the next
episode: time limits can be told from terminations and bootstrapped from the right observation.
"""

import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import checks, draws, spaces, tree
from memrl_jax.environments import foreign
from memrl_jax.environments.base import Arrival, episodic
from memrl_jax.environments.declared import blamed, check_agree, check_declared, dtype_and_shape
from memrl_jax.environments.options import fields, like, replaced
from memrl_jax.types import Array, Environment, Key

# Modules that define a `step` which is exactly `step_env` with gymnax's automatic reset.
_PLAIN = ("gymnax.environments.environment", "memrl_jax.environments.interface")


class Pieces(NamedTuple):
    """Functions of an environment with its parameters, in its own actions and observations."""

    reset: Callable[..., Any]  # key -> (observation, state)
    step: Callable[..., Any]  # key, state, action -> (observation, state, reward, two flags)
    restart: Callable[..., Any]  # key, state -> (observation, state) of the next episode
    legal: Callable[[Any], Any] | None  # state -> masks


def from_gymnax(name: Any, /, **params: Any) -> Environment:
    """Adapt a gymnax id, or any object with gymnax 1.x's methods and `default_params`.

    `params` replace fields of the environment's parameters (a dataclass, NamedTuple or dictionary)
    or, for an id whose parameters lack such a field, arguments of its constructor; they must have
    the type of what they replace, and may be traced. `horizon` is `max_steps_in_episode`, or 10 000
    without such a parameter. Discrete spaces that start at another number are shifted to 0; several
    discrete actions or observations, a `MultiDiscrete` too, become a tuple of `Discrete`. A method
    `legal(state, params)` returns masks of the allowed actions: bool [n] for every discrete one,
    arranged like the actions here. Rewards and flags may be any numbers of one element. Raises
    ValueError, in one line, for an unknown id or option, for values unlike their defaults, for an
    error inside the environment, and if its `reset`, `step` and spaces disagree.
    """
    env, env_params = (_make if isinstance(name, str) else _own)(name, params)
    what = f"environment: {name if isinstance(name, str) else type(name).__name__}"
    if params:
        what += f" with {_listed(params)}"
    return _adapted(what, env, env_params)


def _adapted(what: str, env: Any, params: Any) -> Environment:
    """Adapt an environment with its parameters; error messages begin with `what`."""
    plain = getattr(getattr(type(env), "step", None), "__module__", "") in _PLAIN
    pieces = (_pieces if plain else _public)(what, env, params)
    actions, theirs = foreign.actions(what, env, params)
    shapes = _shapes(what, pieces.reset, pieces.step, theirs(spaces.zeros(actions)))
    observations, ours = foreign.observations(what, env, params, shapes[0])
    check_declared(f"{what}: observation", observations, jax.eval_shape(ours, shapes[0]))

    def cast(observation: Any, state: Any) -> tuple[Any, Any]:
        observation, state = tree.cast((observation, state), shapes)
        return state, ours(observation)

    def first(key: Key) -> tuple[Any, Any]:
        return cast(*pieces.reset(key))

    def step(key: Key, state: Any, action: Any) -> Arrival:
        observation, state, *numbers = pieces.step(key, state, theirs(action))
        return Arrival(*cast(observation, state), *numbers)

    def restart(key: Key, state: Any) -> tuple[Any, Any]:
        return cast(*pieces.restart(key, state))

    horizon = _horizon(what, params)
    return episodic(
        first, step, observations, actions, horizon, legal=pieces.legal, restart=restart
    )


def _shapes(what: str, reset: Any, step: Any, action: Any) -> tuple[Any, Any]:
    """Return the shapes and dtypes of a step's observation and state, checked against `reset`.

    Both are cast to the dtypes of a step, so that a loop can carry the state.
    """

    def both(key: Key) -> tuple[Any, Any]:
        reset_key, step_key = draws.split(key)
        first = reset(reset_key)
        return first, step(step_key, first[1], action)[:2]

    with blamed(what):
        first, after = jax.eval_shape(both, jax.random.key(0))
    check_agree(what, "observation", first[0], after[0], widened=True)
    check_agree(what, "state", first[1], after[1], widened=True)
    return after


def _horizon(what: str, params: Any) -> int:
    """Return the number of steps that an episode may have at most."""
    name = "max_steps_in_episode"
    limit = fields(params).get(name, getattr(params, name, 10_000))
    if isinstance(limit, jax.core.Tracer):
        raise ValueError(f"{what}: {name} is traced; it has to be one known number")
    limit = np.asarray(limit).item() if np.ndim(limit) == 0 else limit
    whole = int(limit) if isinstance(limit, float) and limit.is_integer() else limit
    return checks.positive(f"{what}: {name}", whole)


def _make(name: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """Make a gymnax environment by id; `options` go to its parameters or its constructor."""
    gymnax = _gymnax()
    checks.known("environment", name, gymnax.registered_envs)
    env, params = gymnax.make(name)
    ours = {key: value for key, value in options.items() if key in fields(params)}
    taken = inspect.signature(type(env)).parameters
    arguments = {}
    for key in options.keys() - ours.keys():
        checks.known(f"{name} option", key, sorted({*fields(params), *taken}))
        arguments[key] = like(key, options[key], taken[key].default, size=True)
    if arguments:
        with blamed(f"environment_args: {name} with {_listed(arguments)}"):
            env, params = gymnax.make(name, **arguments)
    return env, replaced(params, ours, size=True)


def _gymnax() -> Any:
    """Import gymnax, but seaborn, which takes a second and only its Pong names, once it is used.

    `importlib.util.LazyLoader` does not help: a second import of a lazy module loads it.
    """
    if "gymnax" not in sys.modules:
        sys.modules.setdefault("seaborn", _Later("seaborn"))
    import gymnax

    return gymnax


class _Later(ModuleType):
    """A module that is imported once something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        module = importlib.import_module(self.__name__)
        self.__dict__.update(vars(module))
        return getattr(module, name)


def _listed(options: dict[str, Any]) -> str:
    return " ".join(", ".join(f"{key}={value}" for key, value in options.items()).split())


def _own(env: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    """Take an environment object as it is; `options` go to its parameters."""
    for attribute in ("reset", "step", "default_params", "observation_space", "action_space"):
        if not hasattr(env, attribute):
            raise ValueError(f"environment: {type(env).__name__} has no `{attribute}`")
    params = env.default_params
    for key in options:
        checks.known(f"{type(env).__name__} option", key, fields(params))
    # In other packages, integer parameters need not be sizes and may be below 1.
    size = type(env).__module__.split(".")[0] in ("gymnax", "memrl_jax")
    return env, replaced(params, options, size)


def _legal(what: str, env: Any, params: Any) -> Callable[[Any], Any] | None:
    """Return the function from a state to masks of the allowed actions, or None if there is none.

    As with spaces, the class must define it: a wrapper's instance passes on that of the
    environment inside.
    """
    if not hasattr(env, "legal"):
        return None
    if not hasattr(type(env), "legal"):
        raise ValueError(f"{what}: legal is of what it wraps; its class has no method of that name")

    def legal(state: Any) -> Any:
        with blamed(f"{what}: legal"):
            return env.legal(state, params)

    return legal


def _pieces(what: str, env: Any, params: Any) -> Pieces:
    """Return the pieces of an environment with gymnax's own `step`.

    That computes a reset at every step, so it is replaced by its parts, `step_env` and `reset`.
    """

    def reset(key: Key) -> Any:
        with blamed(f"{what}: reset"):
            return env.reset(key, params)

    def step(key: Key, state: Any, action: Array) -> tuple[Any, ...]:
        with blamed(f"{what}: step_env"):
            observation, state, reward, terminated, _ = env.step_env(key, state, action, params)
            truncated = env.is_truncated(state, params)
        return observation, state, *_numbers(what, reward, terminated, truncated)

    def restart(key: Key, state: Any) -> Any:
        return reset(key)

    return Pieces(reset, step, restart, _legal(what, env, params))


def _public(what: str, env: Any, params: Any) -> Pieces:
    """Return the pieces of an environment with a `step` of its own.

    That `step` begins the next episode itself, and may carry something over from the last one. The
    state here keeps the next episode's first observation until that episode begins.
    """

    def reset(key: Key) -> tuple[Any, Any]:
        with blamed(f"{what}: reset"):
            observation, state = env.reset(key, params)
        return observation, (state, observation)

    def step(key: Key, state: Any, action: Array) -> tuple[Any, ...]:
        with blamed(f"{what}: step"):
            out = env.step(key, state[0], action, params)
        if len(out) != 6 or "final_observation" not in out[5]:
            raise ValueError(
                f"environment: step of {type(env).__name__} gave {len(out)} values; gymnax 1 gives "
                "6 (observation, state, reward, terminated, truncated, info) with the true last "
                "observation in info['final_observation']"
            )
        following, inner, *numbers, info = out
        return info["final_observation"], (inner, following), *_numbers(what, *numbers)

    def restart(key: Key, state: Any) -> tuple[Any, Any]:
        return state[1], state

    legal = _legal(what, env, params)
    return Pieces(reset, step, restart, legal and (lambda state: legal(state[0])))


def _numbers(what: str, reward: Any, terminated: Any, truncated: Any) -> tuple[Array, Array, Array]:
    """Return the reward, float32 [], and both flags, bool []; any number but 0 is true."""
    return (
        _number(f"{what}: reward", reward).astype(jnp.float32),
        _number(f"{what}: terminated", terminated).astype(bool),
        _number(f"{what}: truncated", truncated).astype(bool),
    )


def _number(field: str, x: Any) -> Array:
    with blamed(field):
        x = jnp.asarray(x)
    if x.size != 1 or x.dtype.kind not in "biuf":
        raise ValueError(f"{field} is {dtype_and_shape(x)}, not one number")
    return x.reshape(())
