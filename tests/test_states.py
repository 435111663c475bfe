"""The states of memories that users write: what becomes an array, and what is refused."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from memrl_jax.memory import DIAGONAL, from_cell, from_monoid, from_step, stack
from memrl_jax.memory.states import checked
from memrl_jax.networks import recurrent
from memrl_jax.tasks import make_probe, remember_first
from memrl_jax.types import NeuralMemory, TimeStep

T = 3
X, XS, STARTS = jnp.ones(2), jnp.ones((T, 2)), jnp.arange(T) == 1
START = STARTS[0]


def no_params(key: Any, x: Any) -> Any:
    return {}


def stepping(start: Any, change: Callable[[Any], Any]) -> NeuralMemory:
    """Make a memory of any first state and of how a step changes it."""
    return from_step(no_params, lambda: start, lambda params, state, x: (change(state), x))


def by_hand(start: Any, change: Callable[[Any], Any]) -> NeuralMemory:
    """Make the same without `from_step`: its functions look at nothing."""

    def step(params: Any, state: Any, x: Any, start: Any) -> Any:
        return change(state), x

    return NeuralMemory(no_params, lambda: start, step, unroll=step)


MAKERS = {"from_step": stepping, "by hand": lambda *given: checked(by_hand(*given))}
every_maker = pytest.mark.parametrize("maker", MAKERS)


def run(memory: NeuralMemory) -> tuple[Any, Any, Any]:
    """Return the first state, that after a step and that after all."""
    state = memory.initial_state()
    one, _ = memory.step({}, state, X, START)
    return state, one, memory.unroll({}, state, XS, STARTS)[0]


STATES: dict[str, tuple[Any, str]] = {
    "an int": (0, "int32"),
    "a float": (0.0, "float32"),
    "a bool": (True, "bool"),
    "an array of NumPy": (np.zeros(3), "float32"),
    "a number of NumPy": (np.int64(1), "int32"),
    "a weakly typed array": (jnp.asarray(1.0), "float32"),
}


@every_maker
@pytest.mark.parametrize("name", STATES)
def test_numbers_become_arrays_with_a_dtype_of_their_own(maker: str, name: str) -> None:
    start, dtype = STATES[name]
    for state in run(MAKERS[maker]((start, ()), lambda state: (start, ()))):
        assert isinstance(state[0], jax.Array)
        assert (state[0].dtype, state[0].weak_type) == (dtype, False)
        assert state[0].shape == np.shape(start) and state[1] == ()


def test_a_count_that_is_written_as_a_number_counts() -> None:
    _, one, end = run(stepping({"steps": 0}, lambda state: {"steps": state["steps"] + 1}))
    assert (one["steps"], end["steps"]) == (1, 2)  # the second of three inputs is a start


def test_keys_are_kept_as_they_are() -> None:
    state, one, _ = run(stepping(jax.random.key(3), lambda state: state))
    assert state.dtype == one.dtype == jax.random.key(0).dtype


CHANGED: dict[str, tuple[Any, Any, str]] = {
    "dtype": (0, 0.5, "state becomes float32[], but initial_state gives int32[]"),
    "dtype of a leaf": (
        {"a": 0.0, "b": (np.zeros(3), True)},
        {"a": 0.0, "b": (np.zeros(3), 1)},
        "state['b'][1] becomes int32[], but initial_state gives bool[]",
    ),
    "shape": ([np.zeros(3)], [np.zeros(4)], "state[0] becomes float32[4], but initial_state gives"),
    "rank": (0.0, np.zeros(3), "state becomes float32[3], but initial_state gives float32[]"),
    "structure": (
        {"h": 0.0},
        {"h": 0.0, "t": 0},
        "the state becomes PyTreeDef({'h': *, 't': *}), but initial_state gives PyTreeDef({'h': *}",
    ),
    "no array": (0.0, "x", "state is of type str, no array of numbers"),
}


def one_line(raised: Any) -> str:
    assert raised.type is ValueError
    message = str(raised.value)
    assert "\n" not in message
    return message


@every_maker
@pytest.mark.parametrize("method", ["step", "unroll"])
@pytest.mark.parametrize("name", CHANGED)
def test_a_step_keeps_the_kind_of_state_it_was_given(maker: str, method: str, name: str) -> None:
    start, after, message = CHANGED[name]
    memory = MAKERS[maker](start, lambda state: after)
    given = (X, START) if method == "step" else (XS, STARTS)
    with pytest.raises(ValueError) as raised:
        jax.eval_shape(getattr(memory, method), {}, memory.initial_state(), *given)
    field = method if maker == "by hand" else "step"
    assert one_line(raised).startswith(f"{field}: {message}")


@every_maker
@pytest.mark.parametrize("leaf", ["x", object(), np.array([None]), 2**40])
def test_an_initial_state_consists_of_numbers(maker: str, leaf: Any) -> None:
    with pytest.raises(ValueError) as raised:
        MAKERS[maker]({"h": leaf}, lambda state: state).initial_state()
    kind = type(leaf).__name__
    assert one_line(raised) == f"initial_state: state['h'] is of type {kind}, no array of numbers"


class Half(nn.Module):
    """Keeps half of the state and adds the input."""

    def lift(self, x: Any) -> Any:
        return 0.5 * jnp.ones_like(x), x

    def read(self, state: Any, x: Any) -> Any:
        return state


@pytest.mark.parametrize("scan", ["sequential", "associative"])
def test_updates_keep_the_kind_of_state_they_are_applied_to(scan: Any) -> None:
    memory = from_monoid(DIAGONAL, Half(), lambda: np.zeros(2), scan)
    _, one, end = run(memory)
    np.testing.assert_array_equal((one, end), ([1, 1], [1.5, 1.5]))
    memory = from_monoid(DIAGONAL, Half(), lambda: 0.0, scan)
    for method, given in (("step", (X, START)), ("unroll", (XS, STARTS))):
        with pytest.raises(ValueError) as raised:
            jax.eval_shape(getattr(memory, method), {}, memory.initial_state(), *given)
        expected = "apply: state becomes float32[2], but initial_state gives float32[]"
        assert one_line(raised) == expected


def test_cells_may_begin_from_numpys_zeros() -> None:
    class Cell(nn.SimpleCell):
        def initialize_carry(self, key: Any, shape: Any) -> Any:
            return np.zeros(self.features)

    state = from_cell(Cell(4)).initial_state()
    assert isinstance(state, jax.Array) and state.dtype == jnp.float32


RAW = by_hand(0, lambda state: state + 1)
BROKEN = by_hand(0, lambda state: state + 0.5)


class Reward(nn.Module):
    """Sees rewards only."""

    def __call__(self, timestep: Any) -> Any:
        return timestep.reward[..., None]


def in_a_network(memory: NeuralMemory) -> Any:
    network = recurrent(Reward(), memory, nn.Dense(1))
    zeros, no = jnp.zeros(2), jnp.zeros(2, bool)
    timestep = TimeStep(zeros, zeros, zeros, zeros, no, no)
    params = network.init(jax.random.key(0), timestep)
    return network.step(params, network.initial_state(2), timestep)


def in_a_stack(memory: NeuralMemory) -> Any:
    layers = stack([memory], features=2)
    params = layers.init(jax.random.key(0), X)
    return layers.step(params, layers.initial_state(), X, START)


def in_a_probe(memory: NeuralMemory) -> Any:
    task = remember_first(T)
    probe = make_probe(task, memory, width=2)
    params = probe.init(jax.random.key(0)).params
    return probe.predict_stepwise(params, jnp.zeros((T, task.inputs)))


@pytest.mark.parametrize("use", [in_a_network, in_a_stack, in_a_probe])
def test_what_takes_a_memory_made_by_hand_checks_it(use: Callable[[NeuralMemory], Any]) -> None:
    assert jax.eval_shape(partial(use, RAW))
    with pytest.raises(ValueError) as raised:
        jax.eval_shape(partial(use, BROKEN))
    expected = "step: state becomes float32[], but initial_state gives int32[]"
    assert one_line(raised) == expected
