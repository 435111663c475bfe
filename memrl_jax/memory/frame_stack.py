"""The last few inputs side by side."""

from typing import Any

import jax.numpy as jnp

from memrl_jax.checks import UNROLLED, positive, typed
from memrl_jax.memory.layers import Project, newest
from memrl_jax.types import Array, Key, NeuralMemory, State


@typed
def frame_stack(features: int = 64, frames: int = 4) -> NeuralMemory:
    """Stack the last `frames` inputs, oldest first: output [frames * features].

    A dense layer, without a nonlinearity, first maps every input to [features]. Frames before the
    episode's start are zeros. State [frames - 1, features]: the last projected inputs. Raises
    ValueError for sizes below 1.
    Mnih et al. (2015), the preprocessing of Methods, here on learned features.
    """
    project = Project(positive("features", features))
    before = positive("frames", frames, UNROLLED) - 1

    def init(key: Key, x: Array) -> Any:
        return project.init(key, x[None])

    def initial_state() -> State:
        return jnp.zeros((before, features), jnp.float32)

    def unroll(params: Any, state: State, xs: Array, starts: Array) -> Any:
        steps = len(xs)
        projected: Any = project.apply(params, xs)
        held = jnp.concatenate([state, projected])
        now = jnp.cumsum(starts, dtype=jnp.int32)
        episode = jnp.concatenate([jnp.zeros(before, jnp.int32), now])
        delayed = [
            jnp.where(episode[i : i + steps, None] == now[:, None], held[i : i + steps], 0)
            for i in range(frames)
        ]
        return newest(held, episode, before), jnp.concatenate(delayed, axis=-1)

    def step(params: Any, state: State, x: Array, start: Array) -> tuple[State, Array]:
        state, ys = unroll(params, state, x[None], jnp.asarray(start)[None])
        return state, ys[0]

    return NeuralMemory(init, initial_state, step, unroll)
