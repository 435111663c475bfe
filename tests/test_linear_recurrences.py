"""Linear recurrences against numbers from their authors' implementations, and their algebra.

tests/data/linear_recurrences.npz: S5 (popjaxrl's and lindermanlab's), LRU (minimal-LRU's and
memax's) and FFM (its author's and memax's) on one input with and without resets, in float64.
"""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.memory import ffm, lru, mlstm, s5
from memrl_jax.memory.deltanet import DELTA
from memrl_jax.memory.deltanet import Update as DeltaUpdate
from memrl_jax.memory.linear_attention import SUM
from memrl_jax.memory.linear_attention import State as Sums
from memrl_jax.memory.linear_attention import Update as SumUpdate
from memrl_jax.memory.mlstm import STABILIZED
from memrl_jax.memory.mlstm import State as Stabilized
from memrl_jax.memory.mlstm import Update as StabilizedUpdate
from memrl_jax.memory.monoid import COMPLEX, DIAGONAL, Complex
from memrl_jax.memory.shm import HADAMARD
from memrl_jax.memory.shm import Update as HadamardUpdate

every_scan = pytest.mark.parametrize("scan", ["sequential", "associative"])


@cache
def golden() -> Any:
    with np.load(Path(__file__).parent / "data" / "linear_recurrences.npz") as data:
        return dict(data)


def unrolled(memory: Any, params: Any, state: Any, start: str) -> Any:
    data = golden()
    return jax.jit(memory.unroll)(params, state, data["x"], data[f"start/{start}"])


def assert_close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


def side_by_side(real: Any, imag: Any) -> Any:
    return np.concatenate([real, imag], axis=-1)


def of_s5(case: str) -> Any:
    data = {k.split("/")[-1]: v for k, v in golden().items() if k.startswith(f"{case}/param/")}
    # Without conjugate pairs the output is the real part once, not twice.
    once = 1.0 if case == "s5_zoh_conj" else 0.5
    return {
        "params": {
            "real": data["Lambda_re"],
            "imag": data["Lambda_im"],
            "log_step": data["log_step"][:, 0],
            "b": {"kernel": side_by_side(*np.moveaxis(data["B"], (2, 0, 1), (0, 2, 1)))},
            "c": {"kernel": once * np.concatenate(np.moveaxis(data["C"], (2, 0, 1), (0, 2, 1)))},
            "d": {"scale": data["D"]},
        }
    }


@every_scan
@pytest.mark.parametrize("case", ["s5_zoh_conj", "s5_zoh_full"])
@pytest.mark.parametrize("start", ["none", "mid"])
@pytest.mark.parametrize("state", ["zero", "h0"])
def test_s5_is_the_published_one(scan: Any, case: str, start: str, state: str) -> None:
    params, data = of_s5(case), golden()
    size = len(params["params"]["real"])
    memory = s5(features=5, hidden=size, scan=scan)
    h = data[f"{case}/h0"] * (state == "h0")
    end, ys = unrolled(memory, params, Complex(h.real, h.imag), start)
    assert_close(ys, data[f"{case}/{start}_{state}/y"])
    assert_close(end.real, data[f"{case}/{start}_{state}/h_last"].real)
    assert_close(end.imag, data[f"{case}/{start}_{state}/h_last"].imag)
    if (start, state) == ("none", "zero"):
        assert_close(ys, data[f"{case}/lindermanlab_none_zero/y"])


@every_scan
@pytest.mark.parametrize("start", ["none", "mid"])
def test_lru_is_the_published_one(scan: Any, start: str) -> None:
    data = {k.removeprefix("lru/param/"): v for k, v in golden().items() if "lru/param" in k}
    params = {
        "params": {
            "nu": data["nu_log"],
            "theta": data["theta_log"],
            "gamma": data["gamma_log"],
            "b": {"kernel": side_by_side(data["B_re"].T, data["B_im"].T)},
            "c": {"kernel": np.concatenate([data["C_re"].T, data["C_im"].T])},
            "d": {"scale": data["D"]},
        }
    }
    memory = lru(features=5, hidden=7, scan=scan)
    end, ys = unrolled(memory, params, memory.initial_state(), start)
    assert_close(ys, golden()[f"lru/{start}/y"])
    assert_close(ys, golden()[f"lru/memax_{start}/y"])
    assert_close(end.real, golden()[f"lru/memax_{start}/h"][-1].real)
    assert_close(end.imag, golden()[f"lru/memax_{start}/h"][-1].imag)


