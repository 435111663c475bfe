"""Sums at the border of what one number can follow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.run import sums
from memrl_jax.run.sums import Sum

LAST = 2**31 - 1


def repeated(start: sums.Sums, metrics: dict, steps: int) -> dict[str, np.ndarray]:
    """Add the same metrics in a compiled loop, as training does."""
    loop = jax.jit(lambda s: jax.lax.fori_loop(0, steps, lambda _, s: sums.add(s, metrics), s))
    return sums.totals(loop(start))


NOTHING = {"reward_sum": jnp.float32(0), "loss_sum": jnp.float32(0), "steps": jnp.int32(0)}


def at(steps: int) -> sums.Sums:
    """Return sums of which that of steps has reached a number, the others 0."""
    parts = steps // sums.CARRY, steps % sums.CARRY
    zeros = sums.zeros(NOTHING)
    return sums.Sums(Sum(*(jnp.int32([x]) for x in parts)), zeros.floats, zeros.names)


@pytest.mark.parametrize("before", [0, LAST - 3, LAST, 2**31, 2**32 - 2, 5 * 2**31 - 1, 2**53])
@pytest.mark.parametrize("x", [0, 1, 3, LAST])
def test_whole_numbers_are_exact_beyond_int32(before: int, x: int) -> None:
    total = repeated(at(before), {**NOTHING, "steps": jnp.int32(x)}, 7)["steps"]
    assert total.dtype == np.int64 and total == before + 7 * x


def test_floats_keep_what_rounding_takes() -> None:
    """In float32 alone, 2^24 + 1 is 2^24 again."""
    zeros = jnp.zeros(2, jnp.float32)
    big = sums.Sums(at(0).integers, Sum(zeros + 2**24, zeros), at(0).names)
    total = repeated(big, {**NOTHING, "loss_sum": jnp.float32(1)}, 1000)["loss_sum"]
    assert total.dtype == np.float64 and total == 2**24 + 1000
    total = repeated(at(0), {**NOTHING, "loss_sum": jnp.float32(-0.1)}, 1_000_000)["loss_sum"]
    np.testing.assert_allclose(total, -1e6 * np.float64(np.float32(0.1)), rtol=1e-10)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_was_first_not_finite_can_be_told(bad: float) -> None:
    begun = at(LAST)
    for step in range(5):
        reward = jnp.float32(bad if step == 2 else 1)
        loss = jnp.float32(np.nan if step == 3 else 1)
        begun = sums.add(begun, {"reward_sum": reward, "loss_sum": loss, "steps": jnp.int32(4)})
    total = sums.totals(begun)
    np.testing.assert_equal(total["reward_sum"], bad)
    assert total["loss_sum"] == 3 and total["steps"] == LAST + 12


def test_sums_of_many_metrics_are_few_arrays() -> None:
    many = {f"loss_{i}": jnp.float32(0) for i in range(20)} | NOTHING
    assert len(jax.tree.leaves(sums.zeros(many))) == 4
