"""Memories of the last inputs: gated Transformer-XL against a plain reference, and frame stack."""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.memory import frame_stack, gtrxl
from memrl_jax.types import NeuralMemory

T, D, F, HEADS, LAYERS, WINDOW, FRAMES = 17, 3, 8, 2, 2, 5, 3
REACH = {"gtrxl": LAYERS * (WINDOW - 1), "frame_stack": FRAMES - 1}
TIMES = np.arange(T)
both = pytest.mark.parametrize("name", REACH)


class Compiled(NamedTuple):
    """A memory, parameters, and functions compiled."""

    memory: NeuralMemory
    params: Any
    unroll: Any  # state, xs, starts
    gradients: Any  # params, state, xs, starts, which outputs -> of the first three
    busy: Any  # a state after some steps


def drawn(memory: NeuralMemory) -> Any:
    """Draw all parameters at random, those that begin as zeros or ones too."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(memory.init, jax.random.key(0), jnp.zeros(D))
    return jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), shapes)


@cache
def compiled(name: str) -> Compiled:
    args: Any = {"gtrxl": (F, LAYERS, HEADS, WINDOW), "frame_stack": (F, FRAMES)}
    memory = (gtrxl if name == "gtrxl" else frame_stack)(*args[name])
    params = drawn(memory)

    def chosen(params: Any, state: Any, xs: Any, starts: Any, which: Any) -> Any:
        _, ys = memory.unroll(params, state, xs, starts)
        return jnp.sum(jnp.where(which[:, None], jnp.sin(ys), 0))

    unroll = jax.jit(partial(memory.unroll, params))
    gradients = jax.jit(jax.grad(chosen, (0, 1, 2), allow_int=True))
    busy, _ = unroll(memory.initial_state(), inputs(9)[0], TIMES < 0)
    return Compiled(memory, params, unroll, gradients, busy)


def inputs(seed: int, length: int = T) -> tuple[Any, Any]:
    """Draw xs [T, D] and starts [T], a fifth of them true."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(length, D)).astype(np.float32), rng.uniform(size=length) < 0.2


def assert_close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


@both
def test_what_is_not_finite_shows_as_far_as_the_memory_reaches(name: str) -> None:
    memory, _, unroll, _, _ = compiled(name)
    xs, _ = inputs(1)
    xs[3] = np.nan
    _, ys = unroll(memory.initial_state(), xs, TIMES < 0)
    shows = np.isnan(ys).any(axis=-1)
    np.testing.assert_array_equal(shows, (TIMES >= 3) & (3 + REACH[name] >= TIMES))


@both
def test_gradients_reach_exactly_as_far_as_the_memory(name: str) -> None:
    memory, params, _, gradients, _ = compiled(name)
    *_, of_xs = gradients(params, memory.initial_state(), inputs(2)[0], TIMES < 0, TIMES == T - 1)
    np.testing.assert_array_equal(np.any(of_xs, axis=-1), T - 1 - REACH[name] <= TIMES)