def of_ffm(case: str) -> Any:
    data = {k.split("/")[-1]: v for k, v in golden().items() if k.startswith(f"{case}/param/")}
    if case == "ffm_memax":  # passes the input itself
        data |= {"skip_w": np.eye(5, dtype=np.float32), "skip_b": np.zeros(5, np.float32)}
    names = {"content": "pre", "gate_in": "gate_in", "gate_out": "gate_out"}
    names |= {"mix": "mix", "skip": "skip"}
    dense = {k: {"kernel": data[f"{v}_w"].T, "bias": data[f"{v}_b"]} for k, v in names.items()}
    rate = np.abs(data["a"]) if case == "ffm_memax" else -np.minimum(data["a"], -1e-6)
    return {"params": dense | {"log_rate": np.log(rate), "frequency": data["b"]}}


@every_scan
@pytest.mark.parametrize("case", ["ffm_memax", "ffm_orig"])
@pytest.mark.parametrize("start", ["none", "mid"])
def test_ffm_is_the_published_one(scan: Any, case: str, start: str) -> None:
    params = of_ffm(case)
    memory = ffm(len(params["params"]["mix"]["bias"]), traces=4, contexts=3, scan=scan)
    end, ys = unrolled(memory, params, memory.initial_state(), start)
    assert_close(ys, golden()[f"{case}/{start}/y"])
    assert_close(end.real, golden()[f"{case}/{start}/h"][-1].real)
    assert_close(end.imag, golden()[f"{case}/{start}/h"][-1].imag)


def test_traces_of_any_rate_learn_it() -> None:
    """From the authors' first rates, of which the slowest is 1e-6, to such as fade in a step."""
    params, memory, data = of_ffm("ffm_orig"), ffm(4, traces=4, contexts=3), golden()
    first = jax.jit(memory.init)(jax.random.key(0), jnp.zeros(5))["params"]["log_rate"]
    np.testing.assert_allclose(np.exp(first), np.linspace(1e-6, 0.5, 4), rtol=1e-5)

    def total(log_rate: Any) -> Any:
        given = {"params": params["params"] | {"log_rate": log_rate}}
        return jnp.sum(memory.unroll(given, memory.initial_state(), data["x"], starts)[1])

    starts = data["start/mid"]
    gradients = jax.jit(jax.vmap(jax.grad(total)))(jnp.stack([first, first + 3, -first]))
    assert np.isfinite(gradients).all() and np.all(gradients[:2])


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=(TRIPLES, 3, *shape)).astype(np.float32)


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


