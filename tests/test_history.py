"""Metrics of training steps as curves."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.run.history import binned, digest, read, until

# One seed, a warm-up and seven training steps: episodes end in the warm-up, in the second step, in
# the third (two of them) and in the last.
ONE = {
    "episodes": jnp.array([1, 0, 1, 2, 0, 0, 0, 1]),
    "return_sum": jnp.array([5.0, 0.0, 3.0, 1.0, 0.0, 0.0, 0.0, -2.0]),
    "length_sum": jnp.array([9, 0, 5, 7, 0, 0, 0, 4]),
    "steps": jnp.array([10, 4, 4, 3, 4, 4, 4, 3]),
    "reward_sum": jnp.array([5.0, 2.0, 1.0, 0.0, 1.0, 1.0, 1.0, -5.0]),
    "updates": jnp.array([0, 1, 1, 1, 1, 1, 1, 1]),
    "loss_sum": jnp.array([0.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]),
}


def seeds(*factors):
    return {name: jnp.stack([factor * x for factor in factors]) for name, x in ONE.items()}


def test_spans_cover_every_training_step_once():
    # Seven steps in three spans: the warm-up and the first two, then two, then three.
    steps, means = binned(ONE, 3)
    np.testing.assert_array_equal(steps, [18, 25, 36])
    np.testing.assert_array_equal(means["episodes"], [2, 2, 1])
    np.testing.assert_array_equal(means["steps"], [18, 7, 11])
    np.testing.assert_array_equal(means["return"], [4, 0.5, -2])
    np.testing.assert_array_equal(means["length"], [7, 3.5, 4])
    np.testing.assert_array_equal(means["reward"], [8 / 18, 1 / 7, -3 / 11])
    np.testing.assert_array_equal(means["loss"], [6.5, 4.5, 2])


@pytest.mark.parametrize("points", [1, 2, 3, 4, 5, 6, 7])
def test_nothing_is_lost(points):
    steps, means = binned(ONE, points)
    assert steps.shape == means["return"].shape == (points,)
    assert steps[-1] == means["steps"].sum() == 36
    assert np.nansum(means["return"] * means["episodes"]) == 7


def test_a_span_without_an_episode_is_nan():
    _, means = binned(ONE, 7)
    np.testing.assert_array_equal(means["return"], [5, 3, 0.5, np.nan, np.nan, np.nan, -2])


@pytest.mark.parametrize("leading", [(), (2,), (2, 1)])
def test_leading_axes_are_kept_and_steps_are_averaged_over_them(leading):
    metrics = {k: x.reshape(*leading, 8) for k, x in (seeds(1, 3) if leading else ONE).items()}
    steps, means = binned(metrics, 3)
    assert means["return"].shape == (*leading, 3)
    np.testing.assert_array_equal(steps, np.array([18, 25, 36]) * (2 if leading else 1))
    np.testing.assert_array_equal(means["loss"].reshape(-1, 3)[-1], [6.5, 4.5, 2])


def test_sums_are_added_in_double_precision():
    count = 2**15
    metrics = {name: jnp.ones(count, jnp.float32) * 0.1 for name in ONE}
    _, means = binned(metrics, 1)
    np.testing.assert_allclose(means["steps"], count * np.float64(np.float32(0.1)), rtol=1e-12)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (0, "points: 0 is below 1"),
        (8, "points: 8 is above 7"),
        (2.0, "points: 2.0 is not a whole number"),
    ],
)
def test_impossible_points_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        binned(ONE, points)


PAST: dict[str, Any] = {
    "timestep": np.array([8, 16]),
    "step": np.array([7.5, 15.0]),
    "loss": np.array([[1.0, np.nan], [3.0, 4.0]]),
    "evaluation_timestep": np.array([16]),
    "evaluation_step": np.array([15.0]),
    "evaluation_return": np.array([[1.0], [2.0]]),
}


def test_what_was_written_is_read(tmp_path):
    assert read(tmp_path / "metrics.npz") == {}
    np.savez(tmp_path / "metrics.npz", **PAST)
    assert digest(read(tmp_path / "metrics.npz")) == digest(PAST)


def test_the_digest_tells_bits_and_not_layouts_or_orders():
    same = {name: np.asfortranarray(PAST[name]) for name in sorted(PAST)}
    assert digest(same) == digest(PAST) == digest(until(PAST, 16))
    others = [
        until(PAST, 8),
        PAST | {"loss": PAST["loss"].astype(np.float32)},
        PAST | {"loss": -PAST["loss"]},
        {("x" if name == "loss" else name): x for name, x in PAST.items()},
    ]
    assert len({digest(x) for x in (PAST, *others)}) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": np.zeros(2)}, r"loss: float64 of shape .2,., not numbers .seeds, timestep."),
        ({"loss": np.zeros((2, 3))}, r"loss: float64 of shape .2, 3."),
        ({"loss": np.zeros((2, 2, 1))}, "loss: float64 of shape"),
        ({"loss": np.zeros((2, 2), complex)}, "loss: complex128 of shape"),
        ({"loss": np.zeros((2, 2), str)}, "loss: <U1 of shape"),
        ({"loss": np.array([[None, 1]])}, "Object arrays cannot be loaded"),
        ({"timestep": np.array([16, 8])}, "timestep: int64 of shape"),
        ({"timestep": np.array([8.0, 16.0])}, "timestep: float64 of shape"),
        ({"timestep": np.array([[8, 16]])}, "timestep: int64 of shape"),
        ({"step": np.array([8])}, "step: int64 of shape"),
        ({"evaluation_timestep": np.array([8, 16])}, "evaluation_step: float64 of shape"),
        ({"a\nb": np.zeros(3)}, "a b: float64 of shape"),
        ({"timestep": None}, "step is there, but not timestep"),
    ],
)
def test_odd_metrics_are_refused(tmp_path, change, message):
    path = tmp_path / "metrics.npz"
    np.savez(path, **{k: x for k, x in (PAST | change).items() if x is not None})
    with pytest.raises(ValueError, match=rf"\Ametrics: {path} cannot be read \({message}.*\Z"):
        read(path)
