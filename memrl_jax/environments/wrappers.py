"""Wrappers that change the observations or the actions of an environment."""

from collections.abc import Callable
from functools import partial, reduce
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import checks, frames, tree
from memrl_jax.environments.declared import check_declared
from memrl_jax.spaces import Continuous, Discrete, discrete, flat_index, is_part, over, parts
from memrl_jax.types import Array, Environment, Key, TimeStep

MOST = 2**16  # combinations of actions that `numbered` accepts


def view(env: Environment, observe: Callable[[Any], Any], observations: Any = None) -> Environment:
    """Apply a function to every observation, e.g. one that hides a part.

    What `observe` passes on unchanged keeps its space; anything else is unbounded, unless
    `observations` declares spaces, arranged like the result of `observe`. Raises ValueError if they
    do not match that.
    """
    before = jax.eval_shape(env.reset, jax.random.key(0))[1].observation
    jaxpr, after = jax.make_jaxpr(observe, return_shape=True)(before)
    if observations is None:
        given = parts(env.spec.observations)
        kept = [None if i is None else given[i] for i in _passed_on(jaxpr.jaxpr)]
        unbounded = [Continuous(x.shape, x.dtype, -np.inf, np.inf) for x in jax.tree.leaves(after)]
        pairs = zip(kept, unbounded, strict=True)
        observations = jax.tree.unflatten(jax.tree.structure(after), [x or y for x, y in pairs])
    check_declared("observations", observations, after)

    def seen(timestep: TimeStep) -> TimeStep:
        return timestep._replace(observation=observe(timestep.observation))

    return _shown(env, seen)._replace(spec=env.spec._replace(observations=observations))


def _shown(env: Environment, seen: Callable[[TimeStep], TimeStep]) -> Environment:
    """Apply `seen` to every timestep."""

    def reset(key: Key) -> tuple[Any, TimeStep]:
        state, timestep = env.reset(key)
        return state, seen(timestep)

    def step(key: Key, state: Any, action: Any) -> tuple[Any, TimeStep]:
        state, timestep = env.step(key, state, action)
        return state, seen(timestep)

    return env._replace(reset=reset, step=step)


def _passed_on(jaxpr: Any) -> list[int | None]:
    """Return, for every output of a program, the index of the input that it is, or None."""
    inputs = {id(var): i for i, var in enumerate(jaxpr.invars)}
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "jit":
            for var, i in zip(eqn.outvars, _passed_on(eqn.params["jaxpr"].jaxpr), strict=True):
                if i is not None and id(eqn.invars[i]) in inputs:
                    inputs[id(var)] = inputs[id(eqn.invars[i])]
    return [inputs.get(id(var)) for var in jaxpr.outvars]


def frame_stack(env: Environment, count: int) -> Environment:
    """Stack the last `count` observations [..., D] along the last axis, the newest last.

    Observations become [..., count * D], those without axes [count]. At an episode's start, the
    first one is repeated. Raises ValueError for a count below 1.
    """
    observations = over(partial(_stacked, count), env.spec.observations)

    def reset(key: Key) -> tuple[Any, TimeStep]:
        state, timestep = env.reset(key)
        stack = frames.repeat(_with_axes(timestep.observation), count)
        return (state, stack), timestep._replace(observation=stack)

    def step(key: Key, state: Any, action: Any) -> tuple[Any, TimeStep]:
        inner, before = state
        inner, timestep = env.step(key, inner, action)
        frame = _with_axes(timestep.observation)
        stack = tree.where(timestep.start, frames.repeat(frame, count), frames.push(before, frame))
        return (inner, stack), timestep._replace(observation=stack)

    return env._replace(reset=reset, step=step, spec=env.spec._replace(observations=observations))


def _with_axes(observation: Any) -> Any:
    return jax.tree.map(jnp.atleast_1d, observation)


def _stacked(count: int, space: Discrete | Continuous) -> Discrete | Continuous:
    checks.positive("frames", count)
    *before, width = space.shape or (1,)
    shape = (*before, width * count)
    if isinstance(space, Discrete):
        return Discrete(space.n, shape)

    def bound(x: Any) -> Any:
        if np.ndim(x) == 0:
            return x
        array: Any = jnp if isinstance(x, jax.core.Tracer) else np
        return array.concatenate([array.broadcast_to(x, space.shape)] * count, axis=-1)

    return Continuous(shape, space.dtype, bound(space.low), bound(space.high))


def numbered(env: Environment) -> Environment:
    """Replace several discrete actions by one: the number of their combination, in row-major order.

    The last part of the actions varies fastest. Timesteps show the number, and `legal` [..., A]
    allows the combinations of which every part is allowed. Raises ValueError for actions that are
    not all discrete, and for more than `MOST` combinations.
    """
    space = env.spec.actions
    counts = _counts("actions", space)

    def seen(timestep: TimeStep) -> TimeStep:
        masks = jax.tree.leaves(timestep.legal)
        legal = reduce(_both, masks) if masks else ()
        return timestep._replace(action=flat_index(space, timestep.action), legal=legal)

    def step(key: Key, state: Any, action: Array) -> tuple[Any, TimeStep]:
        return env.step(key, state, _combination(action, space, counts))

    spec = env.spec._replace(actions=Discrete(prod(counts)))
    return _shown(env._replace(step=step), seen)._replace(spec=spec)


def _counts(field: str, space: Any) -> list[int]:
    """Return how many values every part of a discrete space has."""
    if not discrete(space):
        one = next(part for part in parts(space) if not isinstance(part, Discrete))
        raise ValueError(f"{field}: {one} cannot be numbered: it is not Discrete")
    counts = [part.n for part in parts(space)]
    if prod(counts) > MOST:
        product = " x ".join(map(str, counts))
        raise ValueError(f"{field}: {product} = {prod(counts)} are more than {MOST} combinations")
    return counts


def _combination(number: Array, space: Any, counts: list[int]) -> Any:
    """Return the combination with a number, arranged like `space`."""
    digits = []
    for n in reversed(counts):
        number, digit = jnp.divmod(number, n)
        digits.append(digit)
    structure = jax.tree.structure(space, is_leaf=is_part)
    return jax.tree.unflatten(structure, reversed(digits))


def _both(one: Array, other: Array) -> Array:
    """Combine masks [..., n] and [..., m] into one of all pairs, in row-major order: [..., n m]."""
    pairs = one[..., :, None] & other[..., None, :]
    return pairs.reshape(*one.shape[:-1], -1)
