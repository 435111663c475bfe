"""Returns against numbers of a reference implementation, and against their definition."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.returns import advantages, lambda_returns, n_step_returns, rescale, unscale

T, SEQUENCES = 12, 50

# Computed once with rlax 0.1.9 in double precision, from inputs that are exact in float32: three
# series [3, T], five lambdas of each [3, 5, T], five n; advantages with four lambdas [3, 4, T] from
# values [3, T + 1].
GOLDEN = dict(np.load(Path(__file__).parent / "data" / "returns.npz"))
ADVANTAGES = dict(np.load(Path(__file__).parent / "data" / "advantages.npz"))
RESCALING = dict(np.load(Path(__file__).parent / "data" / "rescaling.npz"))

batched_lambda_returns = jax.jit(jax.vmap(lambda_returns))
batched_advantages = jax.jit(jax.vmap(advantages))


@partial(jax.jit, static_argnums=3)
def batched_n_step_returns(r: Any, discount: Any, v: Any, n: int, cut: Any = None) -> Any:
    return jax.vmap(partial(n_step_returns, n=n))(r, discount, v, cut_t=cut)


def discounted(r: Any, discount: Any, v: Any, first: int, rewards: int) -> float:
    """Add up so many rewards from `first` on, and the value where they end."""
    total, weight = 0.0, 1.0
    for t in range(first, first + rewards):
        total += weight * float(r[t])
        weight *= float(discount[t])
    return total + weight * float(v[first + rewards - 1])


def slow_n_step(r: Any, discount: Any, v: Any, cut: Any, n: int) -> list[float]:
    """Take n rewards, or as many as there are up to and including the first cut or the end."""
    returns = []
    for first in range(len(r)):
        ends = [t for t in range(first, len(r)) if cut[t] or t == len(r) - 1]
        returns.append(discounted(r, discount, v, first, min(n, ends[0] - first + 1)))
    return returns


def slow_lambda(r: Any, discount: Any, v: Any, lambda_t: Any) -> list[float]:
    """Average all n-step returns: each gets what the shorter ones left, times 1 - lambda."""
    returns = []
    for first in range(len(r)):
        total, left = 0.0, 1.0
        for t in range(first, len(r)):
            share = 1.0 if t == len(r) - 1 else 1 - float(lambda_t[t])
            total += left * share * discounted(r, discount, v, first, t - first + 1)
            left *= 1 - share
        returns.append(total)
    return returns


def sequences(seed: int) -> tuple[Any, Any, Any, Any]:
    """Draw rewards, discounts with zeros, values, and cuts (with and without a zero there)."""
    rng = np.random.default_rng(seed)
    r, v = rng.normal(size=(2, SEQUENCES, T)).astype(np.float32)
    shape = (SEQUENCES, T)
    discount = rng.uniform(0.5, 1, shape) * (rng.uniform(size=shape) < 0.85)
    return r, discount.astype(np.float32), v, rng.uniform(size=shape) < 0.2


def assert_close(ours: Any, theirs: Any) -> None:
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("i", range(5), ids=["0", "0.5", "0.9", "1", "varying"])
def test_lambda_returns_equal_the_reference(i: int) -> None:
    inputs = GOLDEN["r_t"], GOLDEN["discount_t"], GOLDEN["v_t"], GOLDEN["lambda_t"][:, i]
    assert_close(batched_lambda_returns(*inputs), GOLDEN["lambda_returns"][:, i])


@pytest.mark.parametrize("i", range(5), ids=map(str, GOLDEN["n"]))
def test_n_step_returns_equal_the_reference(i: int) -> None:
    inputs = GOLDEN["r_t"], GOLDEN["discount_t"], GOLDEN["v_t"], int(GOLDEN["n"][i])
    assert_close(batched_n_step_returns(*inputs), GOLDEN["n_step_returns"][:, i])


@pytest.mark.parametrize("n", [1, 2, 5, T, 40])
def test_n_step_returns_equal_their_definition(n: int) -> None:
    r, discount, v, cut = sequences(n)
    slow = [slow_n_step(*x, n=n) for x in zip(r, discount, v, cut, strict=True)]
    assert_close(batched_n_step_returns(r, discount, v, n, cut), slow)


@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0, None])
def test_lambda_returns_equal_their_definition(lambda_: float | None) -> None:
    r, discount, v, cut = sequences(1)
    varying = np.random.default_rng(2).uniform(size=r.shape)
    lambda_t = np.where(cut, 0, varying if lambda_ is None else lambda_).astype(np.float32)
    slow = [slow_lambda(*x) for x in zip(r, discount, v, lambda_t, strict=True)]
    assert_close(batched_lambda_returns(r, discount, v, lambda_t), slow)


def test_a_lambda_for_all_is_one_for_each() -> None:
    r, discount, v, _ = (x[0] for x in sequences(3))
    each = jnp.full(T, 0.9)
    ours = lambda_returns(r, discount, v, 0.9)
    np.testing.assert_array_equal(ours, lambda_returns(r, discount, v, each))
    np.testing.assert_array_equal(lambda_returns(r, discount, v), lambda_returns(r, discount, v, 1))


def test_the_longest_n_is_lambda_one() -> None:
    r, discount, v, cut = sequences(4)
    lambda_t = np.where(cut, 0, 1).astype(np.float32)
    ours = batched_n_step_returns(r, discount, v, T, cut)
    assert_close(ours, batched_lambda_returns(r, discount, v, lambda_t))


def both(r: Any, discount: Any, v: Any, cut: Any) -> Any:
    """Return the longest returns in both ways, [2, SEQUENCES, T]."""
    lambda_t = np.where(cut, 0, 1).astype(np.float32)
    n_step = batched_n_step_returns(r, discount, v, T, cut)
    return np.stack([n_step, batched_lambda_returns(r, discount, v, lambda_t)])


@pytest.mark.parametrize("at", [0, 4, T - 2])
def test_at_a_cut_the_value_counts_and_nothing_later(at: int) -> None:
    r, discount, v, _ = sequences(5)
    cut = np.broadcast_to(np.arange(T) == at, r.shape)
    later, here = (np.arange(T) > at).astype(np.float32), cut.astype(np.float32)
    before = both(r, discount, v, cut)[..., : at + 1]
    moved = both(r + later, discount + later, v + later, cut)[..., : at + 1]
    np.testing.assert_array_equal(moved, before)
    moved = both(r, discount, v + here, cut)[..., at] - before[..., at]
    assert_close(moved, np.stack([discount[:, at]] * 2))


@pytest.mark.parametrize("at", [0, 4, T - 2])
def test_at_a_termination_not_even_the_value_counts(at: int) -> None:
    r, discount, v, cut = sequences(6)
    discount[:, at] = 0
    no_cut, since = np.zeros_like(cut), (np.arange(T) >= at).astype(np.float32)
    before = both(r, discount, v, no_cut)[..., : at + 1]
    moved = both(r, discount, v + since, no_cut)[..., : at + 1]
    np.testing.assert_array_equal(moved, before)
    assert_close(before[..., at], np.stack([r[:, at]] * 2))


@pytest.mark.parametrize("i", range(4), ids=["0", "0.95", "1", "varying"])
def test_advantages_equal_the_reference(i: int) -> None:
    inputs = (ADVANTAGES[name] for name in ("r_t", "discount_t", "values"))
    assert_close(batched_advantages(*inputs, ADVANTAGES["lambda_t"][:, i]), ADVANTAGES["out"][:, i])


def slow_advantages(r: Any, discount: Any, v: Any, lambda_t: Any) -> list[float]:
    """Sum up temporal-difference errors, each weighed by all discounts and lambdas before it."""
    out = []
    for first in range(len(r)):
        total, weight = 0.0, 1.0
        for t in range(first, len(r)):
            total += weight * float(r[t] + discount[t] * v[t + 1] - v[t])
            weight *= float(discount[t] * lambda_t[t])
        out.append(total)
    return out


def test_advantages_equal_their_definition() -> None:
    r, discount, v, cut = sequences(8)
    v = np.concatenate([v, v[:, :1] + 1], axis=1)
    lambda_t = np.where(cut, 0, 0.9).astype(np.float32)
    slow = [slow_advantages(*x) for x in zip(r, discount, v, lambda_t, strict=True)]
    assert_close(batched_advantages(r, discount, v, lambda_t), slow)


def test_a_time_limit_is_no_termination() -> None:
    """Both end the sum; only after a time limit does the value of where it ends count."""
    r, values = jnp.array([1.0, 2, 99, 4]), jnp.array([10.0, 20, 30, 50, 60])
    gone = advantages(r, jnp.array([0.5, 0, 0.5, 0.5]), values, jnp.array([1.0, 0, 1, 1]))
    cut = advantages(r, jnp.array([0.5, 0.5, 0.5, 0.5]), values, jnp.array([1.0, 0, 1, 1]))
    np.testing.assert_allclose(gone[:2], [1 + 0.5 * 2 - 10, 2 - 20])
    np.testing.assert_allclose(cut[:2], [1 + 0.5 * (2 + 0.5 * 30) - 10, 2 + 0.5 * 30 - 20])


@pytest.mark.parametrize("terminated", [True, False])
def test_nothing_leaks_from_the_next_episode(terminated: bool) -> None:
    """Timestep 5 is the last one of an episode, 6 the start of the next, which is all NaN."""
    r, discount, v, _ = (x[0] for x in sequences(9))
    values: Any = np.append(v, v[0])
    lambda_t: Any = np.full(T, 0.9, np.float32)
    lambda_t[4], discount[4] = 0, 0 if terminated else 0.9  # on arriving at timestep 5
    before = advantages(r, discount, values, lambda_t)[:5]
    r[5:], values[6:], discount[5:] = np.nan, np.nan, np.nan
    after = advantages(r, discount, values, lambda_t)
    np.testing.assert_array_equal(after[:5], before)
    assert np.all(np.isnan(after[5:]))


@pytest.mark.parametrize("n", [0, -1])
def test_no_rewards_are_no_return(n: int) -> None:
    r, discount, v, _ = (x[0] for x in sequences(7))
    with pytest.raises(ValueError, match=re.escape(f"n: {n} is below 1")):
        n_step_returns(r, discount, v, n)


@pytest.mark.parametrize("epsilon", ["0.001", "0.01"])
@pytest.mark.parametrize("f", [rescale, unscale])
def test_rescaling_agrees_with_the_reference(f: Any, epsilon: str) -> None:
    x, out = (RESCALING[f"{f.__name__}/{epsilon}/{part}"] for part in ("x", "out"))
    np.testing.assert_allclose(f(jnp.asarray(x), float(epsilon)), out, rtol=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 1e-3, 1e-2, 1.0])
def test_unscale_inverts_rescale(epsilon: float) -> None:
    """In single precision, also without the linear term, and near zero."""
    size = np.logspace(-6, 4, 200, dtype=np.float32)
    x = np.concatenate([-size, [0], size]).astype(np.float32)
    there = jax.jit(rescale)(x, epsilon)
    back = jax.jit(unscale)(there, epsilon)
    np.testing.assert_allclose(back, x, rtol=1e-6)
    slope = jax.vmap(jax.grad(rescale), (0, None))(x, epsilon)
    assert np.all(np.isfinite(slope)) and np.all(slope > 0)
