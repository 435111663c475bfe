"""Whether an environment keeps to what agents rely on."""

from typing import Any

import jax
import numpy as np

from memrl_jax import checks, draws, environments
from memrl_jax.environments.check import QUICKLY, observed, recorded, traced
from memrl_jax.environments.declared import named
from memrl_jax.types import Environment, TimeStep

COPIES, FEW = 3, 8  # stepped at once; timesteps that are compared, before rounding adds up


def check_environment(environment: Any, steps: int = 200, seed: int = 0, **options: Any) -> None:
    """Check an environment by playing it at random: pass in silence, or say what to mend.

    `environment` is a name, an `Environment`, an object or class with gymnax's interface, or a
    function that returns one of these from `options`. Take as many `steps` as a few episodes have.
    Raises ValueError in one line, with the step, if

    - shapes, dtypes or structures differ between `reset`, `step` and the declared spaces;
    - an integer is out of bounds, or an observation or a reward is not finite;
    - no action is legal;
    - `start` does not follow `last`, or an episode begins with a reward, an action or a discount;
    - a discount is neither 0 nor 1, or is 0 although the episode goes on;
    - a timestep tells another action than the one that was taken;
    - an episode is longer than the horizon;
    - the same key gives different episodes, e.g. because numbers come from NumPy;
    - copies under `vmap` differ from one alone.
    """
    checks.positive("steps", steps)
    env, name = _made(environment, options)
    traced(env, name)
    keys = draws.split(jax.random.key(seed), COPIES)
    key = keys[0]
    timestep, actions = _play(env, key, steps)
    observed(env, timestep, name)
    _boundaries(timestep, name)
    _told(timestep, actions, name)
    _within_horizon(timestep, env.horizon, name)
    _again(env, keys, timestep, name)


def _made(environment: Any, options: dict[str, Any]) -> tuple[Environment, str]:
    """Return the environment, and what messages begin with."""
    if isinstance(environment, str):
        return environments.make(environment, options), f"environment: {environment}"
    env = environments.constructor_of(environment)(**options)
    given = getattr(environment, "__name__", type(environment).__name__)
    return env, "environment" if isinstance(environment, Environment) else f"environment: {given}"


def _play(env: Environment, key: Any, steps: int) -> Any:
    """Trace, compile and play anew: NumPy timesteps [steps + 1, ...] and actions [steps, ...]."""
    played = jax.jit(lambda key: recorded(env, key, steps), compiler_options=QUICKLY)
    return jax.device_get(played(key))


def _boundaries(timestep: TimeStep, name: str) -> None:
    """Check how episodes begin, and that they end nowhere but at their last timesteps."""
    start, last, discount, reward = (
        np.asarray(x) for x in (timestep.start, timestep.last, timestep.discount, timestep.reward)
    )
    first = [("reward", reward, 0), ("discount", discount, 1)]
    first += [(f"action{path}", x, 0) for path, x in named(timestep.action).items()]
    for field, x, due in first:
        odd = np.any(np.reshape(x != due, (len(start), -1)), axis=1) & start
        _first(odd, f"{name}: {field}: {{}}, where an episode begins, is not {due}", x)
    _first(~last & (discount == 0), f"{name}: discount: {{}}, though `last` is not set", discount)


def _told(timestep: TimeStep, actions: Any, name: str) -> None:
    """Check that timesteps tell the action that led to them."""
    taken = named(actions)
    for path, x in named(timestep.action).items():
        differs = np.reshape(x[1:] != taken[path], (len(x) - 1, -1)).any(axis=1)
        odd = np.append(False, differs & ~timestep.start[1:])
        _first(odd, f"{name}: action{path}: {{}} is not the action that was taken", x)


def _within_horizon(timestep: TimeStep, horizon: int, name: str) -> None:
    steps = np.zeros(len(timestep.start), int)
    for t in range(1, len(steps)):
        steps[t] = 0 if timestep.start[t] else steps[t - 1] + 1
    late = (steps >= horizon) & ~timestep.last
    _first(late, f"{name}: horizon: {horizon} steps, but the episode goes on after {{}}", steps)


def _again(env: Environment, keys: Any, timestep: TimeStep, name: str) -> None:
    """Check that the first of copies under `vmap`, traced anew, does the same but for rounding."""
    steps = len(timestep.start) - 1
    many = jax.jit(jax.vmap(lambda key: recorded(env, key, steps)[0]), compiler_options=QUICKLY)
    among = jax.tree.map(lambda x: x[0], jax.device_get(many(keys)))
    try:
        _equal(timestep, among, f"{name}: a copy under vmap differs from one alone")
    except ValueError:
        alone = _play(env, keys[0], steps)[0]
        _equal(timestep, alone, f"{name}: the same key gives other episodes")
        raise


def _equal(x: TimeStep, y: TimeStep, what: str) -> None:
    """Raise ValueError for the first of a few steps at which two records differ, with the field."""
    others = named(y)
    for path, values in named(x).items():
        near = np.isclose(values[:FEW], others[path][:FEW], rtol=1e-3, atol=1e-3, equal_nan=True)
        odd = np.any(np.reshape(~near, (len(near), -1)), axis=1)
        _first(odd, f"{what}: {path.lstrip('.')} is {{}} in one", values)


def _first(odd: np.ndarray, what: str, x: np.ndarray) -> None:
    """Raise ValueError for the first step that is odd, with the value there."""
    if odd.any():
        step = int(np.argmax(odd))
        raise ValueError(f"{what.format(checks.shown(x[step]))} at step {step}")
