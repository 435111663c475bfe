"""What every neural memory promises, for every one in the registry and for any cell of flax.

`memrl_jax.testing` holds what it promises to agents; here is what is asked of those of the library.
"""

import re
from functools import cache, partial
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads

from memrl_jax.memory import MEMORIES, deltanet, from_cell, lru, mlstm, monoid, stack
from memrl_jax.memory.deltanet import inverse
from memrl_jax.memory.monoid import chunk_length
from memrl_jax.testing import memory_trial
from memrl_jax.testing.memory import PROPERTIES, of_nan
from memrl_jax.testing.memory_trial import RESET, T, Trial, try_out

D = 3
SMALL: dict[str, Any] = {
    "none": {},
    "gtrxl": {"features": 8, "heads": 2, "window": 6},
    **{name: {"features": 8, "frames": 5} for name in ("mqn", "rmqn", "frmqn")},
    "memn2n": {"features": 8, "slots": 6},
    "kv_memory": {"features": 8, "slots": 6},
    "ntm": {"features": 8, "slots": 6, "width": 4, "hidden": 8},
    "dnc": {"features": 8, "slots": 5, "width": 4, "read_heads": 2, "hidden": 8},
    "ffm": {"features": 8, "traces": 4, "contexts": 3},
    "shm": {"features": 8, "hidden": 4},
    "mlstm": {"features": 8, "heads": 2},
    "linear_attention": {"features": 8, "heads": 2},
    "deltanet": {"features": 8, "heads": 2},
}
CASES: dict[str, Any] = {
    name: partial(constructor, **SMALL.get(name, {"features": 8}))
    for name, constructor in MEMORIES.items()
}
CASES["deltanet, gated"] = partial(deltanet, 8, heads=2, gated=True)
CASES["ntm, heads"] = partial(CASES["ntm"], read_heads=2, write_heads=2, shifts=2)
CASES["ntm, feed-forward"] = partial(CASES["ntm"], controller="feedforward")
CASES["dnc, heads"] = partial(CASES["dnc"], write_heads=2, controller="feedforward")
CASES["stack of different ones"] = lambda: stack([lru(4), mlstm(4, heads=1)], 8, feedforward=16)
CASES["cell of flax"] = lambda: from_cell(nn.SimpleCell(8))
every_memory = pytest.mark.parametrize("name", CASES)
SCANNED = [name for name in CASES if "scan" in signature(CASES[name]).parameters]
# Their sums round differently for other rows of a matrix.
ROUNDED = {"linear_attention", "deltanet", "deltanet, gated", "mlstm"}
ROUNDED |= {
    "gtrxl",
    "memn2n",
    "kv_memory",
    "mqn",
    "rmqn",
    "ffm",
    "stack",
    "stack of different ones",
}


@cache
def compiled(name: str) -> Trial:
    return try_out(CASES[name](), D)


inputs = partial(memory_trial.inputs, D)


def doubled(values: Any) -> Any:
    """Make float64 of float32."""
    return jax.tree.map(lambda x: x.astype(float) if x.dtype == np.float32 else x, values)


def assert_close(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    """Compare leaf by leaf, within `tolerance` of the largest entry."""
    for x, y in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        scale = np.abs(np.asarray(y, np.float64)).max(initial=1e-6)
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * scale)


