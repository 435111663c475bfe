"""Recurrent cells whose gates have one matrix for the input and one for the hidden state each."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from memrl_jax import tree
from memrl_jax.memory.base import from_cell
from memrl_jax.types import Array, NeuralMemory, State

Gates = tuple[Array, ...]  # one array per gate
# state, x's parts of the gates, h's parts -> state
CellUpdate = Callable[[State, Gates, Gates], State]


def from_gates(cell: nn.RNNCellBase, names: str, update: CellUpdate) -> NeuralMemory:
    """Make a memory from a flax cell with layers i<name> of the input and h<name> of the state.

    It is `from_cell` except that `unroll` multiplies all inputs by their matrices at once, before
    the loop, and sums the gradients of all matrices after it, which is faster on a CPU.
    Reverse-mode differentiation only.
    """

    def unroll(params: Any, state: State, xs: Array, starts: Array) -> tuple[State, Array]:
        layers = params["params"]
        inputs = tuple(_dense(layers[f"i{name}"], xs) for name in names)
        kernels = tuple(layers[f"h{name}"]["kernel"] for name in names)
        zeros = jnp.zeros(kernels[0].shape[-1], kernels[0].dtype)
        biases = tuple(layers[f"h{name}"].get("bias", zeros) for name in names)
        return scan(update, kernels, biases, state, inputs, starts)

    return from_cell(cell)._replace(unroll=unroll)


def _dense(layer: Any, xs: Array) -> Array:
    y = xs @ layer["kernel"]
    return y + layer["bias"][None] if "bias" in layer else y


def _hidden(state: State) -> Array:
    """Return the hidden state, which in flax is the last part of the state."""
    return jax.tree.leaves(state)[-1]


def _add_to_hidden(state: State, x: Any) -> State:
    leaves, structure = jax.tree.flatten(state)
    return jax.tree.unflatten(structure, [*leaves[:-1], leaves[-1] + x])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def scan(
    update: CellUpdate, kernels: Gates, biases: Gates, state: State, inputs: Gates, starts: Array
) -> tuple[State, Array]:
    """Return the last state and all hidden states [T, features].

    For every gate: `kernels` [features, features], `biases` [features], and `inputs` [T, features],
    the inputs' parts of the gates. `starts` are [T].
    """
    return _forward(update, kernels, biases, state, inputs, starts)[0]


def _forward(
    update: CellUpdate, kernels: Gates, biases: Gates, state: State, inputs: Gates, starts: Array
) -> Any:
    def step(state: State, x: tuple[Gates, Array]) -> tuple[State, Any]:
        of_input, start = x
        before = tree.where(start, jax.tree.map(jnp.zeros_like, state), state)
        h = _hidden(before)
        of_state = tuple(h @ kernel + bias for kernel, bias in zip(kernels, biases, strict=True))
        state = update(before, of_input, of_state)
        return state, (_hidden(state), before, of_state)

    end, (hs, before, of_states) = jax.lax.scan(step, state, (inputs, starts))
    return (end, hs), (kernels, before, inputs, of_states, starts)


def _backward(update: CellUpdate, kept: Any, gradients: Any) -> Any:
    kernels, before, inputs, of_states, starts = kept
    grad_end, grad_hs = gradients
    # Transposed here, once: a product with a transposed matrix costs twice as much in the loop.
    backwards = tuple(kernel.T for kernel in kernels)

    def step(grad_state: State, x: Any) -> tuple[State, Any]:
        before, of_input, gates, start, grad_h = x
        _, pull = jax.vjp(update, before, of_input, gates)
        grad_before, grad_input, grad_gates = pull(_add_to_hidden(grad_state, grad_h))
        through = sum(g @ kernel for g, kernel in zip(grad_gates, backwards, strict=True))
        grad_before = _add_to_hidden(grad_before, through)
        grad_before = tree.where(start, jax.tree.map(jnp.zeros_like, grad_before), grad_before)
        return grad_before, (grad_input, grad_gates)

    kept_by_step = before, inputs, of_states, starts, grad_hs
    grad_state, (grad_inputs, grad_gates) = jax.lax.scan(step, grad_end, kept_by_step, reverse=True)
    # One product over all steps instead of one per step.
    grad_kernels = tuple(_hidden(before).T @ g for g in grad_gates)
    grad_biases = tuple(g.sum(axis=0) for g in grad_gates)
    return grad_kernels, grad_biases, grad_state, grad_inputs, None


scan.defvjp(_forward, _backward)
