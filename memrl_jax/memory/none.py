"""The empty memory, which makes any agent feed-forward."""

from typing import Any

from memrl_jax.types import Array, Key, NeuralMemory


def none() -> NeuralMemory:
    """Pass every input through and remember nothing: the state is `()`."""

    def init(key: Key, x: Array) -> Any:
        return ()

    def initial_state() -> Any:
        return ()

    def through(params: Any, state: Any, x: Array, start: Array) -> tuple[Any, Array]:
        return state, x

    return NeuralMemory(init, initial_state, step=through, unroll=through)
