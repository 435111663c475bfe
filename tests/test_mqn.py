"""Memory Q-networks against a plain loop, and what they attend to."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.memory import MEMORIES
from memrl_jax.types import NeuralMemory

T, D, F, FRAMES = 17, 3, 6, 5
TIMES = np.arange(T)
each = pytest.mark.parametrize("name", ["mqn", "rmqn", "frmqn"])


class Compiled(NamedTuple):
    """A memory, parameters, and functions compiled."""

    memory: NeuralMemory
    params: Any
    unroll: Any  # params, state, xs, starts
    trace: Any  # state, xs, starts -> attention [T, FRAMES - 1]
    gradient: Any  # params, state, xs, starts, which outputs -> of params and xs


@cache
def compiled(name: str, frames: int = FRAMES) -> Compiled:
    memory = MEMORIES[name](features=F, frames=frames)
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(memory.init, jax.random.key(0), jnp.zeros(D))
    params = jax.tree.map(lambda x: rng.normal(0, 0.7, x.shape).astype(np.float32), shapes)

    def trace(state: Any, xs: Any, starts: Any) -> Any:
        def step(state: Any, x: Any) -> Any:
            seen = memory.inspect(params, state, *x)
            return memory.step(params, state, *x)[0], seen["attention"][0]

        return jax.lax.scan(step, state, (xs, starts))[1]

    def chosen(params: Any, xs: Any, state: Any, starts: Any, which: Any) -> Any:
        ys = memory.unroll(params, state, xs, starts)[1]
        return jnp.sum(jnp.where(which[:, None], jnp.sin(ys), 0))

    functions = memory.unroll, trace, jax.grad(chosen, (0, 1))
    return Compiled(memory, params, *map(jax.jit, functions))


def inputs(seed: int) -> tuple[Any, Any]:
    """Draw xs [T, D] and starts [T], a fifth of them true."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(T, D)).astype(np.float32), rng.uniform(size=T) < 0.2


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def query(name: str, params: Any, x: Any, o: Any, state: Any) -> tuple[Any, Any]:
    """Return h and the state (c, h) after it."""
    if name == "mqn":
        return x @ params["kernel"] + params["bias"], state
    c, h = state
    sees = np.concatenate([x, o]) if name == "frmqn" else x

    def gate(gate: str) -> Any:
        of_h = params[f"h{gate}"]
        return sees @ params[f"i{gate}"]["kernel"] + h @ of_h["kernel"] + of_h["bias"]

    c = sigmoid(gate("f")) * c + sigmoid(gate("i")) * np.tanh(gate("g"))
    h = sigmoid(gate("o")) * np.tanh(c)
    return h, (c, h)