def unit(x: Any) -> Any:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def share(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


TRIPLES = 100
# Of every monoid, updates [TRIPLES, 3, ...] and a state.
MONOIDS: dict[str, Any] = {
    "diagonal": (DIAGONAL, (normal(4), normal(5)[..., :4]), ones(4)),
    "complex": (
        COMPLEX,
        (Complex(normal(4), normal(5)[..., :4]), Complex(normal(6)[..., :4], normal(7)[..., :4])),
        Complex(ones(4), 0 * ones(4)),
    ),
    "hadamard": (
        HADAMARD,
        HadamardUpdate(*(normal(3 + i)[..., :3] for i in range(5))),
        ones(3, 3),
    ),
    "sum": (
        SUM,
        SumUpdate(normal(2, 3), normal(2, 4)[..., :3], normal(2, 5)[..., :3]),
        Sums(ones(2, 3, 3), ones(2, 3)),
    ),
    "delta": (
        DELTA,
        DeltaUpdate(
            share(normal(2)),
            2 * share(normal(3)[..., :2]),
            unit(normal(2, 3)),
            normal(2, 4)[..., :3],
            unit(normal(2, 5)[..., :3]),
        ),
        ones(2, 3, 3),
    ),
    "stabilized": (
        STABILIZED,
        StabilizedUpdate(
            np.log(share(normal(2))),
            5 * normal(3)[..., :2],
            normal(2, 3),
            normal(2, 4)[..., :3],
            normal(2, 5)[..., :3],
        ),
        Stabilized(ones(2), ones(2, 3, 3), ones(2, 3)),
    ),
}
every_monoid = pytest.mark.parametrize("name", MONOIDS)


def close(ours: Any, theirs: Any) -> None:
    """Compare within 1e-5 of the largest entry of every leaf."""
    jax.tree.map(assert_close, ours, theirs)


@every_monoid
def test_updates_combine_in_any_grouping(name: str) -> None:
    monoid, updates, _ = MONOIDS[name]

    @jax.jit
    @jax.vmap
    def both(updates: Any) -> Any:
        a, b, c = (jax.tree.map(lambda x, i=i: x[i], updates) for i in range(3))
        a, b, c = map(monoid.expand, (a, b, c))
        combine = monoid.combine
        return combine(combine(a, b), c), combine(a, combine(b, c))

    close(*both(updates))


@every_monoid
def test_the_identity_changes_nothing(name: str) -> None:
    monoid, updates, _ = MONOIDS[name]

    @jax.jit
    @jax.vmap
    def around(updates: Any) -> Any:
        pair = monoid.expand(jax.tree.map(lambda x: x[0], updates))
        one = monoid.identity(pair)
        return pair, monoid.combine(one, pair), monoid.combine(pair, one), monoid.combine(one, one)

    pair, before, after, nothing = around(updates)
    jax.tree.map(np.testing.assert_array_equal, before, pair)
    close(after, pair)
    jax.tree.map(np.testing.assert_array_equal, nothing, jax.vmap(monoid.identity)(pair))


@every_monoid
def test_applying_is_combining_with_the_state(name: str) -> None:
    monoid, updates, state = MONOIDS[name]

    @jax.jit
    @jax.vmap
    def both(updates: Any) -> Any:
        a, b, _ = (jax.tree.map(lambda x, i=i: x[i], updates) for i in range(3))
        decay, _ = monoid.identity(monoid.expand(a))
        first = monoid.combine((decay, state), monoid.expand(a))
        return monoid.apply(monoid.apply(state, a), b), monoid.combine(first, monoid.expand(b))[1]

    close(*both(updates))


def test_exponential_gates_do_not_overflow() -> None:
    """Weights of e^300 and e^-300 one after the other: what was written last is read exactly."""
    monoid, updates, _ = MONOIDS["stabilized"]
    heavy = jax.tree.map(lambda x: jnp.asarray(x[0, 0]), updates)
    heavy = heavy._replace(write=jnp.full(2, 300.0), forget=jnp.zeros(2))
    light = heavy._replace(write=jnp.full(2, -300.0), value=-heavy.value)
    state = jax.tree.map(jnp.zeros_like, MONOIDS["stabilized"][2])
    state = monoid.apply(monoid.apply(state, heavy), light)
    alike = heavy._replace(query=heavy.key)
    np.testing.assert_allclose(monoid.query(state, alike), heavy.value, rtol=1e-5)


def test_a_delta_update_replaces_what_its_key_held() -> None:
    monoid, updates, state = MONOIDS["delta"]
    update = jax.tree.map(lambda x: jnp.asarray(x[0, 0]), updates)
    update = update._replace(keep=jnp.ones(2), rate=jnp.ones(2), query=update.key)
    for value in (update.value, 2 * update.value):
        state = monoid.apply(state, update._replace(value=value))
        np.testing.assert_allclose(monoid.query(state, update), value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("constructor", [lru, s5, ffm, mlstm])
def test_a_scan_has_to_be_known(constructor: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^scan: 'sequental' is unknown; did you mean 'sequential'"
    ):
        constructor(scan="sequental")
