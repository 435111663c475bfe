"""Frame stacks: several observations concatenated along the last axis, the newest last.

At an episode's start the stack is its first frame, repeated. Every leaf of an observation is
stacked separately: frames [..., C] become stacks [..., frames * C].
"""

from typing import Any

import jax
import jax.numpy as jnp

from memrl_jax.types import Array


def repeat(frame: Any, frames: int) -> Any:
    """Return the stack [..., frames * C] at an episode's start, of its first frame [..., C]."""
    return jax.tree.map(lambda x: jnp.concatenate([x] * frames, axis=-1), frame)


def push(stacked: Any, frame: Any) -> Any:
    """Return the next stack [..., frames * C]: drop the oldest frame, append `frame` [..., C]."""
    return jax.tree.map(
        lambda xs, x: jnp.concatenate([xs[..., x.shape[-1] :], x], axis=-1), stacked, frame
    )


def newest(stacked: Any, frames: int) -> Any:
    """Return the newest frame [..., C] of a stack [..., frames * C]."""
    return jax.tree.map(lambda x: x[..., x.shape[-1] - x.shape[-1] // frames :], stacked)


def stack(frame: Any, start: Array, frames: int) -> Any:
    """Return the stacks [T, N, ..., frames * C] of T consecutive frames [T, N, ..., C].

    `start` [T, N] says where episodes start. The first `frames` - 1 stacks are right only from a
    start on: the frames before are not given.
    """
    time = jnp.arange(start.shape[0])[:, None]
    begun = jax.lax.cummax(jnp.where(start, time, 0), axis=0)
    rows = [jnp.maximum(time - back, begun) for back in reversed(range(frames))]
    environment = jnp.arange(start.shape[1])

    def leaf(x: Array) -> Array:
        return jnp.concatenate([x[row, environment] for row in rows], axis=-1)

    return jax.tree.map(leaf, frame)
