"""Environments of other JAX suites, each imported only when one of its environments is made.

Named as "brax:ant", "craftax:Craftax-Symbolic-v1", "jumanji:Snake-v1" or
"xminigrid:MiniGrid-MemoryS8".
"""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import checks, spaces, tree
from memrl_jax.environments.base import Arrival, episodic
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Array, Environment, Key


def brax(name: str, steps: int = 1000, **options: Any) -> Environment:
    """Make one of Brax's (Freeman et al., 2021); `options` go to its class, e.g. `backend`.

    An episode is truncated after `steps` steps, as in Brax's training.
    """
    checks.positive("steps", steps)
    suite = _imported("brax.envs", "brax")
    env = suite.get_environment(checks.known("brax", name, suite._envs), **options)
    like = jax.eval_shape(env.reset, jax.random.key(0))

    def first(key: Key) -> tuple[Any, Any]:
        state = env.reset(key)
        return (state, jnp.int32(0)), state.obs

    def step(key: Key, state: Any, action: Array) -> Arrival:
        inner, time = env.step(state[0], action), state[1] + 1
        return Arrival((inner, time), inner.obs, inner.reward, inner.done > 0, time >= steps)

    actions = Continuous((env.action_size,), jnp.dtype(jnp.float32), -1.0, 1.0)
    return _steady(first, step, jax.tree.map(_unbounded, like.obs), actions, steps)


def craftax(name: str) -> Environment:
    """Make one of Craftax's (Matthews et al., 2024)."""
    suite = _imported("craftax.craftax_env", "craftax")
    try:
        env = suite.make_craftax_env_from_name(name, auto_reset=False)
    except ValueError as error:
        raise ValueError(f"craftax: {name!r} is unknown ({error})") from None
    params = env.default_params
    given = env.observation_space(params)
    limit = int(params.max_timesteps)

    def first(key: Key) -> tuple[Any, Array]:
        observation, state = env.reset(key, params)
        return state, observation

    def step(key: Key, state: Any, action: Array) -> Arrival:
        observation, state, reward, over, _ = env.step(key, state, action, params)
        late = state.timestep >= limit
        return Arrival(state, observation, reward, over & ~late, late)

    seen = Continuous(tuple(given.shape), jnp.dtype(given.dtype), given.low, given.high)
    return _steady(first, step, seen, Discrete(int(env.action_space(params).n)), limit)


def xminigrid(name: str, **options: Any) -> Environment:
    """Make one of XLand-MiniGrid's (Nikulin et al., 2024); `options` go to its parameters.

    Observations are what every cell in view holds: a tile and a colour.
    """
    suite = _imported("xminigrid", "xminigrid")
    checks.known("xminigrid", name, suite.registered_environments())
    env, params = suite.make(name)
    params = params.replace(**options)
    height, width, _ = env.observation_shape(params)
    constants = importlib.import_module("xminigrid.core.constants")
    kinds = max(constants.NUM_TILES, constants.NUM_COLORS)

    def first(key: Key) -> tuple[Any, Array]:
        timestep = env.reset(params, key)
        return timestep, timestep.observation.astype(jnp.int32)

    def step(key: Key, state: Any, action: Array) -> Arrival:
        after = env.step(params, state, action)
        over, ends = after.last(), after.discount == 0
        seen = after.observation.astype(jnp.int32)
        return Arrival(after, seen, after.reward, over & ends, over & ~ends)

    seen = Discrete(int(kinds), (height, width, 2))
    return _steady(first, step, seen, Discrete(env.num_actions(params)), int(params.max_steps))


