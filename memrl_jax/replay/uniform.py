"""Uniform sampling of windows."""

from functools import partial

from memrl_jax.checks import positive, typed
from memrl_jax.replay import ring
from memrl_jax.types import Array, ReplayMemory, State


@typed
def uniform(
    segments: int, period: int, length: int, batch_size: int, stride: int = 1, frames: int = 1
) -> ReplayMemory:
    """Keep the last `segments` segments of `period` actions and draw windows of `length` actions.

    All windows are equally likely; they never cross the write head, but may cross episodes.
    `stride = 1`: windows begin anywhere, with a fresh memory (their first `start` is true).
    `stride = period` (above 1): they begin where segments began, with the memory stored there.
    `frames > 1`: every leaf of the observations is a stack of so many frames along its last axis,
    the newest last (`environments.frame_stack` makes them). One frame per timestep is stored;
    samples have stacks again, so windows begin only where all frames of these are still held.
    Until `warmup` segments are added no window is whole (see `can_sample`): samples are partly or
    all zeros, with weight 0. Raises ValueError for sizes below 1, a stride that does not divide the
    period, windows longer than the ring, and 2**30 timesteps or more.
    Lin (1992); for sequences Hausknecht & Stone (2015).
    """
    positive("batch_size", batch_size)
    shape = ring.windows(segments, period, length, stride, frames)

    def update(state: State, index: Array, priority: Array) -> tuple[State, dict[str, Array]]:
        return state, {}

    return ReplayMemory(
        init=partial(ring.init, shape),
        add=partial(ring.add, shape),
        sample=lambda key, state: ring.sample(shape, state, batch_size, key),
        update=update,
        can_sample=partial(ring.can_sample, shape),
        warmup=shape.warmup,
        length=length,
    )
