"""Memory Q-networks: a context queries the last inputs, which are held as keys and values.

Slots from before the episode's start are zeros, which score 0 with every query; they take part in
the softmax as inputs do.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from memrl_jax import draws
from memrl_jax.checks import at_least, positive, typed
from memrl_jax.memory import feedback
from memrl_jax.memory.base import from_step
from memrl_jax.memory.gtrxl import tiles
from memrl_jax.memory.layers import all_finite, newest
from memrl_jax.memory.lstm import lstm
from memrl_jax.types import Array, Key, NeuralMemory, State


class MQNState(NamedTuple):
    """The last inputs and the state of the context."""

    keys: Array  # [frames - 1, features], oldest first, zeros before the episode's start
    values: Array  # [frames - 1, features] likewise
    retrieved: Array  # [features] o of the last step if it is fed back, else of shape [0]
    context: State


class Maps(nn.Module):
    """The linear maps around the attention."""

    features: int

    def setup(self) -> None:
        """Make the maps; if all slots are full, biases of keys and values add nothing to out's."""
        self.key = nn.Dense(self.features, use_bias=False)
        self.value = nn.Dense(self.features, use_bias=False)
        self.out = nn.Dense(self.features)

    def hold(self, x: Array) -> tuple[Array, Array]:
        """Return the key and the value [..., features] of an input [..., D]."""
        return self.key(x), self.value(x)

    def read(self, h: Array, o: Array) -> Array:
        """Return phi(W h + o), [..., features] each, where phi rectifies the second half."""
        linear, rectified = jnp.split(self.out(h) + o, [self.features // 2], axis=-1)
        return jnp.concatenate([linear, nn.relu(rectified)], axis=-1)


def retrieve(hs: Array, keys: Array, values: Array, episode: Array) -> Array:
    """Return reads o [T, F] of queries `hs` [T, F], each over the M rows before its own.

    Keys and values are [M + T, F]; `episode` [M + T] is the number of each row's episode. As in
    `gtrxl`, queries are cut into N blocks of C <= M with K = C + M - 1 rows each. Rows that are not
    finite are set to zero first, so that they pass no mask; reads that attend to them are NaN.
    """
    steps, before = len(hs), len(keys) - len(hs)
    blocks = -(-steps // before)
    size = -(-steps // blocks)
    reach = size + before - 1
    asking, finite = all_finite(hs), all_finite(keys) & all_finite(values)
    hs, keys, values = jnp.where(asking, hs, 0), *(jnp.where(finite, x, 0) for x in (keys, values))
    query, now = (tiles(x, blocks, size, size) for x in (hs, episode[before:]))
    # The last input is not before any of these queries.
    key, value, fine, then = (
        tiles(x[:-1], blocks, size, reach) for x in (keys, values, finite, episode)
    )
    ahead = np.arange(reach)[None, None] - np.arange(size)[None, :, None]
    inside = (ahead >= 0) & (ahead < before)
    same = inside & (now[:, :, None] == then[:, None])
    scores = jnp.where(same, jnp.einsum("ncf,nkf->nck", query, key), 0)
    weights = nn.softmax(jnp.where(inside, scores, -jnp.inf))
    o = jnp.einsum("nck,nkf->ncf", jnp.where(same, weights, 0), value)
    fine = ~jnp.any(same & ~fine[:, None, :, 0], axis=-1)
    o, fine = o.reshape(-1, o.shape[-1])[:steps], fine.reshape(-1, 1)[:steps]
    return jnp.where(fine & asking, o, jnp.nan)


def linear(features: int) -> NeuralMemory:
    """Map every input by itself: state (), output [features]."""
    dense = nn.Dense(features)

    def run(params: Any, state: State, x: Array, start: Array) -> tuple[State, Any]:
        return state, dense.apply(params, x)

    return NeuralMemory(dense.init, lambda: (), run, run)


def attending(context: NeuralMemory, features: int, frames: int, fed_back: int = 0) -> NeuralMemory:
    """Make a memory whose `context` maps [input, `fed_back` numbers of the last o] to a query h."""
    maps = Maps(features)
    before = at_least("frames", frames, 2) - 1

    def init(key: Key, x: Array) -> Any:
        maps_key, context_key = draws.split(key)
        zeros = jnp.zeros(features, jnp.float32)
        sees = jnp.concatenate([x, zeros[:fed_back]])

        def both(maps: Maps) -> Any:
            return maps.hold(x), maps.read(zeros, zeros)

        return {
            "maps": maps.init(maps_key, method=both),
            "context": context.init(context_key, sees),
        }

    def initial_state() -> MQNState:
        held = jnp.zeros((before, features), jnp.float32)
        return MQNState(held, held, held[0, :fed_back], context.initial_state())

    def ask(params: Any, state: MQNState, x: Array) -> tuple[State, Array, Array]:
        sees = jnp.concatenate([x, state.retrieved])
        after, h = context.step(params["context"], state.context, sees, jnp.zeros((), bool))
        return after, h, nn.softmax(state.keys @ h)

    def step(params: Any, state: MQNState, x: Array) -> tuple[MQNState, Array]:
        after, h, weights = ask(params, state, x)
        o = weights @ state.values
        new: Any = maps.apply(params["maps"], x, method="hold")
        pairs = zip(state[:2], new, strict=True)
        keys, values = (jnp.concatenate([held[1:], x[None]]) for held, x in pairs)
        y: Any = maps.apply(params["maps"], h, o, method="read")
        return MQNState(keys, values, o[:fed_back], after), y

    def inspect(params: Any, state: MQNState, x: Array) -> dict[str, Array]:
        _, _, weights = ask(params, state, x)
        return {"attention": weights[None]}

    def unroll(params: Any, state: MQNState, xs: Array, starts: Array) -> tuple[MQNState, Array]:
        new = maps.apply(params["maps"], xs, method="hold")
        keys, values = (jnp.concatenate(pair) for pair in zip(state[:2], new, strict=True))
        now = jnp.cumsum(starts, dtype=jnp.int32)
        episode = jnp.concatenate([jnp.zeros(before, jnp.int32), now])
        begin = state.context, state.retrieved
        given = params["context"], begin, xs, starts, keys, values, episode
        (after, retrieved), hs, os = (feedback.unroll if fed_back else look_up)(*given)
        ys: Any = maps.apply(params["maps"], hs, os, method="read")
        keys, values = (newest(x, episode, before) for x in (keys, values))
        return MQNState(keys, values, retrieved, after), ys

    def look_up(
        params: Any, state: tuple[State, Array], xs: Array, starts: Array, *held: Array
    ) -> tuple[tuple[State, Array], Array, Array]:
        after, hs = context.unroll(params, state[0], xs, starts)
        return (after, state[1]), hs, retrieve(hs, *held)

    return from_step(init, initial_state, step, inspect)._replace(unroll=unroll)


@typed
def mqn(features: int = 256, frames: int = 12) -> NeuralMemory:
    """Memory Q-network: attention of the present input over the `frames` - 1 before it.

    Output [features], state `MQNState`. No parameter depends on `frames`: an agent may be evaluated
    with more than it was trained with. Slots from before an episode's start have keys and values of
    zero, which take part in the attention; in the authors' code they have those of blank frames.
    Raises ValueError for features below 1 or frames below 2.
    Oh et al. (2016), section 4; their action values are `QHead` with no layers before it.
    """
    return attending(linear(positive("features", features)), features, frames)


@typed
def rmqn(features: int = 256, frames: int = 12) -> NeuralMemory:
    """Recurrent memory Q-network: as `mqn`, but an LSTM makes the query.

    Its state is carried through the episode, while the authors' code begins from zeros in each
    window of `frames`.
    Oh et al. (2016), section 4.3.
    """
    return attending(lstm(features), features, frames)


@typed
def frmqn(features: int = 256, frames: int = 12) -> NeuralMemory:
    """Feedback recurrent memory Q-network: as `rmqn`, but the LSTM also sees the last read.

    Its state is carried as in `rmqn`, and so is the last read. Every query depends on the read
    before it, so sequences are unrolled step by step. Reverse-mode differentiation only.
    Oh et al. (2016), section 4.3.
    """
    return attending(lstm(features), features, frames, fed_back=features)
