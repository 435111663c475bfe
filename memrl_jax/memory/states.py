"""Checks of memory states: arrays whose structure, shapes and dtypes never change."""

from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from memrl_jax.types import Array, NeuralMemory, State


def checked(memory: NeuralMemory) -> NeuralMemory:
    """Return the memory with checks that its states keep the form of its initial state.

    Numbers in the initial state, Python's or NumPy's, become arrays. Raises ValueError, when
    traced, for what is not a number, and where `step` or `unroll` returns a state of another
    structure, shape or dtype than it was given.
    """

    def keeping(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def kept(params: Any, state: State, x: Array, start: Array) -> tuple[State, Any]:
            after, y = run(params, state, x, start)
            return like(name, state, after), y

        return kept

    initial_state, runs = explicit(memory.initial_state), (memory.step, memory.unroll)
    step, unroll = (keeping(*pair) for pair in zip(("step", "unroll"), runs, strict=True))
    return memory._replace(initial_state=initial_state, step=step, unroll=unroll)


def explicit(initial_state: Callable[[], State]) -> Callable[[], State]:
    """Make every leaf of an initial state an array whose dtype is not weak."""
    return lambda: _arrays("initial_state", initial_state())


def like(name: str, before: State, after: State) -> State:
    """Return `after`, the state that `name` returned, if it has the form of `before`."""
    after = _arrays(name, after)
    structures: Any = jax.tree.structure(before), jax.tree.structure(after)
    if structures[0] != structures[1]:
        _differs(name, "the state", *structures)
    leaves = jax.tree_util.tree_leaves_with_path(before)
    for (path, x), y in zip(leaves, jax.tree.leaves(after), strict=True):
        if _kind(x) != _kind(y):
            _differs(name, _leaf(path), _kind(x), _kind(y))
    return after


def _differs(name: str, what: str, before: Any, after: Any) -> NoReturn:
    message = f"{name}: {what} becomes {after}, but initial_state gives {before}"
    raise ValueError(" ".join(message.split()))


def _arrays(name: str, state: State) -> State:
    def array(path: Any, x: Any) -> Array:
        try:
            x = jnp.asarray(x)
        except (TypeError, ValueError, OverflowError):
            kind = type(x).__name__
            raise ValueError(
                f"{name}: {_leaf(path)} is of type {kind}, no array of numbers"
            ) from None
        return jnp.asarray(x, x.dtype)  # no longer weakly typed

    return jax.tree_util.tree_map_with_path(array, state)


def _leaf(path: Any) -> str:
    return f"state{jax.tree_util.keystr(path)}"


def _kind(x: Any) -> str:
    return f"{jnp.result_type(x)}{list(jnp.shape(x))}"