def assert_equal(ours: Any, theirs: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@every_memory
def test_doubles_are_computed_with_throughout(name: str) -> None:
    """Given parameters, state and inputs of float64, so is all that comes out, and to 1e-12."""
    memory, params = compiled(name).memory, compiled(name).params
    xs, starts = inputs(10, T)
    with jax.enable_x64(True):
        params, state = doubled(params), doubled(memory.initial_state())
        end, ys = jax.jit(memory.unroll)(params, state, doubled(xs), starts)
        step = jax.jit(memory.step)
        for t in range(T):
            state, y = step(params, state, doubled(xs[t]), starts[t])
            assert y.dtype == ys.dtype == np.float64
            np.testing.assert_allclose(y, ys[t], rtol=1e-10, atol=1e-12)
        assert jax.tree.map(lambda x: x.dtype, state) == jax.tree.map(lambda x: x.dtype, end)
    assert_close(compiled(name).unroll(memory.initial_state(), xs, starts)[1], ys)


@every_memory
@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
def test_memories_keep_what_the_checks_hold(name: str, holds: Any) -> None:
    holds(compiled(name))


@every_memory
@pytest.mark.parametrize("at", [0, 1, 8, T - 1])
def test_a_start_inside_is_a_fresh_start_bit_for_bit(name: str, at: int) -> None:
    """Whatever the step is, unless a tree over fewer inputs has another shape."""
    trial = compiled(name)
    xs, starts = inputs(at, T)
    starts[: at + 1] = np.arange(at + 1) == at
    _, ys = trial.unroll(trial.state, xs, starts)
    shifted = np.roll(xs, -at, axis=0), np.roll(starts, -at) & (np.arange(T) > 0)
    fresh = trial.unroll(trial.memory.initial_state(), *shifted)[1]
    rounded = name in ROUNDED or (name in SCANNED and jax.default_backend() != "cpu")
    (assert_close if rounded else assert_equal)(fresh[: T - at], ys[at:])


@every_memory
def test_what_is_no_number_is_seen_until_a_start(name: str) -> None:
    trial = compiled(name)
    xs, starts = inputs(2, T)[0], np.arange(T) == RESET
    xs[:RESET] = np.nan
    _, ys = trial.unroll(of_nan(trial.state), xs, starts)
    assert np.isnan(ys[:RESET]).all() and np.isfinite(ys[RESET:]).all()


@every_memory
def test_all_that_comes_after_a_start_is_learned_from(name: str) -> None:
    """And all parameters are."""
    trial = compiled(name)
    xs, starts = inputs(4, T)[0], np.arange(T) == RESET
    of_params, _, of_xs = trial.gradients(trial.params, trial.state, xs, starts)
    assert np.all(np.any(of_xs[RESET:], axis=-1))
    assert all(np.any(x) for x in jax.tree.leaves(of_params))


@pytest.mark.parametrize("name", SCANNED)
def test_both_ways_to_scan_agree(name: str) -> None:
    """In values, last states and gradients; with resets, and not a number before one of them."""
    xs, starts = inputs(11, 33)
    xs[:10], starts[10] = np.nan, True
    outcomes = []
    for scan in ("sequential", "associative"):
        memory = CASES[name](scan=scan)

        @jax.jit
        def outcome(params: Any, state: Any, xs: Any, memory: Any = memory) -> Any:
            def loss(params: Any, xs: Any) -> Any:
                end, ys = memory.unroll(params, state, xs, starts)
                return jnp.sum(ys[10:] ** 2), (end, ys[10:])

            grads = jax.grad(loss, (0, 1), has_aux=True)
            of_params = grads(params, jnp.nan_to_num(xs))[0][0]
            (_, of_xs), rest = grads(params, xs)
            return of_params, of_xs[10:], rest

        outcomes.append(outcome(compiled(name).params, compiled(name).state, xs))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(outcomes))
    assert_close(*outcomes)


CHUNK = chunk_length()
CHUNKED = ["linear_attention", "deltanet", "deltanet, gated", "mlstm"]


@pytest.mark.parametrize("name", CHUNKED)
@pytest.mark.parametrize("length", [0, 1, CHUNK, 2 * CHUNK + 3])
def test_chunks_do_what_steps_do(name: str, length: int) -> None:
    """Outputs, last states and gradients, in float64, with random resets."""
    with jax.enable_x64(True):
        params, state = doubled(compiled(name).params), doubled(compiled(name).state)
        chunked, sequential = (outcome(name, scan) for scan in ("chunked", "sequential"))
        for rate in (0.0, 0.1, 0.5):
            xs = doubled(inputs(length, length)[0])
            starts = np.random.default_rng(length).uniform(size=length) < rate
            ours = chunked(params, state, xs, starts)
            assert all(np.isfinite(x).all() for x in jax.tree.leaves(ours))
            assert_close(ours, sequential(params, state, xs, starts), 1e-9)


def outcome(name: str, scan: str) -> Any:
    """Compile an unroll: gradients of parameters and inputs, last state, outputs."""
    unroll = CASES[name](scan=scan).unroll

    @jax.jit
    def run(params: Any, state: Any, xs: Any, starts: Any) -> Any:
        def loss(params: Any, xs: Any) -> Any:
            end, ys = unroll(params, state, xs, starts)
            return jnp.sum(jnp.where(jnp.isfinite(ys), ys, 0) ** 2), (end, ys)

        return jax.grad(loss, (0, 1), has_aux=True)(params, xs)

    return run


