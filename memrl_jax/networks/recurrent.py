"""An encoder of timesteps, a memory and a head as one network."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from memrl_jax import draws
from memrl_jax.memory.states import checked
from memrl_jax.types import Array, Key, Network, NeuralMemory, State, TimeStep


def recurrent(encoder: nn.Module, memory: NeuralMemory, head: nn.Module) -> Network:
    """Put a memory between an encoder of timesteps and a head; memory `none` is feed-forward.

    `encoder(timestep)` returns features [..., D]; `head(y, *inputs)` takes the memory's output and
    the `inputs` that the caller passes to `init`, `step` or `unroll`, with the leading axes of the
    timestep. Parameters are {"encoder", "memory", "head"}. The memory's states are checked, see
    `memory.states.checked`.
    """
    memory = checked(memory)

    def init(key: Key, timestep: TimeStep, *inputs: Any) -> Any:
        encoder_key, memory_key, head_key = draws.split(key, 3)
        encoder_params = encoder.init(encoder_key, timestep)
        x = encoder.apply(encoder_params, timestep)
        memory_params = memory.init(memory_key, x[0])
        _, y = memory.step(memory_params, memory.initial_state(), x[0], timestep.start[0])
        head_params = head.init(head_key, y, *jax.tree.map(lambda x: x[0], inputs))
        return {"encoder": encoder_params, "memory": memory_params, "head": head_params}

    def initial_state(batch: int) -> State:
        state = memory.initial_state()
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *x.shape)), state)

    def step(params: Any, state: State, timestep: TimeStep, *inputs: Any) -> tuple[State, Any]:
        x = encoder.apply(params["encoder"], timestep)
        over_batch = jax.vmap(memory.step, in_axes=(None, 0, 0, 0))
        state, y = over_batch(params["memory"], state, x, timestep.start)
        return state, head.apply(params["head"], y, *inputs)

    def unroll(params: Any, state: State, timestep: TimeStep, *inputs: Any) -> tuple[State, Any]:
        xs = encoder.apply(params["encoder"], timestep)
        over_batch = jax.vmap(memory.unroll, in_axes=(None, 0, 1, 1), out_axes=(0, 1))
        state, ys = over_batch(params["memory"], state, xs, timestep.start)
        return state, head.apply(params["head"], ys, *inputs)

    def inspect(params: Any, state: State, timestep: TimeStep) -> dict[str, Array]:
        x = encoder.apply(params["encoder"], timestep)
        over_batch = jax.vmap(memory.inspect, in_axes=(None, 0, 0, 0))
        return over_batch(params["memory"], state, x, timestep.start)

    return Network(init, initial_state, step, unroll, inspect)
