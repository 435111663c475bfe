"""Stacks of frames: several observations side by side along the last axis, the newest last.

At an episode's start the stack is its first frame, repeated. Every leaf of an observation is
stacked by itself.
"""

from typing import Any

import jax
import jax.numpy as jnp

from memrl_jax.types import Array


def repeat(frame: Any, frames: int) -> Any:
    """Return the stack at an episode's start."""
    return jax.tree.map(lambda x: jnp.concatenate([x] * frames, axis=-1), frame)


def push(stacked: Any, frame: Any) -> Any:
    """Return the stack one step on: the oldest frame goes, `frame` comes."""
    return jax.tree.map(
        lambda xs, x: jnp.concatenate([xs[..., x.shape[-1] :], x], axis=-1), stacked, frame
    )


def newest(stacked: Any, frames: int) -> Any:
    """Return the newest frame of a stack."""
    return jax.tree.map(lambda x: x[..., x.shape[-1] - x.shape[-1] // frames :], stacked)


def stack(frame: Any, start: Array, frames: int) -> Any:
    """Return the stacks [T, N, ...] of frames [T, N, ...] in a row, where `start` [T, N] is known.

    The first `frames` - 1 are right only from an episode's start on: their past is not at hand.
    """
    time = jnp.arange(start.shape[0])[:, None]
    begun = jax.lax.cummax(jnp.where(start, time, 0), axis=0)
    rows = [jnp.maximum(time - back, begun) for back in reversed(range(frames))]
    environment = jnp.arange(start.shape[1])

    def leaf(x: Array) -> Array:
        return jnp.concatenate([x[row, environment] for row in rows], axis=-1)

    return jax.tree.map(leaf, frame)
