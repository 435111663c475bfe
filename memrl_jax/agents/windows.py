"""What agents that learn from replayed windows have in common."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from memrl_jax import draws, tree
from memrl_jax.types import Array, Key, Network, Segment, State


def burned_in(
    params: Any, target_params: Any, network: Network, burn_in: int, segment: Segment
) -> tuple[State, State, Segment]:
    """Unroll both networks over the first `burn_in` actions, which are not learned from.

    Returns their memories [N, ...] and the rest of the segment, [L + 1, N] timesteps.
    Kapturowski et al. (2019), section 3.
    """
    if not burn_in:
        return segment.memory, segment.memory, segment
    prefix, rest = slice(burn_in), slice(burn_in, None)
    timestep = tree.at(segment.timestep, prefix)
    memory, _ = network.unroll(params, segment.memory, timestep)
    target_memory, _ = network.unroll(target_params, segment.memory, timestep)
    timestep, action, extras = tree.at((segment.timestep, segment.action, segment.extras), rest)
    return memory, target_memory, Segment(memory, timestep, action, extras)


def priority(mix: Array | float, error: Array, valid: Array) -> Array:
    """Return priorities [N]: a mix of the largest and the mean absolute error [L, N], where valid.

    Kapturowski et al. (2019), section 2.3.
    """
    size = jnp.where(valid, jnp.abs(error), 0.0)
    mean = size.sum(axis=0) / jnp.maximum(valid.sum(axis=0), 1)
    return mix * size.max(axis=0) + (1 - mix) * mean


def gradient_steps(
    key: Key, state: State, update: Callable[[State, Key], Any], count: int
) -> tuple[State, dict[str, Array]]:
    """Call `update` `count` times, each with its own key; return the state and summed metrics [].

    `update`: state, key -> (state, metrics []).
    """
    keys = draws.split(key, count)
    if count == 1:  # a loop around a single update copies what it changes
        return update(state, keys[0])
    state, metrics = jax.lax.scan(update, state, keys)
    return state, tree.total(metrics)