@both
def test_what_is_not_finite_spoils_no_gradient_after_a_start(name: str) -> None:
    """Not even that of the parameters, though all of them met it."""
    _, params, _, gradients, busy = compiled(name)
    xs, _ = inputs(3)
    clean = gradients(params, busy, xs, TIMES == 9, TIMES > 9)
    xs[4], xs[7] = np.nan, np.inf
    spoiled = gradients(params, busy, xs, TIMES == 9, TIMES > 9)
    for ours, theirs in zip((spoiled[0], spoiled[2]), (clean[0], clean[2]), strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@both
def test_unroll_is_no_loop_and_no_square(name: str) -> None:
    memory, params, _, _, busy = compiled(name)
    traced = jax.make_jaxpr(memory.unroll)(params, busy, *inputs(0, 257))
    assert "scan[" not in str(traced) and "while[" not in str(traced)
    assert max(v.aval.size for e in traced.eqns for v in e.outvars) <= 300 * 4 * F < 257**2


def test_frames_stand_oldest_first_after_zeros() -> None:
    memory = frame_stack(features=1, frames=3)
    dense = {"kernel": np.ones((1, 1), np.float32), "bias": np.full(1, 10, np.float32)}
    xs, starts = np.arange(1, 6, dtype=np.float32)[:, None], np.arange(5) == 3
    _, ys = memory.unroll({"params": {"dense": dense}}, memory.initial_state(), xs, starts)
    expected = [[0, 0, 11], [0, 11, 12], [11, 12, 13], [0, 0, 14], [0, 14, 15]]
    np.testing.assert_array_equal(ys, expected)


def norm(params: Any, x: Any) -> Any:
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
    return x * params["scale"] + params["bias"]


def gate(params: Any, x: Any, y: Any) -> Any:
    """Parisotto et al. (2020), section 3.2, gating of the GRU type."""
    w_r, w_z, w_g = np.split(params["y"]["kernel"], 3, axis=1)
    u_r, u_z = np.split(params["x"]["kernel"], 2, axis=1)
    r = 1 / (1 + np.exp(-(y @ w_r + x @ u_r)))
    z = 1 / (1 + np.exp(-(y @ w_z + x @ u_z - params["bias"])))
    return (1 - z) * x + z * np.tanh(y @ w_g + (r * x) @ params["rx"]["kernel"])


def attend(params: Any, xs: Any, told: list[Any]) -> Any:
    """Let the last of `xs` look at all, pair by pair; Dai et al. (2019), section 3.3.

    `told` gets the weights of every head.
    """
    frequency, heads = 10_000.0 ** -(np.arange(0, F, 2) / F), []
    for h in range(HEADS):
        w_q, w_k, w_v, w_r = (params[n][:, h] for n in ("query", "key", "value", "distance"))
        q, scores = xs[-1] @ w_q, []
        for j, x in enumerate(xs):
            angle = (len(xs) - 1 - j) * frequency
            r = np.concatenate([np.sin(angle), np.cos(angle)]) @ w_r
            scores.append((q + params["u"][h]) @ (x @ w_k) + (q + params["v"][h]) @ r)
        weights = np.exp(np.array(scores) / np.sqrt(F / HEADS))
        told.append(weights / weights.sum())
        heads.append(told[-1] @ (xs @ w_v))
    return np.concatenate(heads) @ params["out"]["kernel"]


def block(p: Any, xs: Any, told: list[Any]) -> Any:
    """Parisotto et al. (2020), section 3: what becomes of the last of `xs`."""
    seen = attend(p["attention"], np.stack([norm(p["attention_norm"], x) for x in xs]), told)
    x = gate(p["attention_gate"], xs[-1], np.maximum(seen, 0))
    y = norm(p["mlp_norm"], x) @ p["hidden"]["kernel"] + p["hidden"]["bias"]
    y = np.maximum(y, 0) @ p["out"]["kernel"] + p["out"]["bias"]
    return gate(p["mlp_gate"], x, np.maximum(y, 0))


def published(params: Any, xs: Any, starts: Any) -> tuple[Any, list[Any]]:
    """Return outputs, and the weights of every head of every layer at the last step."""
    params = jax.tree.map(np.float64, params)["params"]
    xs = xs @ params["input"]["dense"]["kernel"] + params["input"]["dense"]["bias"]
    times = np.arange(len(xs))
    first = np.maximum(np.maximum.accumulate(starts * times), times - WINDOW + 1)
    weights: list[Any] = []
    for layer in range(LAYERS):
        told: list[list[Any]] = [[] for _ in times]
        p = params[f"layer_{layer}"]
        xs = np.stack([block(p, xs[first[t] : t + 1], told[t]) for t in times])
        weights += told[-1]
    return xs, weights


def test_the_unroll_is_that_of_the_papers() -> None:
    memory, params, unroll, _, _ = compiled("gtrxl")
    xs, starts = inputs(5)
    _, ys = unroll(memory.initial_state(), xs, starts)
    assert starts[1:].any() and not starts[-WINDOW:].all()
    assert_close(ys, published(params, xs, starts)[0])


def test_what_is_inspected_is_the_attention_to_the_past() -> None:
    memory, params, unroll, _, _ = compiled("gtrxl")
    xs, starts = inputs(5, T + 1)
    state, _ = unroll(memory.initial_state(), xs[:T], starts[:T])
    inspect = jax.jit(memory.inspect)
    for start in (False, True):
        starts[T] = start
        seen = inspect(params, state, xs[T], starts[T])["attention"]
        assert seen.shape == (LAYERS * HEADS, WINDOW - 1)
        for ours, theirs in zip(seen, published(params, xs, starts)[1], strict=True):
            past = np.concatenate([np.zeros(WINDOW), theirs])[-WINDOW:-1]
            np.testing.assert_allclose(ours, past, atol=1e-5)
    assert not np.any(seen)  # at a start there is no past


def test_a_shut_gate_leaves_the_projected_input() -> None:
    memory = gtrxl(F, 1, HEADS, WINDOW, gate_bias=1e9)
    params = jax.jit(memory.init)(jax.random.key(0, impl="rbg"), jnp.zeros(D))  # compiles fast
    xs, starts = inputs(0)
    _, ys = jax.jit(memory.unroll)(params, memory.initial_state(), xs, starts)
    assert_close(ys, xs @ params["params"]["input"]["dense"]["kernel"])


def test_a_window_of_one_is_feed_forward() -> None:
    memory = gtrxl(F, 1, HEADS, window=1)
    unroll = jax.jit(partial(memory.unroll, drawn(memory), memory.initial_state()))
    xs = inputs(0)[0]
    state, ys = unroll(xs, TIMES < 0)
    assert state.held.shape == (1, 0, F) and state.valid == 0
    assert_close(unroll(xs[::-1], TIMES < 0)[1][::-1], ys)
    assert memory.inspect(drawn(memory), state, xs[0], jnp.array(False)) == {}


def test_the_state_is_read_but_not_differentiated() -> None:
    _, params, unroll, gradients, busy = compiled("gtrxl")
    xs, starts = inputs(0)[0], TIMES < 0
    other = busy._replace(held=busy.held[::-1])
    changed = np.abs(unroll(busy, xs, starts)[1] - unroll(other, xs, starts)[1]).max(axis=-1)
    assert changed[0] > 1e-3
    _, of_state, _ = gradients(params, busy, xs, starts, TIMES == 0)
    assert not np.any(of_state.held)


def test_the_state_counts_the_inputs_of_the_episode() -> None:
    memory, _, unroll, _, _ = compiled("gtrxl")
    state, valid = memory.initial_state(), []
    for t, x in enumerate(inputs(0, 9)[0]):
        state, _ = unroll(state, x[None], np.array([t == 7]))
        valid.append(int(state.valid))
        assert np.all(np.any(state.held, axis=-1) == (np.arange(WINDOW - 1)[::-1] < valid[-1]))
    assert valid == [1, 2, 3, 4, 4, 4, 4, 1, 2]


@pytest.mark.parametrize(
    "make, message",
    [
        (partial(gtrxl, features=10), "features: 10 is not a multiple of heads = 4"),
        (partial(gtrxl, heads=0), "heads: 0 is below 1"),
        (partial(gtrxl, layers=0), "layers: 0 is below 1"),
        (partial(gtrxl, window=0), "window: 0 is below 1"),
        (partial(gtrxl, expansion=0), "expansion: 0 is below 1"),
        (partial(frame_stack, frames=0), "frames: 0 is below 1"),
    ],
)
def test_sizes_are_counted(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        make()
