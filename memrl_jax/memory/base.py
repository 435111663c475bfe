"""How memories are made: from a step function, or from any flax recurrent cell."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from memrl_jax import tree
from memrl_jax.checks import at_least
from memrl_jax.types import Array, Key, NeuralMemory, State


def from_step(
    init: Callable[..., Any], initial_state: Callable[[], State], step: Callable[..., Any]
) -> NeuralMemory:
    """Make a memory from one step `(params, state, x [D]) -> (state, y)` that knows no resets."""

    def reset_step(params: Any, state: State, x: Array, start: Array) -> tuple[State, Array]:
        return step(params, tree.where(start, initial_state(), state), x)

    def unroll(params: Any, state: State, xs: Array, starts: Array) -> tuple[State, Array]:
        return jax.lax.scan(lambda state, x: reset_step(params, state, *x), state, (xs, starts))

    return NeuralMemory(init, initial_state, reset_step, unroll)


def from_cell(cell: nn.RNNCellBase) -> NeuralMemory:
    """Make a memory from a flax recurrent cell whose carry does not depend on the input's size."""

    # One seed after another, also under vmap: the cells' orthogonal initializers factorize, and on
    # a CPU of two cores several batched factorizations at once can wait for each other for ever.
    @jax.custom_batching.sequential_vmap
    def init(key: Key, x: Array) -> Any:
        return cell.init(key, initial_state(), x)

    def initial_state() -> State:
        # The cells of flax start from zeros; the key and the input's size do not matter.
        return cell.initialize_carry(jax.random.key(0), (1,))

    def step(params: Any, state: State, x: Array) -> Any:
        return cell.apply(params, state, x)

    return from_step(init, initial_state, step)


def with_horizon(
    memory: NeuralMemory, features: int, horizon: int | None, gates: Mapping[str, int]
) -> NeuralMemory:
    """Begin with gates that keep what a unit holds for up to `horizon` steps; None changes nothing.

    `gates` names the layers of a flax cell whose bias becomes +log u or -log u, with one u
    [features] drawn uniformly from 1 to horizon - 1: such a gate forgets by 1 / (1 + u) a step, so
    units keep for different times. Raises ValueError for a horizon below 3.
    Tallec & Ollivier (2018), equation 16.
    """
    if horizon is None:
        return memory
    last = at_least("horizon", horizon, 3) - 1.0

    def init(key: Key, x: Array) -> Any:
        cell_key, bias_key = jax.random.split(key)
        params = memory.init(cell_key, x)["params"]
        keep = jnp.log(jax.random.uniform(bias_key, (features,), jnp.float32, 1.0, last))
        biased = {name: params[name] | {"bias": sign * keep} for name, sign in gates.items()}
        return {"params": params | biased}

    return memory._replace(init=init)
