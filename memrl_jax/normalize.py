"""Running statistics for normalising observations and rewards, as pytrees of arrays.

Batches of observations may have any leading axes; `mask` says which elements count.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax import shards, spaces
from memrl_jax.spaces import Continuous
from memrl_jax.types import Array, Spec, TimeStep

LIMIT = 10.0  # normalised values are clipped to [-LIMIT, LIMIT], as in VecNormalize
EPSILON = 1e-8  # added to variances before the square root


class Moments(NamedTuple):
    """Mean and variance of the values counted so far, element by element."""

    counted: Array  # [] float32: how many; past 2^24, adding 1 at a time is lost in rounding
    mean: Array  # [...] float32; 0 before anything was counted
    variance: Array  # [...] float32; 1 before anything was counted


def moments(shape: tuple[int, ...]) -> Moments:
    """Return the initial moments of values of this shape."""
    zeros = jnp.zeros(shape, jnp.float32)
    return Moments(jnp.zeros((), jnp.float32), zeros, zeros + 1)


def update(old: Moments, x: Array, mask: Array) -> Moments:
    """Update moments with the values of `x` [*mask.shape, ...] where `mask` (bool) is true.

    Values of all shards count.

    Values are taken relative to the mean so far, then to their own mean, whose rounding error is
    corrected: a large mean costs no more digits than it takes up in the values themselves.
    Chan et al. (1983), equations 1.5 and 1.8.
    """
    axes = tuple(range(mask.ndim))
    valid = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    n = shards.total(jnp.sum(mask, dtype=jnp.float32))

    def average(x: Array) -> Array:
        total = shards.total(jnp.sum(jnp.where(valid, x, 0.0), axis=axes))
        return total / jnp.maximum(n, 1)

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
    """Tell whether a part of an observation space is normalised: arrays of floats are.

    Integers, images among them, are scaled by their declared bounds in the encoder instead.
    """
    return isinstance(part, Continuous) and bool(jnp.issubdtype(part.dtype, jnp.floating))


def of_observations(space: Any) -> Any:
    """Return the initial statistics of an observation space: `Moments` of float parts, else ()."""
    return spaces.over(lambda part: moments(part.shape) if floating(part) else (), space)


def update_observations(space: Any, old: Any, observation: Any, mask: Array) -> Any:
    """Update statistics by part with observations [*mask.shape, ...] where `mask` is true."""

    def updated(part: Any, old: Any, x: Array) -> Any:
        return update(old, x, mask) if floating(part) else ()

    return spaces.over(updated, space, old, observation)


def observations(space: Any, statistics: Any, observation: Any) -> Any:
    """Standardise the float parts of observations [..., *shape]; clip them to [-LIMIT, LIMIT]."""

    def normalised(part: Any, of: Any, x: Array) -> Array:
        return _scaled(x, of.mean, of.variance).astype(x.dtype) if floating(part) else x

    return spaces.over(normalised, space, statistics, observation)


class RewardStatistics(NamedTuple):
    """Discounted sums of past rewards; rewards are divided by their standard deviation."""

    total: Array  # [B] float32: the sum so far in the current episode
    moments: Moments  # [] of these sums, over all environments and timesteps


def of_rewards(batch: int) -> RewardStatistics:
    """Return the initial reward statistics of `batch` environments."""
    return RewardStatistics(jnp.zeros(batch, jnp.float32), moments(()))


def update_rewards(
    old: RewardStatistics, timestep: TimeStep, discount: Array | float
) -> RewardStatistics:
    """Update statistics with the sums at timesteps [T, B]: sum = discount * sum + reward.

    The sum restarts from 0 with every episode, whether the one before it terminated or was
    truncated. The reward at a `last` timestep counts; a `start` timestep has no reward, and no sum
    is counted there.
    """

    def step(total: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, start = x
        total = jnp.where(start, 0.0, discount * total + reward)
        return total, total

    total, totals = jax.lax.scan(step, old.total, (timestep.reward, timestep.start))
    return RewardStatistics(total, update(old.moments, totals, ~timestep.start))


def rewards(statistics: RewardStatistics, reward: Array) -> Array:
    """Divide rewards [...] by the deviation of the discounted sums; clip to [-LIMIT, LIMIT]."""
    return _scaled(reward, jnp.float32(0), statistics.moments.variance)


class Statistics(NamedTuple):
    """Running statistics of an agent's observations and rewards."""

    observations: Any  # `Moments` of the parts; () if they are not normalised
    rewards: Any  # `RewardStatistics`; () if they are not normalised


class Normalizer(NamedTuple):
    """The functions by which an agent normalises observations and rewards."""

    init: Callable[[int], Statistics]  # batch size -> initial statistics
    normalize: Callable[[Statistics, TimeStep], TimeStep]  # [..., B], with normalised observations
    # Updates statistics with the rewards of timesteps [T, B], and returns these normalised [T, B].
    update_rewards: Callable[[Statistics, TimeStep], tuple[Statistics, Array]]
    update_observations: Callable[[Statistics, TimeStep], Statistics]  # updates them with [T, B]


def normalizer(
    spec: Spec, normalize_observations: bool, normalize_rewards: bool, discount: Array | float
) -> Normalizer:
    """Return the normalizer of observations and of rewards, each only if asked for.

    Raises ValueError if observations are to be normalised, but no part of them is of floats.
    """
    space = spec.observations
    if normalize_observations and not any(map(floating, spaces.parts(space))):
        raise ValueError(f"normalize_observations: True, but there are no floats in {space}")

    def init(batch: int) -> Statistics:
        return Statistics(
            of_observations(space) if normalize_observations else (),
            of_rewards(batch) if normalize_rewards else (),
        )

    def normalize(statistics: Statistics, timestep: TimeStep) -> TimeStep:
        if not normalize_observations:
            return timestep
        observation = observations(space, statistics.observations, timestep.observation)
        return timestep._replace(observation=observation)

    def with_rewards(statistics: Statistics, after: TimeStep) -> tuple[Statistics, Array]:
        if not normalize_rewards:
            return statistics, after.reward
        returns = update_rewards(statistics.rewards, after, discount)
        return statistics._replace(rewards=returns), rewards(returns, after.reward)

    def with_observations(statistics: Statistics, timestep: TimeStep) -> Statistics:
        if not normalize_observations:
            return statistics
        every = jnp.ones_like(timestep.last)
        counted = update_observations(space, statistics.observations, timestep.observation, every)
        return statistics._replace(observations=counted)

    return Normalizer(init, normalize, with_rewards, with_observations)
