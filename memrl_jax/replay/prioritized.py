"""Prioritized sampling of windows."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from memrl_jax import shards, tree
from memrl_jax.checks import at_least, positive, typed, within
from memrl_jax.replay import ring, sum_tree
from memrl_jax.replay.ring import Ring
from memrl_jax.replay.sum_tree import SumTree
from memrl_jax.types import Array, Key, ReplayMemory, Sample, Segment

Schedule = float | Array | Callable[[Array], Array]  # a number, or a function of the updates so far
OFFSET = 1e-6  # added to priorities, so that every window can be drawn
LARGEST = 1e28  # of priorities: the sum of 2**30 of them is still finite in float32


class Drawn(NamedTuple):
    """Which windows a sample consists of."""

    start: Array  # [N] int32 which leaf of the sum tree
    added: Array  # [N] int32 segments added when drawn: later ones may overwrite the window


class Prioritized(NamedTuple):
    """The state of a prioritized replay memory."""

    ring: Ring
    weights: SumTree  # priority ** exponent of every start, [starts * B]; 0 if not whole
    largest: Array  # [] float32 largest priority so far, given to new windows
    updates: Array  # [] int32, for the schedules; stays at its largest value


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
    """Draw windows in proportion to `priority ** exponent`, from the same ring as `uniform`.

    A new window has the largest priority so far (at first 1); `update` sets the priorities of drawn
    windows, except those overwritten since. A priority that is negative, NaN or above 1e28 is
    ignored and counted as `refused_priorities`. A sample's weights are
    (windows x probability) ** -importance, divided by the largest of them; they are 0 before any
    window is whole (see `can_sample`). Shards have a ring each, from which equally many are drawn;
    the largest priority and the largest weight are those of all of them. Both exponents may be
    functions of the updates so far. Sampling is stratified, and costs
    O(batch_size radix log_radix(windows)).
    Raises ValueError like `uniform`, and for exponents outside [0, 1], a radix outside [2, 1024]
    and a batch above 2**20.
    Schaul et al. (2016), algorithm 1, proportional variant.
    """
    positive("batch_size", batch_size, sum_tree.DRAWS)
    at_least("radix", radix, 2, sum_tree.RADIX)
    for field, value in (("exponent", exponent), ("importance", importance)):
        if not callable(value):
            within(field, value, 0, 1)
    shape = ring.windows(segments, period, length, stride, frames)

    def init(example: Segment) -> Prioritized:
        empty = ring.init(shape, example)
        environments = len(empty.record)
        weights = sum_tree.init(shape.rows // shape.stride * environments, radix)
        return Prioritized(empty, weights, jnp.float32(1), jnp.int32(0))

    def add(state: Prioritized, segment: Segment) -> Prioritized:
        held = ring.add(shape, state.ring, segment)
        start, whole = ring.changed(shape, held)
        environments = len(held.record)
        index = start[:, None] // shape.stride * environments + jnp.arange(environments)[None]
        new = (state.largest + OFFSET) ** _at(exponent, state.updates)
        weight = jnp.broadcast_to(jnp.where(whole, new, 0.0)[:, None], index.shape)
        weights = sum_tree.write(state.weights, index.reshape(-1), weight.reshape(-1))
        return state._replace(ring=held, weights=weights)

    def sample(key: Key, state: Prioritized) -> Sample:
        index = sum_tree.stratified(key, state.weights, batch_size)
        environments = len(state.ring.record)
        start = index // environments * shape.stride
        segment = ring.gather(shape, state.ring, start, index % environments)
        weight = sum_tree.read(state.weights, index)
        # The number of windows cancels in the division by the largest, and so does the total weight
        # but between shards, from which equally many are drawn.
        chance = weight / sum_tree.total(state.weights) if shards.several() else weight
        least = shards.smallest(jnp.min(chance))
        correction = (chance / least) ** -_at(importance, state.updates)
        drawn = Drawn(index, jnp.full(batch_size, state.ring.added))
        return Sample(segment, drawn, jnp.where(weight > 0, correction, 0.0))

    def update(
        state: Prioritized, index: Drawn, priority: Array
    ) -> tuple[Prioritized, dict[str, Array]]:
        good = (priority >= 0) & (priority <= LARGEST)  # NaN is neither
        priority = jnp.where(good, priority, 0.0)
        row = index.start // len(state.ring.record) * shape.stride
        same = ring.unchanged(shape, state.ring, row, index.added)
        old = sum_tree.read(state.weights, index.start)
        new = (priority + OFFSET) ** _at(exponent, state.updates)
        # A weight of 0 marks a window that is not whole: it has lost its frames.
        weight = jnp.where(good & same & (old > 0), new, old)
        state = state._replace(
            weights=sum_tree.write(state.weights, index.start, weight),
            largest=jnp.maximum(state.largest, shards.largest(jnp.max(priority))),
            updates=tree.count(state.updates),
        )
        return state, {"refused_priorities": jnp.sum(~good, dtype=jnp.int32)}

    def can_sample(state: Prioritized) -> Array:
        return ring.can_sample(shape, state.ring)

    return ReplayMemory(init, add, sample, update, can_sample, shape.warmup, length)


def _at(schedule: Schedule, updates: Array) -> Array | float:
    return schedule(updates) if callable(schedule) else schedule
