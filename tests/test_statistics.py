"""The interquartile mean against its definition, and bootstrap intervals against their promise."""

import time

import numpy as np
import pytest

from memrl_jax import statistics
from memrl_jax.statistics import bootstrap, carry_forward, iqm, stratified

nan = float("nan")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def middle_half(x):
    """Four copies of each of n values: the quartiles then fall between whole values."""
    n = len(x)
    return np.sort(np.repeat(x, 4))[n : 3 * n].mean()


@pytest.mark.parametrize("n", [*range(1, 14), 100, 101, 102, 103])
def test_iqm_is_the_mean_of_the_middle_half(n):
    x = normal(n, seed=n)
    np.testing.assert_allclose(iqm(x), middle_half(x), rtol=1e-12)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([7], 7),
        ([0, 1], 0.5),
        ([1, 2, 9], 1 / 6 + 4 / 3 + 9 / 6),
        ([3, 0, 2, 1], 1.5),
        ([-1e9, 4, 5, 1e9], 4.5),
        ([0, 1, 2, 3, 100], (0.75 * 1 + 2 + 0.75 * 3) / 2.5),
    ],
)
def test_iqm_of_known_cases(x, expected):
    np.testing.assert_allclose(iqm(x), expected, rtol=1e-12)


@pytest.mark.parametrize("n", range(1, 12))
@pytest.mark.parametrize("value", [0.1, -1 / 3, 1e300])
def test_iqm_of_equal_values_is_that_value_exactly(n, value):
    assert iqm([value] * n) == value


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_iqm_along_an_axis_is_that_of_every_slice(axis):
    x = normal(3, 5, 6)
    slices = np.apply_along_axis(middle_half, axis, x)
    np.testing.assert_allclose(iqm(x, axis), slices, rtol=1e-12)


