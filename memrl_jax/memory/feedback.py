"""An LSTM that also sees what it last read from memory.

Every query depends on the read before it, so sequences run step by step; but keys and values are
known before the loop, and the gradients of matrices, keys and values are summed after it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from memrl_jax import tree
from memrl_jax.memory.gates import Gates
from memrl_jax.memory.lstm import update
from memrl_jax.types import Array, State

GATES = "ifgo"


def unroll(
    params: Any,
    state: tuple[State, Array],
    xs: Array,
    starts: Array,
    keys: Array,
    values: Array,
    episode: Array,
) -> tuple[tuple[State, Array], Array, Array]:
    """Unroll flax's LSTM on [x, o], where o is what its last hidden state, as a query, has read.

    `xs` are [T, D], `state` is ((c, h), o). Step t attends to rows t to t + M - 1 of keys and
    values [M + T, F]; rows of another `episode` [M + T] count as zeros. Returns the last state and
    all h and o, [T, F]. Reverse-mode differentiation only.
    """
    layers, size = params["params"], xs.shape[-1]
    (c, h), o = state
    of_inputs = [layers[f"i{gate}"]["kernel"] for gate in GATES]
    of_hidden = [layers[f"h{gate}"] for gate in GATES]
    kernels = tuple(
        jnp.concatenate([kernel[size:], layer["kernel"]])
        for kernel, layer in zip(of_inputs, of_hidden, strict=True)
    )
    biases = tuple(layer["bias"] for layer in of_hidden)
    inputs = tuple(xs @ kernel[:size] for kernel in of_inputs)
    steps, reach = len(xs), len(keys) - len(xs)
    same = episode[np.arange(steps)[:, None] + np.arange(reach)] == episode[reach:, None]
    begin = c, jnp.concatenate([o, h])
    (c, end), past = scan(kernels, biases, begin, inputs, keys, values, same, starts)
    o, h = jnp.split(end, 2)
    os, hs = jnp.split(past, 2, axis=-1)
    return ((c, h), o), hs, os


def _forward(
    kernels: Gates,
    biases: Gates,
    state: State,
    inputs: Gates,
    keys: Array,
    values: Array,
    same: Array,
    starts: Array,
) -> Any:
    """Return the last state (c, [o, h]) and all [o, h], [T, 2 F]; and the residuals.

    As in `gates`, `inputs` [T, F] are the inputs' parts of the gates; `same` [T, M] tells which of
    the rows that a step attends to are of its episode.
    """

    def step(state: State, x: Any) -> tuple[State, Any]:
        t, of_input, same, start = x
        before = tree.where(start, jax.tree.map(jnp.zeros_like, state), state)
        past = before[1]
        of_past = tuple(past @ kernel + bias for kernel, bias in zip(kernels, biases, strict=True))
        c, h = update(before, of_input, of_past)
        weights = nn.softmax(_window(keys, t, same) @ h)
        o = weights @ _window(values, t, same)
        state = c, jnp.concatenate([o, h])
        return state, (state[1], before, of_past, weights)

    xs = jnp.arange(len(starts)), inputs, same, starts
    end, (past, before, of_past, weights) = jax.lax.scan(step, state, xs)
    return (end, past), (kernels, keys, values, xs, past, before, of_past, weights)


def _backward(kept: Any, gradients: Any) -> Any:
    kernels, keys, values, xs, past, before, of_past, weights = kept
    grad_end, grad_all = gradients
    backwards = tuple(kernel.T for kernel in kernels)  # transposed once, as in `gates`

    def step(grad_state: State, x: Any) -> tuple[State, Any]:
        (t, of_input, same, start), before, of_past, weights, grad_this = x
        grad_o, grad_h = jnp.split(grad_state[1] + grad_this, 2)
        grad_weights = _window(values, t, same) @ grad_o
        grad_scores = weights * (grad_weights - weights @ grad_weights)
        grad_h += grad_scores @ _window(keys, t, same)
        _, pull = jax.vjp(lambda before, gates: update(before, of_input, gates), before, of_past)
        (grad_c, _), grad_gates = pull((grad_state[0], grad_h))
        through = sum(g @ kernel for g, kernel in zip(grad_gates, backwards, strict=True))
        grad_before = grad_c, through
        grad_before = tree.where(start, jax.tree.map(jnp.zeros_like, grad_before), grad_before)
        return grad_before, (grad_gates, grad_scores, grad_o)

    kept_by_step = xs, before, of_past, weights, grad_all
    grad_state, (grad_gates, grad_scores, grad_os) = jax.lax.scan(
        step, grad_end, kept_by_step, reverse=True
    )
    _, _, same, _ = xs
    # One product over all steps instead of one per step.
    grad_kernels = tuple(before[1].T @ g for g in grad_gates)
    grad_biases = tuple(g.sum(axis=0) for g in grad_gates)
    _, hs = jnp.split(past, 2, axis=-1)
    grad_keys = _spread(jnp.where(same, grad_scores, 0), hs, keys)
    grad_values = _spread(jnp.where(same, weights, 0), grad_os, values)
    # Gates are sums of an input's part and a past's part, so both have the same gradient.
    return grad_kernels, grad_biases, grad_state, grad_gates, grad_keys, grad_values, None, None


def _window(held: Array, t: Array, same: Array) -> Array:
    """Return rows t to t + M - 1 of `held`, zeros where `same` [M] is false: [M, F]."""
    return jnp.where(same[:, None], jax.lax.dynamic_slice_in_dim(held, t, len(same)), 0)


def _spread(weights: Array, xs: Array, held: Array) -> Array:
    """Sum weights[t, m] * xs[t], of [T, M] and [T, F], into rows t + m of [M + T, F], as `held`."""

    def add(total: Array, x: tuple[Array, Array]) -> tuple[Array, None]:
        i, weight = x
        there = jax.lax.dynamic_slice_in_dim(total, i, len(xs)) + weight[:, None] * xs
        return jax.lax.dynamic_update_slice_in_dim(total, there, i, 0), None

    offsets = jnp.arange(weights.shape[1])
    return jax.lax.scan(add, jnp.zeros_like(held), (offsets, weights.T))[0]


scan = jax.custom_vjp(lambda *given: _forward(*given)[0])
scan.defvjp(_forward, _backward)
