"""Prioritized sampling of windows."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from memrl_jax.checks import at_least, positive, typed, within
from memrl_jax.replay import ring, sum_tree
from memrl_jax.replay.ring import Ring
from memrl_jax.replay.sum_tree import SumTree
from memrl_jax.types import Array, Key, ReplayMemory, Sample, Segment

Schedule = float | Array | Callable[[Array], Array]  # a number, or one for every count of updates
OFFSET = 1e-6  # added to priorities, so that no window is lost for ever


class Prioritized(NamedTuple):
    """The state of a prioritized replay memory."""

    ring: Ring
    weights: SumTree  # priority ** exponent of every start, [starts * B]; zero if not whole
    largest: Array  # [] float32 largest priority so far, given to new windows
    updates: Array  # [] int32


@typed
def prioritized(
    segments: int,
    period: int,
    length: int,
    batch_size: int,
    stride: int = 1,
    exponent: Schedule = 0.6,
    importance: Schedule = 0.4,
    radix: int = 8,
    frames: int = 1,
) -> ReplayMemory:
    """Draw windows in proportion to `priority ** exponent`, from the ring that `uniform` keeps.

    A new window has the largest priority so far (at first 1); `update` gives those drawn theirs,
    which must not be negative. A sample's weights are (windows x probability) ** -importance,
    divided by the largest of them. Both exponents may be functions of the number of updates so
    far. Update before the next `add`: an index names a place, where another window may be by then.
    Sampling is stratified, and costs O(batch_size radix log_radix(windows)).
    Raises ValueError like `uniform`, and for exponents outside [0, 1] and a radix below 2.
    Schaul et al. (2016), algorithm 1, proportional variant.
    """
    positive("batch_size", batch_size)
    at_least("radix", radix, 2)
    for field, value in (("exponent", exponent), ("importance", importance)):
        if not callable(value):
            within(field, value, 0, 1)
    shape = ring.windows(segments, period, length, stride, frames)

    def init(example: Segment) -> Prioritized:
        environments = example.timestep.reward.shape[0]
        weights = sum_tree.init(shape.rows // shape.stride * environments, radix)
        return Prioritized(ring.init(shape, example), weights, jnp.float32(1), jnp.int32(0))

    def add(state: Prioritized, segment: Segment) -> Prioritized:
        held = ring.add(shape, state.ring, segment)
        start, whole = ring.changed(shape, held)
        environments = held.record.shape[1]
        index = start[:, None] // shape.stride * environments + jnp.arange(environments)
        new = (state.largest + OFFSET) ** _at(exponent, state.updates)
        weight = jnp.broadcast_to(jnp.where(whole, new, 0.0)[:, None], index.shape)
        weights = sum_tree.write(state.weights, index.reshape(-1), weight.reshape(-1))
        return state._replace(ring=held, weights=weights)

    def sample(key: Key, state: Prioritized) -> Sample:
        index = sum_tree.stratified(key, state.weights, batch_size)
        environments = state.ring.record.shape[1]
        start = index // environments * shape.stride
        segment = ring.gather(shape, state.ring, start, index % environments)
        weight = sum_tree.read(state.weights, index)
        # The number of windows and the total weight cancel in the division by the largest.
        correction = (weight / jnp.min(weight)) ** -_at(importance, state.updates)
        return Sample(segment, index, correction)

    def update(state: Prioritized, index: Array, priority: Array) -> Prioritized:
        new = (priority + OFFSET) ** _at(exponent, state.updates)
        # A window that has been overwritten since it was drawn stays out.
        weight = jnp.where(sum_tree.read(state.weights, index) > 0, new, 0.0)
        weights = sum_tree.write(state.weights, index, weight)
        largest = jnp.maximum(state.largest, jnp.max(priority))
        return state._replace(weights=weights, largest=largest, updates=state.updates + 1)

    return ReplayMemory(init, add, sample, update, shape.warmup)


def _at(schedule: Schedule, updates: Array) -> Array | float:
    return schedule(updates) if callable(schedule) else schedule