def plain(name: str, params: Any, xs: Any, starts: Any) -> tuple[Any, Any]:
    """Return ys [T, F] and the weights [T, FRAMES - 1], from lists of all frames of an episode."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    maps, context = params["maps"]["params"], params["context"]["params"]
    ys: list[Any] = []
    attention: list[Any] = []
    for x, start in zip(xs.astype(np.float64), starts, strict=True):
        if start or not ys:
            frames, state, o = [np.zeros(D)] * (FRAMES - 1), (np.zeros(F), np.zeros(F)), np.zeros(F)
        h, state = query(name, context, x, o, state)
        agree = np.array([h @ (frame @ maps["key"]["kernel"]) for frame in frames[1 - FRAMES :]])
        weights = np.exp(agree) / np.exp(agree).sum()
        values = [frame @ maps["value"]["kernel"] for frame in frames[1 - FRAMES :]]
        o = sum(w * value for w, value in zip(weights, values, strict=True))
        y = h @ maps["out"]["kernel"] + maps["out"]["bias"] + o
        ys.append(np.where(np.arange(F) < F // 2, y, np.maximum(y, 0)))
        attention.append(weights)
        frames = [*frames, x]
    return np.stack(ys), np.stack(attention)


def assert_close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


@each
@pytest.mark.parametrize("seed", [1, 2])
def test_they_are_what_a_plain_loop_gives(name: str, seed: int) -> None:
    memory, params, unroll, trace, _ = compiled(name)
    xs, starts = inputs(seed)
    ys, attention = plain(name, params, xs, starts)
    assert_close(unroll(params, memory.initial_state(), xs, starts)[1], ys)
    assert_close(trace(memory.initial_state(), xs, starts), attention)


@each
def test_gradients_are_those_of_one_step_after_the_other(name: str) -> None:
    """Of parameters, the state a sequence goes on from, and inputs; through outputs and the end."""
    memory, params, unroll, _, _ = compiled(name)
    state, _ = unroll(params, memory.initial_state(), *inputs(8))
    xs, starts = inputs(9)

    def steps(params: Any, state: Any, xs: Any, starts: Any) -> Any:
        return jax.lax.scan(lambda state, x: memory.step(params, state, *x), state, (xs, starts))

    def gradient(run: Any) -> Any:
        def total(*arguments: Any) -> Any:
            return sum(jnp.sum(jnp.sin(y)) for y in jax.tree.leaves(run(*arguments, starts)))

        return jax.jit(jax.grad(total, (0, 1, 2)))(params, state, xs)

    starts[:3] = False  # so that there is something to come of the state
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5),
        gradient(unroll),
        gradient(steps),
    )


def test_without_feedback_weights_feedback_changes_nothing() -> None:
    fed, recurrent = compiled("frmqn"), compiled("rmqn")
    xs, starts = inputs(3)
    gates = fed.params["context"]["params"]
    blind, short = dict(gates), dict(gates)
    for name in ("ii", "if", "ig", "io"):
        kernel = gates[name]["kernel"]
        assert kernel.shape == (D + F, F)
        blind[name] = {"kernel": kernel * (np.arange(D + F) < D)[:, None]}
        short[name] = {"kernel": kernel[:D]}
    maps = fed.params["maps"]

    def ys(which: Compiled, context: Any) -> Any:
        params = {"maps": maps, "context": {"params": context}}
        return which.unroll(params, which.memory.initial_state(), xs, starts)[1]

    np.testing.assert_allclose(ys(fed, blind), ys(recurrent, short), rtol=0, atol=2e-6)
    assert np.abs(ys(fed, gates) - ys(recurrent, short)).max() > 0.1


@each
def test_attention_is_over_the_frames_before(name: str) -> None:
    """An output of `mqn` depends on its own input and on FRAMES - 1 before it, no more, no less."""
    memory, params, _, _, gradient = compiled(name)
    xs, _ = inputs(4)
    of_xs = gradient(params, xs, memory.initial_state(), TIMES < 0, TIMES == T - 1)[1]
    reached = np.any(of_xs, axis=-1)
    expected = TIMES >= T - FRAMES if name == "mqn" else TIMES >= 0
    np.testing.assert_array_equal(reached, expected)


@each
def test_before_the_episode_are_zeros_that_are_attended_to(name: str) -> None:
    memory, params, unroll, trace, _ = compiled(name)
    xs, _ = inputs(5)
    fresh = memory.initial_state()
    attention = trace(fresh, xs, TIMES < 0)
    assert attention.shape == (T, FRAMES - 1)
    np.testing.assert_allclose(attention.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(attention[0], 1 / (FRAMES - 1), rtol=1e-5)  # all of them alike
    np.testing.assert_allclose(attention[1, :2], attention[1, 2], rtol=1e-5)
    zeros = np.concatenate([np.zeros((FRAMES - 1, D), np.float32), xs[: 1 - FRAMES]])
    held = unroll(params, fresh, zeros, TIMES < 0)[0]
    first = unroll(params, fresh, xs[: 1 - FRAMES], TIMES[: 1 - FRAMES] < 0)[0]
    assert_close(held.keys, first.keys)
    assert_close(held.values, first.values)


@each
def test_more_frames_need_no_other_parameters(name: str) -> None:
    few, many = compiled(name), compiled(name, frames=T + 5)
    assert jax.tree.map(np.shape, few.params) == jax.tree.map(np.shape, many.params)
    xs, _ = inputs(6)
    fresh = many.memory.initial_state()
    of_xs = many.gradient(few.params, xs, fresh, TIMES < 0, TIMES == T - 1)[1]
    assert np.any(of_xs, axis=-1).all()


@each
def test_inputs_that_are_not_finite_stay_in_their_episode(name: str) -> None:
    """They show as far as they are attended to; gradients of later inputs do not see them."""
    memory, params, unroll, _, gradient = compiled(name)
    xs, _ = inputs(7)
    xs[3] = np.inf
    fresh = memory.initial_state()
    shows = np.isnan(unroll(params, fresh, xs, TIMES < 0)[1]).any(axis=-1)
    reach = FRAMES if name == "mqn" else T
    np.testing.assert_array_equal(shows, (TIMES >= 3) & (3 + reach > TIMES))
    of_xs = gradient(params, xs, fresh, TIMES == 5, TIMES >= 5)[1]
    assert np.isfinite(of_xs[5:]).all() and np.any(of_xs[5:], axis=-1).all()


@each
def test_frames_are_counted(name: str) -> None:
    for frames in (1, 0):
        with pytest.raises(ValueError, match=f"^frames: {frames} is below 2$"):
            MEMORIES[name](features=4, frames=frames)
