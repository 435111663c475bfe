"""Controllers: networks that read and write an external memory."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from memrl_jax import tree
from memrl_jax.memory.lstm import update
from memrl_jax.types import Array, Key, NeuralMemory, State

CLIP = 20.0
CONTROLLERS = {"lstm": "ifgo", "feedforward": "h"}  # name -> its gates


class Controller(nn.Module):
    """One hidden layer, an LSTM or feedforward, that sees the input and the last reads.

    Every gate has a dense layer for the input, which may be applied to a whole sequence at once,
    and one for the last reads and, in an LSTM, the hidden state.
    """

    kind: str  # one of CONTROLLERS
    hidden: int

    def setup(self) -> None:
        """Make the layers."""
        gates = CONTROLLERS[self.kind]
        self.of_input = [nn.Dense(self.hidden, use_bias=False, name=f"i{g}") for g in gates]
        self.of_past = [nn.Dense(self.hidden, name=f"h{g}") for g in gates]

    def initial_state(self) -> State:
        """Return an LSTM's state (c, h), zeros [hidden] each; () if feedforward."""
        zeros = jnp.zeros(self.hidden, jnp.float32)
        return (zeros, zeros) if self.kind == "lstm" else ()

    def encode(self, x: Array) -> tuple[Array, ...]:
        """Return the part of every gate that comes from x [..., D], [..., hidden] each."""
        return tuple(layer(x) for layer in self.of_input)

    def __call__(
        self, state: State, encoded: tuple[Array, ...], reads: Array
    ) -> tuple[State, Array]:
        """Return the next state and the hidden layer [hidden], from reads [heads, width]."""
        past = jnp.concatenate([*state[1:], reads.reshape(-1)])
        gates = tuple(layer(past) for layer in self.of_past)
        if self.kind == "feedforward":
            return (), nn.relu(encoded[0] + gates[0])
        state = update(state, encoded, gates)
        return state, state[1]


def from_controlled(
    cell: nn.Module,
    initial_state: Callable[[], State],
    inspect: Callable[[State], dict[str, Array]],
) -> NeuralMemory:
    """Make a memory from a linen module of which only the middle part runs step by step.

    Its methods are `encode(x) -> encoded` and `decode(hidden) -> y`, for inputs and outputs
    [..., D], and `step(state, encoded) -> (state, hidden)`, for one step. `inspect` is given the
    state after a step.
    """

    def init(key: Key, x: Array) -> Any:
        def once(cell: Any, x: Array) -> Array:
            return cell.decode(cell.step(initial_state(), cell.encode(x))[1])

        return cell.init(key, x, method=once)

    def run(method: str, params: Any, *arguments: Any) -> Any:
        return cell.apply(params, *arguments, method=method)

    def fresh(start: Array, state: State) -> State:
        return tree.where(start, initial_state(), state)

    def step(params: Any, state: State, x: Array, start: Array) -> tuple[State, Any]:
        state, hidden = run("step", params, fresh(start, state), run("encode", params, x))
        return state, run("decode", params, hidden)

    def unroll(params: Any, state: State, xs: Array, starts: Array) -> tuple[State, Any]:
        # The way back computes a step anew from what came into it: keeping more takes longer.
        @partial(jax.checkpoint, prevent_cse=False)
        def advance(state: State, x: tuple[Any, Array]) -> tuple[State, Any]:
            encoded, start = x
            return run("step", params, fresh(start, state), encoded)

        state, hidden = jax.lax.scan(advance, state, (run("encode", params, xs), starts))
        return state, run("decode", params, hidden)

    def inspected(params: Any, state: State, x: Array, start: Array) -> dict[str, Array]:
        return inspect(step(params, state, x, start)[0])

    return NeuralMemory(init, initial_state, step, unroll, inspected)


def clipped(x: Array) -> Array:
    """Clip numbers [...] to -20 and 20, beyond which activations only saturate."""
    return jnp.clip(x, -CLIP, CLIP)