def test_iqm_leaves_its_input_as_it_was():
    x = normal(7)
    before = x.copy()
    iqm(x)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("function", [iqm, bootstrap])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([1, nan, 3], "1 of 3 values are NaN"),
        ([1, 2, np.inf], "1 of 3 values are NaN or infinite"),
        ([], "holds no value"),
        ([1, 2j], "^x: complex128 is not a type of real numbers$"),
        (["1"], "^x: <U1 is not a type of real numbers$"),
        ([None], "^x: object is not a type of real numbers$"),
        ([[1], [2, 3]], "^x: rows of different lengths, or no array at all$"),
    ],
)
def test_values_without_a_mean_are_refused(function, x, message):
    with pytest.raises(ValueError, match=message):
        function(x)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        ([1, 2], {"level": 95}, "level: 95 is not between 0 and 1"),
        ([1, 2], {"level": nan}, "level: nan is not between 0 and 1"),
        ([1, 2], {"level": "95"}, "level: '95' is not a number"),
        ([1, 2], {"level": 1}, "level: 1 is not inside"),
        ([1, 2], {"level": 0.0}, "level: 0.0 is not inside"),
        ([1, 2], {"resamples": 0}, "resamples: 0 is below 1"),
        ([1, 2], {"resamples": 1.5}, "resamples: 1.5 is not a whole number"),
        ([1, 2], {"seed": -1}, "seed: -1 is below 0"),
        (1.0, {}, r"x: shape \(\) is not \[seeds, ...\]"),
    ],
)
def test_bootstrap_names_the_wrong_option(x, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap(x, **options)


def test_a_number_alone_has_no_mean_and_one_axis_no_tasks():
    with pytest.raises(ValueError, match=r"^x: shape \(\) has no axis of values$"):
        iqm(1.0)
    with pytest.raises(ValueError, match=r"^x: shape \(2,\) is not \[tasks, seeds, ...\]$"):
        stratified([1.0, 2.0])


@pytest.mark.parametrize("seeds", [2, 3, 4, 5, 8])
def test_coverage_is_that_of_the_bootstrap(seeds):
    trials, said = 2000, statistics.coverage(seeds)
    parts = [bootstrap(x, seed=i) for i, x in enumerate(normal(10, seeds, trials // 10, seed=1))]
    covered = np.mean([(part.low <= 0) & (part.high >= 0) for part in parts])
    assert abs(covered - said) < 0.005 + 3 * np.sqrt(said * (1 - said) / trials)


def test_coverage_grows_with_the_seeds_up_to_what_is_said():
    covered = [statistics.coverage(seeds) for seeds in range(1, 100)]
    assert covered == sorted(covered) and (covered[0], covered[-1]) == (0, 0.95)
    with pytest.raises(ValueError, match=r"^seeds: 0 is below 1$"):
        statistics.coverage(0)


@pytest.mark.parametrize(
    ("seeds", "level", "expected"),
    [
        ([1], 0.95, "1 seed, no interval"),
        ([1, 1], 0.9, "1 seed, no interval"),
        ([3], 0.95, "95 % bootstrap interval; covers about 75 % with 3 seeds"),
        ([5, 1, 2], 0.95, "95 % bootstrap interval; covers about 50 % with 2 seeds, 91 % with 5"),
        ([20], 0.95, "95 % bootstrap interval of 20 seeds"),
        ([20, 30], 0.95, "95 % bootstrap interval"),
        ([3, 20], 0.8, "80 % bootstrap interval; too narrow with 3 seeds"),
    ],
)
def test_caption_of_intervals(seeds, level, expected):
    assert statistics.caption(seeds, level) == expected


@pytest.mark.parametrize("statistic", [iqm, np.mean])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_intervals_cover_the_true_value_as_often_as_they_say(statistic, level):
    trials, seeds = 800, 50
    x = normal(seeds, trials)  # one trial is one point: columns are independent
    interval = bootstrap(x, statistic, level, resamples=400)
    covered = np.mean((interval.low <= 0) & (interval.high >= 0))
    chance = 4 * np.sqrt(level * (1 - level) / trials)
    too_narrow = 0.02  # what a percentile interval is known to lack with 50 seeds
    assert level - too_narrow - chance < covered < level + chance


def test_interval_holds_the_estimate_and_widens_with_the_level():
    x = normal(8, 20)
    narrow, wide = bootstrap(x, level=0.5), bootstrap(x, level=0.99)
    np.testing.assert_array_equal(narrow.estimate, iqm(x))
    assert (wide.low < narrow.low).all() and (narrow.high < wide.high).all()
    assert (wide.low <= wide.estimate).all() and (wide.estimate <= wide.high).all()


def test_interval_narrows_as_the_root_of_the_seeds():
    def width(seeds):
        interval = bootstrap(normal(seeds, 100), np.mean, resamples=400)
        return np.mean(interval.high - interval.low)

    np.testing.assert_allclose(width(25) / width(100), 2, rtol=0.1)


@pytest.mark.parametrize("x", [3.25, [0.1, 0.2]])
def test_interval_of_one_seed_is_the_estimate(x):
    for end in bootstrap([x]):
        np.testing.assert_array_equal(end, x)


def test_bootstrap_repeats_itself_and_depends_on_its_seed():
    x = normal(8, 5)
    first, again, other = bootstrap(x), bootstrap(x), bootstrap(x, seed=1)
    np.testing.assert_array_equal(first, again)
    assert (first.low != other.low).any()


def test_points_of_a_curve_share_their_resamples():
    x = normal(8)
    curve = bootstrap(np.stack([x, x, x + 4], axis=1))
    for end, alone in zip(curve, bootstrap(x), strict=True):
        np.testing.assert_allclose(end - [0, 0, 4], alone, rtol=1e-12)


def test_result_does_not_depend_on_the_block_size(monkeypatch):
    x = normal(6, 4)
    whole = bootstrap(x, resamples=50)
    monkeypatch.setattr(statistics, "_BLOCK", 7)
    np.testing.assert_array_equal(bootstrap(x, resamples=50), whole)


def test_bootstrap_is_stratified_with_one_task():
    x = normal(6, 4)
    np.testing.assert_array_equal(bootstrap(x), stratified(x[None]))


def test_stratified_resamples_within_tasks_and_each_on_its_own():
    tasks, seeds, resamples = 3, 5, 40
    x = np.arange(seeds) + 100 * np.arange(tasks)[:, None]
    seen = []

    def record(runs, axis):
        seen.append(runs)
        return iqm(runs, axis)

    stratified(x, record, resamples=resamples)
    drawn = seen[0].reshape(resamples, tasks, seeds)
    np.testing.assert_array_equal(drawn // 100, np.broadcast_to([[0], [1], [2]], drawn.shape))
    assert (drawn[:, 0] != drawn[:, 1] - 100).any(axis=-1).mean() > 0.9
    assert len(np.unique(drawn)) == tasks * seeds


def test_stratified_aggregates_over_all_runs():
    x = normal(4, 6, 3)
    result = stratified(x)
    np.testing.assert_array_equal(result.estimate, iqm(x.reshape(24, 3)))
    assert result.low.shape == result.high.shape == (3,)


def test_tasks_far_apart_do_not_widen_a_stratified_interval():
    x = np.repeat([[0.0], [10.0]], 8, axis=1)
    assert stratified(x, np.mean) == (5, 5, 5)
    assert bootstrap(x.ravel(), np.mean).low < 5


def test_a_curve_is_bootstrapped_in_half_a_second():
    x = normal(8, 200)

    def seconds():
        start = time.perf_counter()
        bootstrap(x, resamples=2000)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.5


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, nan, nan, 4], [1, 1, 1, 4]),
        ([nan, 2, nan, 3], [nan, 2, 2, 3]),
        ([nan, nan, nan, nan], [nan, nan, nan, nan]),
        ([1, 2, 3, 4], [1, 2, 3, 4]),
    ],
)
def test_carry_forward_fills_each_seed_from_its_own_past(values, expected):
    other = [9, nan, 8, nan]
    filled = carry_forward([values, other])
    np.testing.assert_array_equal(filled, [expected, [9, 9, 8, 8]])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, nan], r"values: shape \(2,\) is not \[seeds, points\]"),
        (np.zeros((2, 0)), r"values: shape \(2, 0\) is not \[seeds, points\]"),
        ([[1j]], "values: complex128 is not a type of real numbers"),
    ],
)
def test_carry_forward_wants_seeds_and_points(values, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        carry_forward(values)
