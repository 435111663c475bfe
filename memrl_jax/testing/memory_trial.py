"""A memory to be tried out: with parameters, compiled, and after some random inputs."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax.environments.check import alike
from memrl_jax.environments.declared import blamed
from memrl_jax.memory.states import checked, explicit
from memrl_jax.types import NeuralMemory

T, BATCH = 17, 4  # steps of a short sequence; sequences at once
RESET = 5  # where an episode begins in them


class Trial(NamedTuple):
    """A memory with parameters and compiled functions, and what is tried with them."""

    name: str  # what messages begin with
    memory: NeuralMemory
    params: Any
    init: Any  # key, x [D] -> params
    step: Any  # state, x, start -> (state, y)
    unroll: Any  # state, xs, starts -> (state, ys)
    batched_unroll: Any  # the same for BATCH sequences, with the batch axis first
    gradients: Any  # params, state, xs [T, D], starts -> those of outputs from RESET on
    state: Any  # not the initial one: that after T random inputs
    states: Any  # BATCH of them
    inputs: Callable[..., tuple[Any, Any]]  # seed, *shape -> xs [..., D], starts [...]


def try_out(memory: NeuralMemory, width: int, seed: int = 0, name: str = "memory") -> Trial:
    """Check the forms of what a memory returns, and compile it for inputs [..., D = `width`].

    Raises ValueError as `check_memory` does.
    """
    _check_forms(memory, width, name)
    memory = checked(memory)
    init = jax.jit(memory.init)
    params = init(jax.random.key(seed), jnp.zeros(width))
    step, unroll = (jax.jit(partial(run, params)) for run in (memory.step, memory.unroll))
    batched = jax.jit(partial(jax.vmap(memory.unroll, (None, 0, 0, 0)), params))
    draw = partial(inputs, width)
    state = memory.initial_state()
    states = jax.tree.map(lambda x: jnp.broadcast_to(x, (BATCH, *x.shape)), state)
    busy, _ = unroll(state, draw(9, T)[0], np.zeros(T, bool))
    many, _ = batched(states, draw(9, BATCH, T)[0], np.zeros((BATCH, T), bool))
    gradients = jax.jit(partial(late_gradients, memory.unroll))
    return Trial(name, memory, params, init, step, unroll, batched, gradients, busy, many, draw)


def inputs(width: int, seed: int, *shape: int) -> tuple[Any, Any]:
    """Draw xs [..., D = `width`] and starts [...], a fifth of them true."""
    rng = np.random.default_rng(seed)
    xs = rng.normal(size=(*shape, width)).astype(np.float32)
    return xs, rng.uniform(size=shape) < 0.2


def late_gradients(unroll: Any, params: Any, state: Any, xs: Any, starts: Any) -> Any:
    """Return the gradients of outputs from RESET on, by parameters, state and xs [T, D]."""

    def late(params: Any, state: Any, xs: Any) -> Any:
        return jnp.sum(unroll(params, state, xs, starts)[1][RESET:] ** 2)

    return jax.grad(late, (0, 1, 2), allow_int=True)(params, state, xs)


def _check_forms(memory: NeuralMemory, width: int, name: str) -> None:
    """Check structures, shapes and dtypes; nothing is compiled or run."""
    shape = jax.ShapeDtypeStruct
    x, start = shape((width,), jnp.float32), shape((), bool)
    with blamed(f"{name}: initial_state"):
        state = jax.eval_shape(explicit(memory.initial_state))
    with blamed(f"{name}: init"):
        params = jax.eval_shape(memory.init, jax.random.key(0), x)
    after, y = _traced(f"{name}: step", memory.step, params, state, x, start)
    several = shape((T, width), jnp.float32), shape((T,), bool)
    end, ys = _traced(f"{name}: unroll", memory.unroll, params, state, *several)
    alike(f"{name}: step: state", after, state)
    alike(f"{name}: unroll: state", end, state)
    alike(f"{name}: unroll: ys", ys, shape((T, *y.shape), y.dtype))


def _traced(what: str, function: Any, *given: Any) -> tuple[Any, Any]:
    """Return the form of a state and of an output, which has to be one array of features."""
    with blamed(what):
        out = jax.eval_shape(function, *given)
        if not (isinstance(out, tuple) and len(out) == 2):
            raise ValueError(f"{what} gives {type(out).__name__}, not a state and an output")
    if not hasattr(out[1], "dtype"):
        raise ValueError(f"{what} gives an output that is no array")
    return out
