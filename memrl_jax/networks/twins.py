"""Two networks side by side, or two heads on one memory's output."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from memrl_jax import draws
from memrl_jax.types import Array, Key, Network, State, TimeStep


def twins(network: Network) -> Network:
    """Return two copies of a network, with different parameters, as one network.

    Parameters are [2, ...], states [B, 2, ...], outputs [2, ...]. `inspect` returns {}.
    """

    def init(key: Key, timestep: TimeStep, *inputs: Any) -> Any:
        return jax.vmap(lambda key: network.init(key, timestep, *inputs))(draws.split(key))

    def initial_state(batch: int) -> State:
        state = network.initial_state(batch)
        return jax.tree.map(lambda x: jnp.stack([x, x], axis=1), state)

    def step(params: Any, state: State, timestep: TimeStep, *inputs: Any) -> tuple[State, Any]:
        def one(params: Any, state: State) -> tuple[State, Any]:
            return network.step(params, state, timestep, *inputs)

        return jax.vmap(one, in_axes=(0, 1), out_axes=(1, 0))(params, state)

    def unroll(params: Any, state: State, timestep: TimeStep, *inputs: Any) -> tuple[State, Any]:
        def one(params: Any, state: State) -> tuple[State, Any]:
            return network.unroll(params, state, timestep, *inputs)

        return jax.vmap(one, in_axes=(0, 1), out_axes=(1, 0))(params, state)

    return Network(init, initial_state, step, unroll)


class TwinHeads(nn.Module):
    """Two heads, which must be distinct objects, on the same memory output."""

    one: nn.Module
    other: nn.Module

    @nn.compact
    def __call__(self, x: Array, *inputs: Any) -> Array:
        """Return the outputs of both heads, [2, ...], from `x` [..., D]."""
        return jnp.stack([self.one(x, *inputs), self.other(x, *inputs)])