@pytest.mark.parametrize("name", CHUNKED)
def test_nan_stays_in_its_episode_in_a_chunk(name: str) -> None:
    """And in the state, if no reset follows it."""
    run, length = outcome(name, "chunked"), CHUNK + 5
    (xs, _), starts = inputs(0, length), np.arange(length) % 6 == 3  # 3, 9, 15, ...
    given = compiled(name).params, compiled(name).state
    _, (end, ys) = run(*given, xs, starts)
    xs[5] = np.nan
    (_, of_xs), (after, zs) = run(*given, xs, starts)
    assert np.isnan(zs[5:9]).all() and np.isfinite(np.delete(of_xs, slice(5, 9), axis=0)).all()
    zs = np.concatenate([zs[:5], zs[9:]])
    assert_equal((after, zs), (end, np.concatenate([ys[:5], ys[9:]])))
    after = run(*given, xs, np.zeros(length, bool))[1][0]
    assert all(np.isnan(x).all() for x in jax.tree.leaves(after))


@pytest.mark.parametrize(
    ("platform", "ways"),
    [
        ("cpu", {"lru": ["sequential"] * 3, "mlstm": ["sequential", "chunked", "chunked"]}),
        ("gpu", {"lru": ["associative"] * 3, "mlstm": ["chunked"] * 3}),
    ],
)
def test_sequences_are_scanned_as_suits_the_platform(
    platform: str, ways: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    taken: list[str] = []

    def noted(name: str, unroll: Any) -> Any:
        def run(*arguments: Any) -> Any:
            taken.append(name)
            return unroll(*arguments)

        return run

    unrolls = {name: noted(name, unroll) for name, unroll in monoid.UNROLLS.items()}
    monkeypatch.setattr(monoid, "UNROLLS", unrolls)
    for name, due in ways.items():
        memory, taken[:] = CASES[name](), []
        params, state = compiled(name).params, compiled(name).state
        for length in (5, 16, 64):
            xs, starts = inputs(length, length)
            jax.eval_shape(memory.unroll, params, state, xs, starts)
        assert taken == due


def test_chunks_are_for_memories_that_have_them() -> None:
    with pytest.raises(ValueError, match=r"^scan: 'chunked' is only for memories of matrices$"):
        lru(scan="chunked")


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_the_inverse_in_a_chunk_is_one(size: int) -> None:
    x = np.random.default_rng(size).normal(size=(3, size, size)) / 2
    x[0], eye = 1, np.eye(size)  # all keys alike: powers of x would be large
    with jax.enable_x64(True):
        product = inverse(jnp.asarray(x)) @ (eye + np.tril(x, -1))
        np.testing.assert_allclose(product, np.broadcast_to(eye, x.shape), atol=1e-9)
        check_grads(inverse, (x,), 1, ["fwd", "rev"])


@every_memory
def test_the_state_keeps_its_type(name: str) -> None:
    memory, params = CASES[name](), compiled(name).params
    state = jax.eval_shape(memory.initial_state)
    x = jax.ShapeDtypeStruct((D,), jnp.float32)
    after, y = jax.eval_shape(memory.step, params, state, x, jax.ShapeDtypeStruct((), bool))
    assert after == state
    assert y.dtype == jnp.float32
    for leaf in jax.tree.leaves((state, y)):
        assert leaf.dtype in (jnp.float32, jnp.int32) and not leaf.weak_type


@pytest.mark.parametrize(
    "name, options", [(n, {}) for n in CASES] + [(n, {"scan": "associative"}) for n in SCANNED]
)
def test_no_axis_is_added_in_silence(name: str, options: Any) -> None:
    """Every function can be traced, also backwards, where JAX refuses to promote ranks."""
    memory = CASES[name](**options)
    shaped = jax.ShapeDtypeStruct
    x, start = shaped((D,), jnp.float32), shaped((), bool)
    xs, starts = shaped((T, D), jnp.float32), shaped((T,), bool)

    def total(*given: Any) -> Any:
        return jnp.sum(memory.unroll(*given)[1])

    with jax.numpy_rank_promotion("raise"):
        state = memory.initial_state()
        params = jax.eval_shape(memory.init, jax.random.key(0), x)
        jax.eval_shape(memory.step, params, state, x, start)
        jax.eval_shape(memory.inspect, params, state, x, start)
        jax.eval_shape(jax.grad(total, (0, 2)), params, state, xs, starts)


@every_memory
def test_a_second_call_compiles_nothing(name: str) -> None:
    trial = compiled(name)
    state, counts = trial.memory.initial_state(), []
    for seed in range(3):
        xs, starts = inputs(seed, T)
        state, _ = trial.step(state, xs[0], starts[0])
        state, _ = trial.unroll(state, xs, starts)
        counts.append((trial.step._cache_size(), trial.unroll._cache_size()))
    assert min(counts[0]) >= 1 and counts[0] == counts[-1]


@pytest.mark.parametrize(
    "name, cell",
    [("gru", nn.GRUCell), ("lstm", nn.OptimizedLSTMCell), ("cell of flax", nn.SimpleCell)],
)
def test_cells_are_those_of_flax(name: str, cell: Any) -> None:
    memory, params = compiled(name).memory, compiled(name).params
    carry = cell(8).initialize_carry(jax.random.key(0), (D,))
    assert_equal(memory.initial_state(), carry)
    assert_close(params, cell(8).init(jax.random.key(0), carry, jnp.zeros(D)))
    xs, _ = inputs(5, T)
    _, ys = compiled(name).unroll(memory.initial_state(), xs, np.zeros(T, bool))
    apply = jax.jit(cell(8).apply)
    for x, y in zip(xs, ys, strict=True):
        carry, out = apply(params, carry, x)
        assert_close(y, out)


def test_none_passes_everything_through() -> None:
    xs, starts = inputs(6, T)
    assert MEMORIES["none"]().initial_state() == ()
    assert_equal(compiled("none").unroll((), xs, starts), ((), xs))


@every_memory
def test_parameters_come_from_the_key(name: str) -> None:
    params, init = compiled(name).params, compiled(name).init
    again, other = (init(jax.random.key(seed), jnp.ones(D)) for seed in (0, 1))
    assert_equal(again, params)
    same = jax.tree.map(lambda x, y: bool(np.all(x == y)), params, other)
    assert not params or not all(jax.tree.leaves(same))


@pytest.mark.parametrize("name", [name for name in MEMORIES if name != "none"])
@pytest.mark.parametrize("features", [0, -1, 2.5, True])
def test_features_are_counted(name: str, features: Any) -> None:
    with pytest.raises(ValueError, match=f"^features: {features} is "):
        MEMORIES[name](features=features)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_vmapped_initialization_batches_no_factorization(name: str) -> None:
    """Batched QR factorizations that run at once can wait for each other for ever on two cores."""
    memory = MEMORIES[name](features=4)
    keys = jax.random.split(jax.random.key(0), 3)
    init = jax.vmap(lambda key: memory.init(key, jnp.ones(2)))
    factorized = re.findall(r":f32\[([\d,]+)\] = qr\[", str(jax.make_jaxpr(init)(keys)))
    assert factorized and set(factorized) == {"4,4"}
    single = memory.init(keys[1], jnp.ones(2))
    # Other platforms than a CPU round a batch of factorizations otherwise than one of them.
    same = assert_equal if jax.default_backend() == "cpu" else assert_close
    same(jax.tree.map(lambda x: x[1], init(keys)), single)


@pytest.mark.parametrize(
    "name, gate, sign", [("gru", "iz", 1), ("lstm", "hf", 1), ("mingru", "gate", -1)]
)
def test_a_horizon_sets_for_how_long_units_keep(name: str, gate: str, sign: int) -> None:
    """With nothing to see, a unit of bias log u loses a part 1 / (1 + u) of its state a step."""
    memory = MEMORIES[name](features=512, horizon=100)
    params = jax.jit(memory.init)(jax.random.key(0), jnp.zeros(3))
    gates = params["params"]
    bias = sign * gates[gate]["bias"]
    steps = np.exp(bias)
    assert 1 <= steps.min() < 3 and 96 < steps.max() <= 99
    assert abs(np.mean(steps) - 50) < 5
    if name == "lstm":
        np.testing.assert_array_equal(gates["hi"]["bias"], -bias)
    plain = MEMORIES[name](features=512).init
    plain = jax.eval_shape(plain, jax.random.key(0), jnp.zeros(3))
    assert jax.tree.map(jnp.shape, plain) == jax.tree.map(jnp.shape, params)


@pytest.mark.parametrize("name", ["gru", "lstm", "mingru"])
def test_a_horizon_has_to_be_one(name: str) -> None:
    with pytest.raises(ValueError, match=r"^horizon: 2 is below 3$"):
        MEMORIES[name](horizon=2)
