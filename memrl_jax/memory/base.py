"""How memories are made: from a step function, a flax recurrent cell, or a monoid."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from memrl_jax import draws, tree
from memrl_jax.checks import at_least, typed
from memrl_jax.memory import monoid as monoids
from memrl_jax.memory.monoid import Monoid, Scan
from memrl_jax.memory.states import explicit, like
from memrl_jax.types import Array, Key, NeuralMemory, State


@typed
def from_step(
    init: Callable[..., Any],
    initial_state: Callable[[], State],
    step: Callable[..., Any],
    inspect: Callable[..., dict[str, Array]] | None = None,
) -> NeuralMemory:
    """Make a memory from a step `(params, state, x [D]) -> (state, y)`, and add resets.

    `inspect` takes the same arguments and need not reset, either (see `NeuralMemory`). States are
    checked as by `states.checked`.
    """
    initial_state = explicit(initial_state)

    def reset_step(params: Any, state: State, x: Array, start: Array) -> tuple[State, Array]:
        before = tree.where(start, initial_state(), state)
        after, y = step(params, before, x)
        return like("step", before, after), y

    def unroll(params: Any, state: State, xs: Array, starts: Array) -> tuple[State, Array]:
        return jax.lax.scan(lambda state, x: reset_step(params, state, *x), state, (xs, starts))

    memory = NeuralMemory(init, initial_state, reset_step, unroll)
    if inspect is None:
        return memory

    def reset_inspect(params: Any, state: State, x: Array, start: Array) -> dict[str, Array]:
        return inspect(params, tree.where(start, initial_state(), state), x)

    return memory._replace(inspect=reset_inspect)


@typed
def from_cell(cell: nn.RNNCellBase) -> NeuralMemory:
    """Make a memory from a flax recurrent cell whose carry does not depend on the input's size."""

    # One seed after another, even under vmap: the cells' orthogonal initializers factorize, and on
    # a CPU of two cores several batched factorizations at once can deadlock.
    @jax.custom_batching.sequential_vmap
    def init(key: Key, x: Array) -> Any:
        return cell.init(key, initial_state(), x)

    def initial_state() -> State:
        # Flax cells start from zeros, whatever the key and the input's size.
        return cell.initialize_carry(jax.random.key(0), (1,))

    def step(params: Any, state: State, x: Array) -> Any:
        return cell.apply(params, state, x)

    return from_step(init, initial_state, step)


@typed
def from_monoid(
    monoid: Monoid, cell: nn.Module, initial_state: Callable[[], State], scan: Scan = "auto"
) -> NeuralMemory:
    """Make a memory whose updates form a monoid, so that `unroll` is a scan.

    `cell` is a linen module with the methods `lift(x) -> update` and `read(reading, x) -> y`, which
    accept any leading axes, because they are applied to a whole sequence at once. The reading is
    the state after the update, or what the monoid's `query` takes from it. Every part of an update
    has the leading axes of `x`, constants included (`jnp.broadcast_to`). `scan` is "sequential" (a
    loop), "associative" (a tree), "chunked" (a loop over products of matrices, if the monoid has a
    `chunk`) or "auto": chunks if there can be, on a CPU of long sequences alone; else a loop on a
    CPU, a tree on other platforms (JAX's default one counts). Raises ValueError for another `scan`;
    states are checked as by `states.checked`.
    Martin & Cundy (2018), section 2; Blelloch (1990), section 1.4.
    """
    monoids.possible(monoid, scan)
    initial_state = explicit(initial_state)

    def apply(state: State, update: Any) -> State:
        return like("apply", state, monoid.apply(state, update))

    keeping = monoid._replace(apply=apply)

    def init(key: Key, x: Array) -> Any:
        def once(cell: Any, x: Array) -> Array:
            return cell.read(monoid.query(initial_state(), cell.lift(x)), x)

        return cell.init(key, x, method=once)

    def step(params: Any, state: State, x: Array, start: Array) -> tuple[State, Array]:
        update = cell.apply(params, x, method="lift")
        state = apply(tree.where(start, initial_state(), state), update)
        return state, _read(params, monoid.query(state, update), x)

    def unroll(params: Any, state: State, xs: Array, starts: Array) -> tuple[State, Array]:
        updates = cell.apply(params, xs, method="lift")
        state, readings = monoids.scan(keeping, scan, initial_state(), state, updates, starts)
        return state, _read(params, readings, xs)

    def _read(params: Any, reading: Any, x: Array) -> Any:
        return cell.apply(params, reading, x, method="read")

    return NeuralMemory(init, initial_state, step, unroll)


def with_horizon(
    memory: NeuralMemory, features: int, horizon: int | None, gates: Mapping[str, int]
) -> NeuralMemory:
    """Initialize gates so that units remember for up to `horizon` steps; None changes nothing.

    `gates` maps the names of layers to +1 or -1: their bias becomes +log u or -log u, with one u
    [features] drawn uniformly from 1 to horizon - 1. Such a gate forgets by 1 / (1 + u) a step, so
    units remember for different times. Raises ValueError for a horizon below 3.
    Tallec & Ollivier (2018), equation 16.
    """
    if horizon is None:
        return memory
    last = at_least("horizon", horizon, 3) - 1.0

    def init(key: Key, x: Array) -> Any:
        cell_key, bias_key = draws.split(key)
        params = memory.init(cell_key, x)["params"]
        keep = jnp.log(draws.uniform(bias_key, (features,), jnp.float32, 1.0, last))
        biased = {name: params[name] | {"bias": sign * keep} for name, sign in gates.items()}
        return {"params": params | biased}

    return memory._replace(init=init)
