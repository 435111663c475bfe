"""What reads and writes an external memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from memrl_jax.memory.lstm import update
from memrl_jax.types import Array, Key, NeuralMemory, State

CLIP = 20.0
CONTROLLERS = {"lstm": "ifgo", "feedforward": "h"}  # and their gates


class Controller(nn.Module):
    """One hidden layer that sees the input and what was read, with or without a memory of its own.

    Every gate has a layer for the input, which may be applied to a whole sequence at once, and one
    for what comes back: what was read and, in an LSTM, the hidden state.
    """

    kind: str  # one of CONTROLLERS
    hidden: int

    def setup(self) -> None:
        """Make the layers."""
        gates = CONTROLLERS[self.kind]
        self.of_input = [nn.Dense(self.hidden, use_bias=False, name=f"i{g}") for g in gates]
        self.of_past = [nn.Dense(self.hidden, name=f"h{g}") for g in gates]

    def initial_state(self) -> State:
        """Return an LSTM's state of zeros, or nothing."""
        zeros = jnp.zeros(self.hidden, jnp.float32)
        return (zeros, zeros) if self.kind == "lstm" else ()

    def look(self, x: Array) -> tuple[Array, ...]:
        """Return the input's part of every gate, [..., hidden] each."""
        return tuple(layer(x) for layer in self.of_input)

    def __call__(self, state: State, seen: tuple[Array, ...], reads: Array) -> tuple[State, Array]:
        """Return the next state and [hidden]."""
        past = jnp.concatenate([*state[1:], reads.reshape(-1)])
        gates = tuple(layer(past) for layer in self.of_past)
        if self.kind == "feedforward":
            return (), nn.relu(seen[0] + gates[0])
        state = update(state, seen, gates)
        return state, state[1]


def from_controlled(
    cell: nn.Module,
    initial_state: Callable[[], State],
    inspect: Callable[[State], dict[str, Array]],
) -> NeuralMemory:
    """Make a memory from a linen module of which only the middle goes step by step.

    It has the methods `look(x) -> seen` and `say(told) -> y`, for any leading axes, and
    `turn(state, seen, start) -> (state, told)`. `inspect` tells of the state after a step.
    """

    def init(key: Key, x: Array) -> Any:
        def once(cell: Any, x: Array) -> Array:
            return cell.say(cell.turn(initial_state(), cell.look(x), jnp.zeros((), bool))[1])

        return cell.init(key, x, method=once)

    def turn(params: Any, state: State, seen: Any, start: Array) -> Any:
        return cell.apply(params, state, seen, start, method="turn")

    def unroll(params: Any, state: State, xs: Array, starts: Array) -> tuple[State, Any]:
        seen = cell.apply(params, xs, method="look")
        state, told = jax.lax.scan(lambda s, x: turn(params, s, *x), state, (seen, starts))
        return state, cell.apply(params, told, method="say")

    def step(params: Any, state: State, x: Array, start: Array) -> tuple[State, Any]:
        seen = cell.apply(params, x, method="look")
        state, told = turn(params, state, seen, start)
        return state, cell.apply(params, told, method="say")

    def inspected(params: Any, state: State, x: Array, start: Array) -> dict[str, Array]:
        return inspect(step(params, state, x, start)[0])

    return NeuralMemory(init, initial_state, step, unroll, inspected)


def clipped(x: Array) -> Array:
    """Keep every number between -20 and 20, beyond which activations only saturate."""
    return jnp.clip(x, -CLIP, CLIP)
