"""Gated Transformer-XL: attention over the last inputs of the running episode.

Positions are the held inputs, oldest first, then the T new ones: M = window - 1 + T. Queries are
cut into N blocks of C <= window, each with the K = C + window - 1 positions it may attend to, so
that time and space grow as T * window, not as T squared.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from memrl_jax.checks import UNROLLED, above, divides, positive, typed
from memrl_jax.memory.layers import Project, all_finite, newest
from memrl_jax.types import Array, Key, NeuralMemory, State


class GTrXLState(NamedTuple):
    """The last inputs of every layer, zeros before the episode's start."""

    held: Array  # [layers, window - 1, features], oldest first
    valid: Array  # [] int32, how many of them are of the running episode


def tiles(x: Array, count: int, stride: int, width: int, fill: int = 0) -> Array:
    """Cut x [M, ...] into [count, width, ...]: tile n begins at n * stride; `fill` past the end."""
    stride = stride if count > 1 else width
    shifts = -(-width // stride)
    lacking = (count + shifts - 1) * stride - len(x)
    x = jnp.pad(x, [(0, lacking)] + [(0, 0)] * (x.ndim - 1), constant_values=fill)
    shifted = [x[i * stride : (i + count) * stride] for i in range(shifts)]
    parts = [part.reshape(count, stride, *x.shape[1:]) for part in shifted]
    return jnp.concatenate(parts, axis=1)[:, :width]


def visible(episode: Array, window: int) -> Array:
    """Return which positions each query may attend to, bool [N, C, K].

    These are the last `window` up to its own that have its episode's number in `episode` [M].
    """
    steps = len(episode) - window + 1
    blocks = -(-steps // window)
    size = -(-steps // blocks)
    reach = size + window - 1
    queries = tiles(episode[window - 1 :], blocks, size, size, fill=-2)
    keys = tiles(episode, blocks, size, reach, fill=-2)
    later = np.arange(reach)[None, None] - np.arange(size)[None, :, None]
    return (queries[:, :, None] == keys[:, None, :]) & (later >= 0) & (later < window)


def skew(x: Array) -> Array:
    """Shift row i of x [..., C, window] right by i: [..., C, C + window - 1], zeros elsewhere."""
    *batch, rows, window = x.shape
    width = rows + window - 1
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, rows)]).reshape(*batch, -1)
    return x[..., : rows * width].reshape(*batch, rows, width)


def sinusoids(window: int, features: int) -> np.ndarray:
    """Return sinusoidal embeddings [window, features] of distances window - 1, ..., 1, 0."""
    frequencies = 10_000.0 ** -(np.arange(0, features, 2) / features)
    angles = np.arange(window)[::-1, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :features]


