"""Attention in several hops, in which each query depends on what the last hop read.

`attend` is the algorithm, for a memory of any form; `over_past` applies it to past inputs.
Positions are the held inputs, oldest first, then the T new ones. Steps are cut into N blocks of
C <= slots, each with the K = C + slots - 1 positions its steps may attend to, so that time and
space grow as T * slots, not as T squared.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from memrl_jax.checks import positive
from memrl_jax.memory.gtrxl import skew, tiles
from memrl_jax.memory.layers import Project, all_finite, newest
from memrl_jax.types import Array, Key, NeuralMemory, State


class Hop(NamedTuple):
    """One hop over a memory of M slots."""

    match: Callable[[Array], Array]  # u [..., d] -> scores [..., M]
    read: Callable[[Array], Array]  # weights [..., M] -> o [..., d]
    join: Callable[[Array, Array], Array]  # u, o -> the next u


class HopTrace(NamedTuple):
    """The queries u, attention weights and reads o of all hops."""

    u: Array  # [hops + 1, ..., d] the first query, and that after each hop
    weights: Array  # [hops, ..., M]
    o: Array  # [hops, ..., d]


def attend(
    u: Array, hops: Sequence[Hop], normalize: Callable[[Array], Array] = nn.softmax
) -> HopTrace:
    """Attend to a memory in hops, from the query `u` [..., d]; the trace's last u is the answer.

    If `normalize` is the identity, weights are the scores themselves (the paper's linear start).
    Sukhbaatar et al. (2015), equations 1 to 4.
    """
    us, weights, os = [u], [], []
    for hop in hops:
        weights.append(normalize(hop.match(us[-1])))
        os.append(hop.read(weights[-1]))
        us.append(hop.join(us[-1], os[-1]))
    return HopTrace(jnp.stack(us), jnp.stack(weights), jnp.stack(os))


class Past(NamedTuple):
    """The last inputs, zeros before the episode's start."""

    held: Array  # [slots, features], oldest first
    valid: Array  # [] int32, how many of them are of the running episode


class Window(NamedTuple):
    """The inputs that N blocks of C steps may attend to."""

    inputs: Array  # [N, K, F]
    filled: Array  # [N, C, slots] bool, oldest first: holds an input of the step's episode


def unskew(x: Array, window: int) -> Array:
    """Shift row i of x [..., C, C + window - 1] left by i: [..., C, window]; inverts `skew`."""
    *batch, rows, width = x.shape
    flat = jnp.pad(x.reshape(*batch, -1), [(0, 0)] * len(batch) + [(0, rows)])
    return flat.reshape(*batch, rows, width + 1)[..., :window]


def hop(
    window: Window, key: Array, value: Array, times: tuple[Array, Array], join: Callable[..., Array]
) -> Hop:
    """Make a hop over a window, with linear maps `key` and `value` [F, F] of its inputs.

    `times`, two of [slots, F], are added to keys and values, oldest slot first. Empty slots
    have keys and values of zero.
    """
    slots = window.filled.shape[-1]
    key_time, value_time = times

    def match(u: Array) -> Array:
        # The query is mapped to the space of the inputs, whose keys are never computed.
        scores = jnp.einsum("ncf,nkf->nck", u @ key.T, window.inputs)
        return jnp.where(window.filled, unskew(scores, slots) + u @ key_time.T, 0)

    def read(weights: Array) -> Array:
        weights = jnp.where(window.filled, weights, 0)
        found = jnp.einsum("nck,nkf->ncf", skew(weights), window.inputs)
        return found @ value + weights @ value_time

    return Hop(match, read, join)


class OverPast(nn.Module):
    """Apply `reader` to the inputs before each step."""

    reader: nn.Module
    features: int
    slots: int

    @nn.compact
    def __call__(self, past: Past, xs: Array, starts: Array) -> tuple[Past, Array, Array]:
        """Return the next `Past`, ys [T, F], and weights [hops, T, slots], 0 for empty slots.

        Positions that are not finite are set to zero first: 0 * NaN would pass through the masks.
        """
        steps, slots = len(xs), self.slots
        blocks = -(-steps // slots)
        size = -(-steps // blocks)
        reach = size + slots - 1
        old = jnp.where(np.arange(slots) >= slots - past.valid, jnp.int32(0), -1)
        episode = jnp.concatenate([old, jnp.cumsum(starts, dtype=jnp.int32)])
        x = jnp.concatenate([past.held, Project(self.features, name="input")(xs)])
        finite = all_finite(x)
        clean = jnp.where(finite, x, 0)

        now = tiles(episode[slots:], blocks, size, size, fill=-2)
        same = now[:, :, None] == tiles(episode[:-1], blocks, size, reach, fill=-3)[:, None, :]
        window = Window(tiles(clean[:-1], blocks, size, reach), unskew(same, slots))
        trace = self.reader(window, tiles(clean[slots:], blocks, size, size))

        broken = jnp.broadcast_to(tiles(~finite[:-1, 0], blocks, size, reach)[:, None], same.shape)
        broken = jnp.any(unskew(broken, slots) & window.filled, axis=-1)
        ys = jnp.where(broken[..., None], jnp.nan, trace.u[-1]).reshape(-1, self.features)[:steps]
        ys = jnp.where(finite[slots:], ys, jnp.nan)
        seen = jnp.where(window.filled, trace.weights, 0)
        valid = jnp.sum(episode[steps:] == episode[-1], dtype=jnp.int32)
        past = Past(newest(x, episode, slots), valid)
        return past, ys, seen.reshape(len(seen), -1, slots)[:, :steps]


def over_past(reader: nn.Module, features: int, slots: int) -> NeuralMemory:
    """Make a memory from a module `(Window, now [N, C, F]) -> HopTrace`.

    State `Past`, output [F].
    """
    network = OverPast(reader, positive("features", features), positive("slots", slots))

    def init(key: Key, x: Array) -> Any:
        return network.init(key, initial_state(), x[None], jnp.ones(1, bool))

    def initial_state() -> Past:
        return Past(jnp.zeros((slots, features), jnp.float32), jnp.zeros((), jnp.int32))

    def unroll(params: Any, state: State, xs: Array, starts: Array) -> Any:
        outcome: Any = network.apply(params, state, xs, starts)
        return outcome[:2]

    def step(params: Any, state: State, x: Array, start: Array) -> tuple[State, Array]:
        state, ys = unroll(params, state, x[None], jnp.asarray(start)[None])
        return state, ys[0]

    def inspect(params: Any, state: State, x: Array, start: Array) -> dict[str, Array]:
        outcome: Any = network.apply(params, state, x[None], jnp.asarray(start)[None])
        weights = outcome[2]
        return {"attention": weights[:, 0]}

    return NeuralMemory(init, initial_state, step, unroll, inspect)
