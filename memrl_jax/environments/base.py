"""Batches and views of environments, and what their episodes returned."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import checks, frames, tree
from memrl_jax.environments.check import SPACES, declared
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Array, Environment, Key, TimeStep


def batch(env: Environment) -> Environment:
    """Step B environments at once: `reset` and `step` take B keys, states and actions."""
    return env._replace(reset=jax.vmap(env.reset), step=jax.vmap(env.step))


def view(env: Environment, observe: Callable[[Any], Any], observations: Any = None) -> Environment:
    """See an environment through a function of its observation, e.g. one that hides a part.

    What `observe` passes on untouched keeps its space; anything else is unbounded, unless
    `observations` declares it: spaces arranged like what `observe` gives. Raises ValueError where
    they do not fit it.
    """

    def seen(pair: tuple[Any, TimeStep]) -> tuple[Any, TimeStep]:
        state, timestep = pair
        return state, timestep._replace(observation=observe(timestep.observation))

    def reset(key: Key) -> tuple[Any, TimeStep]:
        return seen(env.reset(key))

    def step(key: Key, state: Any, action: Array) -> tuple[Any, TimeStep]:
        return seen(env.step(key, state, action))

    before = jax.eval_shape(env.reset, jax.random.key(0))[1].observation
    jaxpr, after = jax.make_jaxpr(observe, return_shape=True)(before)
    if observations is None:
        spaces = jax.tree.leaves(env.observations, is_leaf=lambda x: isinstance(x, SPACES))
        kept = [None if i is None else spaces[i] for i in _passed_on(jaxpr.jaxpr)]
        unbounded = [Continuous(x.shape, x.dtype, -np.inf, np.inf) for x in jax.tree.leaves(after)]
        pairs = zip(kept, unbounded, strict=True)
        observations = jax.tree.unflatten(jax.tree.structure(after), [x or y for x, y in pairs])
    declared("observations", observations, after)
    return env._replace(reset=reset, step=step, observations=observations)


def _passed_on(jaxpr: Any) -> list[int | None]:
    """Tell for every output of a program which input it is, if any."""
    inputs = {id(var): i for i, var in enumerate(jaxpr.invars)}
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "jit":
            for var, i in zip(eqn.outvars, _passed_on(eqn.params["jaxpr"].jaxpr), strict=True):
                if i is not None and id(eqn.invars[i]) in inputs:
                    inputs[id(var)] = inputs[id(eqn.invars[i])]
    return [inputs.get(id(var)) for var in jaxpr.outvars]


def frame_stack(env: Environment, count: int) -> Environment:
    """See the last `count` observations side by side along the last axis, the newest last.

    At an episode's start all are the first one. Raises ValueError for observations without axes.
    """
    observations = jax.tree.map(
        partial(_stacked, count), env.observations, is_leaf=lambda x: isinstance(x, SPACES)
    )

    def seen(timestep: TimeStep, before: Any) -> Any:
        first = frames.repeat(timestep.observation, count)
        stack = tree.where(timestep.start, first, frames.push(before, timestep.observation))
        return stack, timestep._replace(observation=stack)

    def reset(key: Key) -> tuple[Any, TimeStep]:
        state, timestep = env.reset(key)
        stack, timestep = seen(timestep, frames.repeat(timestep.observation, count))
        return (state, stack), timestep

    def step(key: Key, state: Any, action: Array) -> tuple[Any, TimeStep]:
        inner, before = state
        inner, timestep = env.step(key, inner, action)
        stack, timestep = seen(timestep, before)
        return (inner, stack), timestep

    return env._replace(reset=reset, step=step, observations=observations)


def _stacked(count: int, space: Discrete | Continuous) -> Continuous:
    checks.positive("frames", count)
    if isinstance(space, Discrete) or not space.shape:
        raise ValueError(f"frames: {count} observations without axes ({space}) cannot be stacked")

    def bound(x: Any) -> Any:
        if np.ndim(x) == 0:
            return x
        array: Any = jnp if isinstance(x, jax.core.Tracer) else np
        return array.concatenate([array.broadcast_to(x, space.shape)] * count, axis=-1)

    shape = (*space.shape[:-1], space.shape[-1] * count)
    return Continuous(shape, space.dtype, bound(space.low), bound(space.high))


class Running(NamedTuple):
    """Return and length so far of every environment's current episode."""

    total: Array  # [B] float32
    length: Array  # [B] int32

    @classmethod
    def zeros(cls, batch: int) -> "Running":
        """Return the statistics before any step."""
        return cls(jnp.zeros(batch, jnp.float32), jnp.zeros(batch, jnp.int32))


def episodes(running: Running, timestep: TimeStep) -> tuple[Running, dict[str, Array]]:
    """Follow returns and lengths through timesteps [T, B].

    Returns sums over the episodes that ended there, and counts: `episodes`, `return_sum`,
    `length_sum`, `steps`, the environment steps that were taken, and `reward_sum` over these.
    """

    def step(running: Running, t: TimeStep) -> tuple[Running, Any]:
        total = jnp.where(t.start, 0.0, running.total + t.reward)
        length = jnp.where(t.start, 0, tree.count(running.length))
        return Running(total, length), (total, length)

    # Unrolled, because a loop of its own costs more than what it does.
    running, (total, length) = jax.lax.scan(step, running, timestep, unroll=8)
    last = timestep.last
    return running, {
        "episodes": jnp.sum(last, dtype=jnp.int32),
        "return_sum": jnp.sum(total, where=last, dtype=jnp.float32),
        "length_sum": jnp.sum(length, where=last, dtype=jnp.float32),
        "steps": jnp.sum(~timestep.start, dtype=jnp.int32),
        "reward_sum": jnp.sum(timestep.reward, dtype=jnp.float32),
    }