def jumanji(name: str, horizon: int = 10_000, **options: Any) -> Environment:
    """Make one of Jumanji's (Bonnet et al., 2024); `options` go to its class.

    Its observations become dictionaries; a mask for one discrete action becomes `legal`. `horizon`
    is a number of steps that no episode exceeds.
    """
    suite = _imported("jumanji", "jumanji")
    checks.known("jumanji", name, suite.registered_environments())
    env = suite.make(name, **options)
    actions, theirs = _jumanji_actions(env.action_spec)
    like = jax.eval_shape(lambda key: env.reset(key)[1].observation, jax.random.key(0))
    masked = isinstance(actions, Discrete) and hasattr(like, "action_mask")

    def seen(observation: Any) -> dict[str, Array]:
        named, _ = jax.tree_util.tree_flatten_with_path(observation)
        return {_name(path): _number(x) for path, x in named}

    def first(key: Key) -> tuple[Any, Any]:
        state, timestep = env.reset(key)
        mask = timestep.observation.action_mask if masked else ()
        return (state, mask), seen(timestep.observation)

    def step(key: Key, state: Any, action: Any) -> Arrival:
        inner, timestep = env.step(state[0], theirs(action))
        over, ends = timestep.last(), timestep.discount == 0
        mask = timestep.observation.action_mask if masked else ()
        # Where an episode ends nothing is legal any more; what is chosen there is ignored.
        mask = mask | over if masked else ()
        told = seen(timestep.observation)
        return Arrival((inner, mask), told, timestep.reward, over & ends, over & ~ends)

    observations = _jumanji_observations(env.observation_spec, like)
    legal = (lambda state: state[1]) if masked else None
    return _steady(first, step, observations, actions, horizon, legal)


SUITES: dict[str, Callable[..., Environment]] = {
    "brax": brax,
    "craftax": craftax,
    "jumanji": jumanji,
    "xminigrid": xminigrid,
}


def _imported(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"environment: {package} cannot be imported ({error})") from error


def _steady(
    first: Callable[..., Any],
    step: Callable[..., Arrival],
    observations: Any,
    actions: Any,
    horizon: int,
    legal: Callable[[Any], Any] | None = None,
) -> Environment:
    """Make an environment whose states and observations have the dtypes that a step gives."""
    key, action = jax.eval_shape(lambda: jax.random.key(0)), spaces.zeros(actions)
    after = jax.eval_shape(lambda key: step(key, first(key)[0], action), key)
    like = after.state, after.observation

    def begin(key: Key) -> tuple[Any, Any]:
        return tree.cast(first(key), like)

    def go_on(key: Key, state: Any, action: Any) -> Arrival:
        arrival = step(key, state, action)
        state, observation = tree.cast((arrival.state, arrival.observation), like)
        return arrival._replace(state=state, observation=observation)

    return episodic(begin, go_on, observations, actions, horizon, legal=legal)


def _unbounded(x: Any) -> Continuous:
    return Continuous(tuple(x.shape), jnp.dtype(x.dtype), -jnp.inf, jnp.inf)


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(str(getattr(x, "name", getattr(x, "key", x))) for x in path) or "observation"


def _number(x: Array) -> Array:
    """Return booleans as int32."""
    return x.astype(jnp.int32) if x.dtype == bool else x


def _jumanji_actions(spec: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return a space in our types, and the function from our actions to theirs."""
    if hasattr(spec, "num_values") and not np.ndim(spec.num_values):
        return Discrete(int(spec.num_values)), lambda action: action.astype(spec.dtype)
    if hasattr(spec, "num_values"):
        counts = np.asarray(spec.num_values)
        shape, dtype = counts.shape, spec.dtype
        parts = tuple(Discrete(int(n)) for n in counts.ravel())
        return parts, lambda action: jnp.stack(action).reshape(shape).astype(dtype)
    bounds = np.float32(spec.minimum), np.float32(spec.maximum)
    return Continuous(tuple(spec.shape), jnp.dtype(jnp.float32), *bounds), lambda action: action


def _jumanji_observations(spec: Any, like: Any) -> dict[str, Any]:
    """Return a space for every leaf of an observation."""
    named, _ = jax.tree_util.tree_flatten_with_path(like)
    found = {}
    for path, x in named:
        part = spec
        for step in path:
            part = getattr(part, str(getattr(step, "name", getattr(step, "key", step))))
        found[_name(path)] = _space(part, x)
    return found


def _space(spec: Any, x: Any) -> Any:
    """Return the space of one leaf: booleans as two categories, all else within its bounds."""
    if x.dtype == bool:
        return Discrete(2, tuple(x.shape))
    whole = jnp.issubdtype(x.dtype, jnp.integer)
    least, most = (jnp.iinfo(x.dtype).min, jnp.iinfo(x.dtype).max) if whole else (-np.inf, np.inf)
    low, high = getattr(spec, "minimum", least), getattr(spec, "maximum", most)
    return Continuous(tuple(x.shape), jnp.dtype(x.dtype), low, high)
