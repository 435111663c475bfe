"""Running statistics against NumPy's of everything at once, in double precision."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax import normalize
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import TimeStep

T, B = 5, 4
update = jax.jit(normalize.update)


def counted(mean: float, std: float, updates: int = 40) -> tuple[Any, Any]:
    """Count batches with a mask; return the statistics and all that counted [N, 3]."""
    rng = np.random.default_rng(0)
    statistics, seen = normalize.moments((3,)), []
    for _ in range(updates):
        x = (mean + std * rng.normal(size=(T, B, 3))).astype(np.float32)
        mask = rng.uniform(size=(T, B)) < 0.7
        statistics = update(statistics, np.where(mask[..., None], x, np.nan), mask)
        seen.append(x[mask])
    return statistics, np.concatenate(seen).astype(float)


@pytest.mark.parametrize(
    ("mean", "std"), [(0.0, 1.0), (3.0, 1e-3), (1e4, 1.0), (-1e6, 10.0), (1e-3, 1e6)]
)
def test_moments_are_those_of_all_that_counted(mean: float, std: float) -> None:
    """What does not count may be NaN; a large mean costs no more digits than the numbers have."""
    with jax.numpy_rank_promotion("raise"):
        statistics, seen = counted(mean, std)
    assert all(x.dtype == np.float32 and not x.weak_type for x in statistics)
    assert statistics.counted == len(seen)
    digits = 2 * np.spacing(np.float32(abs(mean)))
    np.testing.assert_allclose(
        statistics.mean, seen.mean(axis=0), rtol=1e-5, atol=digits + 1e-5 * std
    )
    np.testing.assert_allclose(statistics.variance, seen.var(axis=0), rtol=1e-3)


def test_one_step_at_a_time_is_the_same() -> None:
    x = np.random.default_rng(0).normal(7, 2, size=(100, 1, 1)).astype(np.float32)
    statistics, mask = normalize.moments(()), np.ones((1, 1), bool)
    for step in x:
        statistics = update(statistics, step[None, 0], mask)
    np.testing.assert_allclose(statistics.mean, x.mean(), rtol=1e-5)
    np.testing.assert_allclose(statistics.variance, x.var(), rtol=1e-4)


def test_nothing_counted_changes_nothing() -> None:
    nothing = np.zeros((T, B), bool)
    for statistics in (normalize.moments((3,)), counted(3.0, 2.0, updates=2)[0]):
        after = update(statistics, np.full((T, B, 3), np.nan), nothing)
        for new, old in zip(after, statistics, strict=True):
            np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("constant", [0.0, 0.3, 1e6, -1e-9])
def test_what_never_changes_becomes_zero(constant: float) -> None:
    statistics, x = normalize.moments(()), jnp.full((T, B), constant, jnp.float32)
    for _ in range(3):
        statistics = update(statistics, x, jnp.ones((T, B), bool))
    space = Continuous((), jnp.float32, -np.inf, np.inf)
    np.testing.assert_allclose(normalize.observations(space, statistics, x), 0, atol=1e-3)


def test_observations_are_normalised_part_by_part() -> None:
    """Floats are; what the encoder scales by declared bounds stays as it is."""
    space = {
        "box": Continuous((3,), jnp.float32, -np.inf, np.inf),
        "image": Continuous((2, 2, 1), jnp.uint8, 0, 255),
        "cue": Discrete(3),
    }
    rng = np.random.default_rng(1)
    seen: dict[str, Any] = {
        "box": rng.normal([0, 50, -3], [1, 9, 0.1], size=(T, B, 3)).astype(np.float32),
        "image": rng.integers(256, size=(T, B, 2, 2, 1), dtype=np.uint8),
        "cue": rng.integers(3, size=(T, B), dtype=np.int32),
    }
    fresh = normalize.of_observations(space)
    with jax.numpy_rank_promotion("raise"):
        before = normalize.observations(space, fresh, seen)
        statistics = normalize.update_observations(space, fresh, seen, jnp.ones((T, B), bool))
        after = normalize.observations(space, statistics, seen)
    np.testing.assert_allclose(before["box"], np.clip(seen["box"], -10, 10), rtol=1e-6)
    np.testing.assert_allclose(after["box"].mean(axis=(0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(after["box"].std(axis=(0, 1)), 1, rtol=1e-4)
    assert after["box"].dtype == np.float32
    for name in ("image", "cue"):
        assert statistics[name] == () and after[name] is seen[name]
    chex.assert_trees_all_equal_shapes_and_dtypes(statistics, fresh)
    far = normalize.observations(space, statistics, seen | {"box": seen["box"] * 1e6})
    assert np.abs(far["box"]).max() == normalize.LIMIT


def arrivals(rng: Any) -> TimeStep:
    start = jnp.asarray(rng.uniform(size=(T, B)) < 0.3)
    reward = jnp.where(start, 0.0, rng.normal(5, 2, size=(T, B)).astype(np.float32))
    zeros = jnp.zeros((T, B))
    return TimeStep(zeros, zeros, reward, zeros + 1, start, zeros > 0)


def test_the_unit_of_rewards_is_the_deviation_of_their_discounted_sums() -> None:
    """Sums begin with episodes, also over the borders of rollouts; starts are not counted."""
    rng = np.random.default_rng(2)
    statistics, slow_sums = normalize.of_rewards(B), []
    total = np.zeros(B)
    for _ in range(20):
        timestep = arrivals(rng)
        statistics = normalize.update_rewards(statistics, timestep, 0.9)
        for reward, start in zip(timestep.reward, timestep.start, strict=True):
            total = np.where(start, 0, 0.9 * total + reward)
            slow_sums += list(total[~start])
    std = np.std(slow_sums)
    np.testing.assert_allclose(statistics.total, total, rtol=1e-5)
    np.testing.assert_allclose(statistics.moments.variance, std**2, rtol=1e-4)
    reward = jnp.array([[-3.0, 0.0], [5.0, 1e9]])
    np.testing.assert_allclose(
        normalize.rewards(statistics, reward), np.minimum(reward / std, 10), rtol=1e-4
    )