class Attention(nn.Module):
    """Attention by content and distance; Dai et al. (2019), section 3.3 and appendix A."""

    heads: int
    window: int

    @nn.compact
    def __call__(self, x: Array, look: Array) -> Array:
        """Return [T, F] from the positions x [M, F]; `look` [N, C, K] is the mask of `visible`."""
        features, steps = x.shape[-1], len(x) - self.window + 1
        blocks, size, _ = look.shape
        shape = (self.heads, features // self.heads)
        kernel = nn.initializers.lecun_normal(in_axis=0, out_axis=(1, 2))
        to_query, to_key, to_value, to_distance = (
            self.param(name, kernel, (features, *shape), jnp.float32)
            for name in ("query", "key", "value", "distance")
        )
        zeros, each = nn.initializers.zeros, (1, 1, *shape)
        u, v = (self.param(name, zeros, shape, jnp.float32).reshape(each) for name in "uv")
        now = tiles(x[self.window - 1 :], blocks, size, size)
        x = tiles(x, *look.shape)
        distances = sinusoids(self.window, features).astype(x.dtype)
        query = jnp.einsum("ncf,fhs->nchs", now, to_query)
        # einsum multiplies three factors in the cheapest order: a single query is mapped to the
        # space of the inputs, whose keys and values are never computed.
        content = jnp.einsum("nchs,nkf,fhs->nhck", query + u, x, to_key)
        position = jnp.einsum("nchs,wf,fhs->nhcw", query + v, distances, to_distance)
        scores = (content + skew(position)) / shape[1] ** 0.5
        weights = nn.softmax(jnp.where(look[:, None], scores, -jnp.inf))
        self.sow("intermediates", "weights", weights)  # for `inspect`; otherwise a no-op
        seen = jnp.einsum("nhck,nkf,fhs->nchs", weights, x, to_value)
        seen = seen.reshape(-1, features)[:steps]
        return nn.Dense(features, use_bias=False, name="out")(seen)


class Gate(nn.Module):
    """A GRU's gate, which lets a part of `y` into `x`; Parisotto et al. (2020), section 3.2."""

    bias: float

    @nn.compact
    def __call__(self, x: Array, y: Array) -> Array:
        """Return [T, F]: `x` itself where the learned bias, which begins as `bias`, is large."""
        features = x.shape[-1]
        bias = self.param("bias", nn.initializers.constant(self.bias), (features,), jnp.float32)
        of_y = nn.Dense(3 * features, use_bias=False, name="y")(y)
        of_x = nn.Dense(2 * features, use_bias=False, name="x")(x)
        y_r, y_z, y_h = jnp.split(of_y, 3, axis=-1)
        x_r, x_z = jnp.split(of_x, 2, axis=-1)
        r, z = nn.sigmoid(y_r + x_r), nn.sigmoid(y_z + x_z - bias[None])
        h = nn.tanh(y_h + nn.Dense(features, use_bias=False, name="rx")(r * x))
        return (1 - z) * x + z * h


class Block(nn.Module):
    """One layer: attention and an MLP, each with a LayerNorm before it, a ReLU and a gate after."""

    heads: int
    window: int
    gate_bias: float
    expansion: int

    @nn.compact
    def __call__(self, x: Array, look: Array) -> Array:
        """Return [T, F] from the positions x [M, F]; NaN if one attended to is not finite.

        Positions that are not finite are set to zero first: 0 * NaN would pass through the masks.
        """
        finite = all_finite(x)
        x = jnp.where(finite, x, 0)
        now = x[self.window - 1 :]
        attention = Attention(self.heads, self.window, name="attention")
        y = nn.relu(attention(nn.LayerNorm(name="attention_norm")(x), look))
        now = Gate(self.gate_bias, name="attention_gate")(now, y)
        y = nn.LayerNorm(name="mlp_norm")(now)
        y = nn.relu(nn.Dense(self.expansion * x.shape[-1], name="hidden")(y))
        y = nn.relu(nn.Dense(x.shape[-1], name="out")(y))
        now = Gate(self.gate_bias, name="mlp_gate")(now, y)
        broken = tiles(~finite[:, 0], *look.shape)
        broken = jnp.any(look & broken[:, None, :], axis=-1).reshape(-1)[: len(now)]
        return jnp.where(broken[:, None], jnp.nan, now)


class Transformer(nn.Module):
    """A projection of the input, then all layers."""

    features: int
    layers: int
    window: int
    block: Callable[..., Block]

    @nn.compact
    def __call__(self, held: Array, episode: Array, xs: Array) -> tuple[Array, Array]:
        """Return the next `held` [layers, window - 1, F] and ys [T, F].

        `episode` [M] is the number of each position's episode.
        """
        look = visible(episode, self.window)
        ys = Project(self.features, name="input")(xs)
        after = []
        for layer in range(self.layers):
            x = jnp.concatenate([held[layer], ys])
            after.append(newest(x, episode, self.window - 1))
            ys = self.block(name=f"layer_{layer}")(x, look)
        return jnp.stack(after), ys


@typed
def gtrxl(
    features: int = 64,
    layers: int = 1,
    heads: int = 4,
    window: int = 32,
    gate_bias: float = 2.0,
    expansion: int = 4,
) -> NeuralMemory:
    """Gated Transformer-XL: output [features], state `GTrXLState`.

    A dense layer maps the input to [features]; each layer attends over its last `window` inputs of
    the episode, the present one included, so an output depends on up to layers * (window - 1)
    earlier inputs. The MLP has `expansion` times `features` hidden units. `inspect` gives the
    attention of each head of each layer, the first layer's first; the present input, which is left
    out, has the rest up to 1.
    The defaults are small; the paper has 12 layers. Gradients flow inside an unroll, but not into
    the state it begins with, and so not from one `step` to the next. Raises ValueError for sizes
    below 1, heads that do not divide features, and a `gate_bias` that is not finite.
    Parisotto et al. (2020), section 3, with the relative positions of Dai et al. (2019).
    """
    positive("features", features)
    above("gate_bias", gate_bias, -jnp.inf)
    divides("features", features, "heads", positive("heads", heads))
    before = positive("window", window) - 1
    block = partial(Block, heads, window, gate_bias, positive("expansion", expansion))
    transformer = Transformer(features, positive("layers", layers, UNROLLED), window, block)

    def init(key: Key, x: Array) -> Any:
        state = initial_state()
        return transformer.init(key, state.held, jnp.zeros(window, jnp.int32), x[None])

    def initial_state() -> GTrXLState:
        held = jnp.zeros((layers, before, features), jnp.float32)
        return GTrXLState(held, jnp.zeros((), jnp.int32))

    def numbered(valid: Array, starts: Array) -> Array:
        old = jnp.where(np.arange(before) >= before - valid, jnp.int32(0), -1)
        return jnp.concatenate([old, jnp.cumsum(starts, dtype=jnp.int32)])

    def unroll(params: Any, state: State, xs: Array, starts: Array) -> Any:
        held, valid = jax.lax.stop_gradient(state)
        episode = numbered(valid, starts)
        held, ys = transformer.apply(params, held, episode, xs)
        valid = jnp.sum(episode[len(xs) :] == episode[-1], dtype=jnp.int32)
        return GTrXLState(held, valid), ys

    def step(params: Any, state: State, x: Array, start: Array) -> tuple[State, Array]:
        state, ys = unroll(params, state, x[None], jnp.asarray(start)[None])
        return state, ys[0]

    def inspect(params: Any, state: State, x: Array, start: Array) -> dict[str, Array]:
        episode = numbered(state.valid, jnp.asarray(start)[None])
        given = state.held, episode, x[None]
        _, sown = transformer.apply(params, *given, mutable=["intermediates"])
        of_layers = [
            sown["intermediates"][f"layer_{i}"]["attention"]["weights"][0] for i in range(layers)
        ]
        weights = jnp.concatenate(of_layers, axis=1)[0, :, 0]  # [layers * heads, window]
        return {"attention": weights[:, :-1]} if before else {}

    return NeuralMemory(init, initial_state, step, unroll, inspect)
