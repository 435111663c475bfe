"""Running statistics by which observations and rewards are normalised, as pytrees of arrays.

All are updated from batches of any leading axes, of which `mask` tells what counts.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax import spaces
from memrl_jax.spaces import Continuous
from memrl_jax.types import Array, Spec, TimeStep

LIMIT = 10.0  # normalised numbers are clipped to this size, as in VecNormalize
EPSILON = 1e-8  # added to variances before the root is taken


class Moments(NamedTuple):
    """Mean and variance of what has been counted so far, element by element."""

    counted: Array  # [] float32: how many; past 2^24 one more at a time is lost in rounding
    mean: Array  # [...] float32; 0 before anything was counted
    variance: Array  # [...] float32; 1 before anything was counted


def moments(shape: tuple[int, ...]) -> Moments:
    """Return the statistics of nothing yet."""
    zeros = jnp.zeros(shape, jnp.float32)
    return Moments(jnp.zeros((), jnp.float32), zeros, zeros + 1)


def update(old: Moments, x: Array, mask: Array) -> Moments:
    """Count what of `x` [*mask.shape, ...] is where `mask` (bool) holds.

    Numbers are taken relative to the mean so far, and twice to their own: large means cost no more
    digits than they take up in the numbers themselves. Chan et al. (1983), equations 1.5 and 1.8.
    """
    axes = tuple(range(mask.ndim))
    valid = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    n = jnp.sum(mask, dtype=jnp.float32)

    def average(x: Array) -> Array:
        return jnp.sum(jnp.where(valid, x, 0.0), axis=axes) / jnp.maximum(n, 1)

    def relative(x: Array, to: Array) -> Array:
        return x - jnp.broadcast_to(to, x.shape)

    x = relative(x.astype(jnp.float32), old.mean)
    shift = average(x)
    x = relative(x, shift)
    rest = average(x)  # 0 but for rounding
    shift, variance = shift + rest, jnp.maximum(average(x**2) - rest**2, 0)

    weight = n / jnp.maximum(old.counted + n, 1)
    spread = (1 - weight) * weight * shift**2
    return Moments(
        old.counted + n,
        old.mean + weight * shift,
        (1 - weight) * old.variance + weight * variance + spread,
    )


def _scaled(x: Array, mean: Array, variance: Array) -> Array:
    mean, variance = (jnp.broadcast_to(y, x.shape) for y in (mean, variance))
    return jnp.clip((x - mean) / jnp.sqrt(variance + EPSILON), -LIMIT, LIMIT)


def floating(part: Any) -> bool:
    """Tell whether a part of a space of observations is normalised: arrays of floats are.

    Integers, images among them, are scaled by their declared bounds where they are encoded.
    """
    return isinstance(part, Continuous) and bool(jnp.issubdtype(part.dtype, jnp.floating))


def of_observations(space: Any) -> Any:
    """Return the statistics of nothing yet: `Moments` of every part that is floating, else ()."""
    return spaces.over(lambda part: moments(part.shape) if floating(part) else (), space)


def update_observations(space: Any, old: Any, observation: Any, mask: Array) -> Any:
    """Count the observations [*mask.shape, ...] where `mask` holds, part by part."""

    def updated(part: Any, old: Any, x: Array) -> Any:
        return update(old, x, mask) if floating(part) else ()

    return spaces.over(updated, space, old, observation)


def observations(space: Any, statistics: Any, observation: Any) -> Any:
    """Return observations [..., *shape] less their mean, in deviations; at most LIMIT in size."""

    def normalised(part: Any, of: Any, x: Array) -> Array:
        return _scaled(x, of.mean, of.variance).astype(x.dtype) if floating(part) else x

    return spaces.over(normalised, space, statistics, observation)


class Returns(NamedTuple):
    """Discounted sums of past rewards, whose deviation is the unit of rewards."""

    total: Array  # [B] float32: the sum so far of the episode under way
    moments: Moments  # [] of these sums


def of_rewards(batch: int) -> Returns:
    """Return the statistics of `batch` episodes that have not begun."""
    return Returns(jnp.zeros(batch, jnp.float32), moments(()))


def update_rewards(old: Returns, timestep: TimeStep, discount: Array | float) -> Returns:
    """Count the sums at the timesteps [T, B] arrived at: sum = discount sum + reward.

    A sum starts from 0 with every episode, be the one before it terminated or cut off by a time
    limit. The reward on arriving at the end of an episode counts; the timestep that starts one
    has no reward, and no sum is counted there.
    """

    def step(total: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, start = x
        total = jnp.where(start, 0.0, discount * total + reward)
        return total, total

    total, totals = jax.lax.scan(step, old.total, (timestep.reward, timestep.start))
    return Returns(total, update(old.moments, totals, ~timestep.start))


def rewards(statistics: Returns, reward: Array) -> Array:
    """Return rewards [...] in deviations of the discounted sums, not shifted; at most LIMIT."""
    return _scaled(reward, jnp.float32(0), statistics.moments.variance)


class Statistics(NamedTuple):
    """What an agent knows of the scales of its environment."""

    observations: Any  # `Moments` of the parts; () if they are not normalised
    rewards: Any  # `Returns`; () if they are not normalised


class Normalizer(NamedTuple):
    """How an agent normalises what it sees and earns."""

    init: Callable[[int], Statistics]  # batch size -> of nothing yet
    see: Callable[[Statistics, TimeStep], TimeStep]  # [..., B], with normalised observations
    # Statistics that count the rewards of timesteps arrived at [T, B], and these normalised.
    earn: Callable[[Statistics, TimeStep], tuple[Statistics, Array]]
    observe: Callable[[Statistics, TimeStep], Statistics]  # counts observations [T, B]


def normalizer(
    spec: Spec, normalize_observations: bool, normalize_rewards: bool, discount: Array | float
) -> Normalizer:
    """Return how observations and rewards are normalised: each only if asked for.

    Raises ValueError where observations are to be and none is of floats.
    """
    space = spec.observations
    if normalize_observations and not any(map(floating, spaces.parts(space))):
        raise ValueError(f"normalize_observations: True, but there are no floats in {space}")

    def init(batch: int) -> Statistics:
        return Statistics(
            of_observations(space) if normalize_observations else (),
            of_rewards(batch) if normalize_rewards else (),
        )

    def see(statistics: Statistics, timestep: TimeStep) -> TimeStep:
        if not normalize_observations:
            return timestep
        observation = observations(space, statistics.observations, timestep.observation)
        return timestep._replace(observation=observation)

    def earn(statistics: Statistics, after: TimeStep) -> tuple[Statistics, Array]:
        if not normalize_rewards:
            return statistics, after.reward
        returns = update_rewards(statistics.rewards, after, discount)
        return statistics._replace(rewards=returns), rewards(returns, after.reward)

    def observe(statistics: Statistics, timestep: TimeStep) -> Statistics:
        if not normalize_observations:
            return statistics
        every = jnp.ones_like(timestep.last)
        counted = update_observations(space, statistics.observations, timestep.observation, every)
        return statistics._replace(observations=counted)

    return Normalizer(init, see, earn, observe)
