"""Checks that environments do what their specs declare.

Every fault is a ValueError of one line: the environment's name, the field, and both values.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import checks, draws
from memrl_jax.environments.declared import (
    blamed,
    check_actions,
    check_agree,
    check_declared,
    dtype_and_shape,
    named,
)
from memrl_jax.spaces import Continuous, Discrete, is_part, over, parts
from memrl_jax.types import Array, Environment, Key, Spec, TimeStep

QUICKLY = {"xla_backend_optimization_level": 0}  # for what runs once: compiling takes longest


def check(env: Environment, key: Key, steps: int = 100, name: str = "") -> None:
    """Check one environment against its spec: trace it, then take random legal actions.

    Raises ValueError as `traced` does and, with the step, for an integer outside its declared
    bounds, for an observation or reward that is not finite, for a discount other than 0 and 1,
    for a `start` that does not follow a `last` or is missing after one, and for a timestep at which
    no action is legal. Floats may leave their bounds. The steps are compiled as one program; error
    messages mention `name`.
    """
    name = f"environment: {name}" if name else "environment"
    traced(env, name)
    checks.positive("steps", steps)
    played = jax.jit(lambda key: play(env, key, steps), compiler_options=QUICKLY)
    observed(env, jax.device_get(played(key)), name)


def observed(env: Environment, timestep: TimeStep, name: str = "environment") -> None:
    """Check the timesteps of one environment, NumPy arrays [T, ...], against its spec.

    Raises ValueError as `check` does, with the index into T as the step.
    """
    spaces = named(env.spec.observations)
    for path, x in named(timestep.observation).items():
        _inside(f"{name}: observation{path}", spaces[path], x)
    reward, discount, start = map(np.asarray, (timestep.reward, timestep.discount, timestep.start))
    _report(f"{name}: reward", reward, ~np.isfinite(reward), "is not finite")
    _report(f"{name}: discount", discount, (discount != 0) & (discount != 1), "is neither 0 nor 1")
    begins = np.append(True, timestep.last[:-1])
    _report(f"{name}: start", start, start != begins, "is not what `last` was before it")
    for path, mask in named(timestep.legal).items():
        _report(f"{name}: legal{path}", mask, ~np.any(mask, axis=-1), "allows nothing")


def play(env: Environment, key: Key, steps: int) -> TimeStep:
    """Take random legal actions in one environment; return timesteps [steps + 1, ...]."""
    return recorded(env, key, steps)[0]


def recorded(env: Environment, key: Key, steps: int) -> tuple[TimeStep, Any]:
    """Take random legal actions: timesteps [steps + 1, ...] and the actions [steps, ...]."""

    def step(carry: tuple[Any, Any], key: Key) -> tuple[Any, tuple[TimeStep, Any]]:
        state, legal = carry
        action_key, env_key = draws.split(key)
        action = draw(env.spec.actions, action_key, legal)
        state, timestep = env.step(env_key, state, action)
        return (state, timestep.legal), (timestep, action)

    reset_key, key = draws.split(key)
    state, first = env.reset(reset_key)
    _, (rest, actions) = jax.lax.scan(step, (state, first.legal), draws.split(key, steps))
    return jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, rest), actions


def draw(space: Any, key: Key, legal: Any = ()) -> Any:
    """Draw an element of a space uniformly, with finite bounds in place of infinite ones.

    An infinite `low` becomes high - 1, or -1 if `high` is infinite too; an infinite `high` becomes
    max(low + 1, 1). `legal`, bool [n] for every `Discrete` part, arranged like the space, says
    what may be drawn.
    """
    count = len(parts(space))
    keys = [key] if count == 1 else [*draws.split(key, count)]
    keys = jax.tree.unflatten(jax.tree.structure(space, is_leaf=is_part), keys)
    masks = legal if jax.tree.leaves(legal) else over(lambda part: (), space)
    return over(_draw, space, keys, masks)


def _draw(space: Discrete | Continuous, key: Key, legal: Any) -> Array:
    if isinstance(space, Discrete):
        if isinstance(legal, tuple):
            return draws.randint(key, space.shape, 0, space.n)
        return draws.categorical(key, jnp.where(legal, 0.0, -jnp.inf)).astype(jnp.int32)
    bounds = (jnp.asarray(bound, jnp.float32) for bound in (space.low, space.high))
    low, high = (jnp.broadcast_to(bound, space.shape) for bound in bounds)
    low = jnp.where(jnp.isfinite(low), low, jnp.where(jnp.isfinite(high), high - 1, -1))
    high = jnp.where(jnp.isfinite(high), high, jnp.maximum(low + 1, 1))
    u = draws.uniform(key, space.shape)
    if jnp.issubdtype(space.dtype, jnp.floating):
        return (low + u * (high - low)).astype(space.dtype)
    return jnp.floor(low + u * (high - low + 1)).astype(space.dtype)


def traced(env: Environment, name: str = "environment") -> None:
    """Check the shapes that `reset` and `step` return against each other and the declared spaces.

    Nothing is compiled or run. Raises ValueError if they disagree in structure, shape or dtype, if
    a field of a `TimeStep` is not as `types` declares it, and for an error inside either function.
    """
    if not isinstance(env, Environment):
        raise ValueError(f"{name}: {type(env).__name__} is no Environment of memrl_jax")
    if not isinstance(env.spec, Spec):
        raise ValueError(f"{name}: spec: {type(env.spec).__name__} is no Spec of memrl_jax")
    check_actions(f"{name}: actions", env.spec.actions)
    checks.positive(f"{name}: horizon", env.horizon)
    key = jax.eval_shape(lambda: jax.random.key(0))
    action = jax.eval_shape(lambda key: draw(env.spec.actions, key), key)
    first = _traced(f"{name}: reset", env.reset, key)
    after = _traced(f"{name}: step", env.step, key, first[0], action)
    check_agree(name, "state", first[0], after[0])
    check_agree(name, "", first[1], after[1])
    check_declared(f"{name}: observation", env.spec.observations, after[1].observation)
    flag, number = jax.ShapeDtypeStruct((), bool), jax.ShapeDtypeStruct((), jnp.float32)
    fields = dict(action=action, reward=number, discount=number, start=flag, last=flag)
    fields["legal"] = over(_mask, env.spec.actions) if env.spec.legal else ()
    for field, like in fields.items():
        alike(f"{name}: {field}", getattr(after[1], field), like)


def _mask(space: Discrete | Continuous) -> Any:
    """Return the shape of the mask of legal elements of a space; () if it is not discrete."""
    return jax.ShapeDtypeStruct((space.n,), bool) if isinstance(space, Discrete) else ()


def alike(field: str, x: Any, like: Any) -> None:
    """Raise ValueError unless two pytrees agree in structure, shapes and dtypes."""
    given, wanted = named(x), named(like)
    for path in given | wanted:
        pair = (given.get(path), wanted.get(path))
        told, due = ("nothing" if leaf is None else dtype_and_shape(leaf) for leaf in pair)
        if told != due:
            raise ValueError(f"{field}{path} is {told}, not {due}")
    arranged, due = (str(jax.tree.structure(tree)) for tree in (x, like))
    if arranged != due:
        raise ValueError(f"{field} is arranged as {arranged}, not as {due}")


def _traced(what: str, function: Any, *args: Any) -> tuple[Any, TimeStep]:
    with blamed(what):
        out = jax.eval_shape(function, *args)
    if not (isinstance(out, tuple) and len(out) == 2 and isinstance(out[1], TimeStep)):
        raise ValueError(f"{what} gives {type(out).__name__}, not a state and a TimeStep")
    return out


def _inside(field: str, given: Discrete | Continuous, x: np.ndarray) -> None:
    """Raise ValueError for the first of x [T, ...] that is outside the space."""
    if isinstance(given, Discrete):
        _report(field, x, (x < 0) | (x >= given.n), f"is none of 0 .. {given.n - 1}")
    elif jnp.issubdtype(x.dtype, jnp.floating):
        _report(field, x, ~np.isfinite(x), "is not finite")
    else:
        _report(field, x, x < given.low, f"is below its declared bound {given.low}")
        _report(field, x, x > given.high, f"is above its declared bound {given.high}")


def _report(field: str, x: np.ndarray, bad: np.ndarray, what: str) -> None:
    """Raise ValueError for the first of x [T, ...] that is `bad`, with its step."""
    if np.any(bad):
        first = tuple(np.argwhere(bad)[0])
        raise ValueError(f"{field}: {x[first]} at step {first[0]} {what}")
