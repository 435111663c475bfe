"""A stack of memories around a residual stream."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from memrl_jax import draws
from memrl_jax.checks import at_least, positive, typed
from memrl_jax.memory.states import checked
from memrl_jax.types import Array, Key, NeuralMemory, State


class _Merge(nn.Module):
    """The gate through which a layer's output is added to the residual stream."""

    features: int

    @nn.compact
    def __call__(self, y: Array) -> Array:
        y = nn.gelu(y)
        return nn.Dense(self.features)(y) * nn.sigmoid(nn.Dense(self.features)(y))


class _FeedForward(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.Dense(x.shape[-1])(nn.gelu(nn.Dense(self.width)(nn.LayerNorm()(x))))


@typed
def stack(layers: Sequence[NeuralMemory], features: int = 64, feedforward: int = 0) -> NeuralMemory:
    """Stack memories around a residual stream: output [features].

    A linear layer maps the input to the stream. Every layer reads the normalized stream, and its
    gated output is added to the stream. With `feedforward` above 0, a network with one hidden layer
    of that width follows every layer, and its output is added, too. The state is a tuple of the
    layers' states. Raises ValueError without layers.
    Norms before layers: Xiong et al. (2020); the gate: Smith et al. (2023), appendix G.1, with a
    second linear map of the gated values, as "full_glu" in the authors' code.
    """
    positive("len(layers)", len(layers))
    layers = [checked(layer) for layer in layers]
    into = nn.Dense(positive("features", features))
    norm = nn.LayerNorm()
    merge = _Merge(features)
    after = _FeedForward(at_least("feedforward", feedforward, 0))

    def init(key: Key, x: Array) -> Any:
        key, into_key = draws.split(key)
        into_params = into.init(into_key, x)
        x = jnp.asarray(into.apply(into_params, x))
        keys = draws.split(key, len(layers))
        of_layers = [_layer(*pair, x) for pair in zip(layers, keys, strict=True)]
        return {"into": into_params, "layers": of_layers}

    def _layer(layer: NeuralMemory, key: Key, x: Array) -> Any:
        norm_key, key, merge_key, after_key = draws.split(key, 4)
        params = {"norm": norm.init(norm_key, x), "memory": layer.init(key, x)}
        start = jnp.zeros((), bool)
        _, y = layer.step(params["memory"], layer.initial_state(), x, start)
        params["merge"] = merge.init(merge_key, y)
        return params | ({"feedforward": after.init(after_key, x)} if feedforward else {})

    def initial_state() -> State:
        return tuple(layer.initial_state() for layer in layers)

    def through(runs: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
        def run(params: Any, states: State, x: Any, start: Array) -> tuple[State, Array]:
            x = into.apply(params["into"], x)
            after_states = []
            for layer, p, state in zip(runs, params["layers"], states, strict=True):
                state, y = layer(p["memory"], state, norm.apply(p["norm"], x), start)
                after_states.append(state)
                x = x + merge.apply(p["merge"], y)
                if feedforward:
                    x = x + after.apply(p["feedforward"], x)
            return tuple(after_states), x

        return run

    steps, unrolls = [layer.step for layer in layers], [layer.unroll for layer in layers]
    return NeuralMemory(init, initial_state, through(steps), through(unrolls))
