"""Replay memories against what their definition says, held in Python deques."""

import os
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memrl_jax import tree
from memrl_jax.replay import REPLAYS, ring, uniform
from memrl_jax.testing.replay import PROPERTIES, SIZES
from memrl_jax.testing.replay_trial import DRAWS, Trial, play, try_out
from memrl_jax.testing.streams import Case, Oracle, first, noise, segments, stream
from memrl_jax.types import Segment, TimeStep

DTYPES = ["float32", "uint8", "bool", "int8", "int32", "float16"]


CASES = [
    Case(7, 1, 1, 1, 3, "float32"),  # transitions
    Case(13, 1, 4, 1, 2, "uint8"),
    Case(5, 4, 6, 1, 3),  # 20 rows in windows of 7
    Case(4, 3, 1, 1, 1, "bool"),
    Case(2, 5, 9, 1, 2, "int8"),  # one window fills the ring
    Case(5, 3, 7, 3, 2),  # from stored memories
    Case(3, 4, 4, 4, 3, "float16"),
    Case(4, 6, 5, 2, 2, "int32"),  # aligned, but not with the segments
    Case(1, 8, 3, 8, 2, "float32"),  # one segment that is always replaced
]


@cache
def trial(name: str, case: Case) -> Trial:
    return try_out(REPLAYS[name], case)


def machine(case: Case) -> Any:
    """Return a uniform replay memory, its first state, and its functions, compiled."""
    _, _, replay, empty, add, sample, _ = trial("uniform", case)
    return replay, empty, add, sample


def bits(x: Any) -> tuple[str, tuple[int, ...], bytes]:
    return x.dtype.name, x.shape, np.asarray(x).tobytes()


def assert_same_bits(ours: Any, theirs: Any) -> None:
    assert jax.tree.map(bits, ours) == jax.tree.map(bits, theirs)


@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
@pytest.mark.parametrize("case", SIZES, ids=str)
@pytest.mark.parametrize("name", REPLAYS)
def test_replays_keep_what_the_checks_hold(name: str, case: Case, holds: Any) -> None:
    holds(trial(name, case), 0)


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 2**31))
def test_holds_and_draws_what_the_definition_says(case: Case, bursts: list[int], seed: int) -> None:
    """Every window that is whole, each with the same weight."""
    tried = trial("uniform", case)
    for oracle, _, sample in play(tried, bursts, seed):
        environment, time = first(sample)
        drawn = set(zip(environment.tolist(), time.tolist(), strict=True))
        assert drawn == {(e, t) for e in range(case.environments) for t in oracle.starts()}
        np.testing.assert_array_equal(sample.weight, np.ones(DRAWS, np.float32), strict=True)
    assert tried.add._cache_size() == 1 and tried.sample._cache_size() <= 1


@pytest.mark.parametrize("case", [CASES[2], CASES[5], CASES[7]], ids=str)
@pytest.mark.parametrize("added", ["partly filled", "full", "wrapped"])
def test_every_window_is_equally_likely(case: Case, added: str) -> None:
    count = {"partly filled": 3, "full": case.segments, "wrapped": 3 * case.segments + 2}[added]
    _, state, add, sample = machine(case)
    oracle = Oracle(case)
    for segment in segments(case, 1, count):
        state = add(state, segment)
        oracle.add(segment)
    keys = jax.random.split(jax.random.key(2026), 64)
    drawn = np.concatenate([first(sample(key, state)) for key in keys], axis=1)
    _, seen = np.unique(drawn, axis=1, return_counts=True)
    cells = len(oracle.starts()) * case.environments
    expected = DRAWS * len(keys) / cells
    assert len(seen) == cells
    chi_squared = np.sum((seen - expected) ** 2) / expected
    p = jax.scipy.special.gammaincc((cells - 1) / 2, chi_squared / 2)
    assert p > 1e-4


def test_priorities_mean_nothing_to_uniform_replay() -> None:
    replay, state, _, sample = machine(CASES[0])
    index = sample(jax.random.key(0), state).index
    same, counts = replay.update(state, index, jnp.arange(DRAWS))
    assert same is state and counts == {}


@pytest.mark.parametrize(
    "shape, dtype", [((4,), "float32"), ((10, 10, 4), "bool"), ((84, 84), "uint8")]
)
def test_rows_are_as_small_as_their_observations(shape: tuple[int, ...], dtype: str) -> None:
    z = jnp.zeros(2)
    observation = jnp.zeros((2, *shape), dtype)
    timestep = TimeStep(observation, z.astype(jnp.int32), z, z, z > 0, z > 0)
    init = uniform(segments=50, period=4, length=1, batch_size=1).init
    state = jax.eval_shape(init, Segment(jnp.zeros((2, 64)), timestep, timestep.action, ()))
    assert tree.nbytes(state.record) / (50 * 4 * 2) <= observation[0].nbytes + 16
    assert tree.nbytes(state) == tree.nbytes(state.record) + 4  # no memory is stored, only a count


leaves = st.tuples(
    st.sampled_from([*DTYPES, "int16", "uint32"]), st.sampled_from([(), (0,), (3,), (2, 5)])
)
trees = st.recursive(
    leaves.map(list),  # a list is a leaf here, a tuple or a dict is not
    lambda x: st.lists(x, max_size=3).map(tuple) | st.dictionaries(st.sampled_from("abc"), x),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(trees, st.integers(0, 2**31))
def test_packing_keeps_every_bit(shapes: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    row = jax.tree.map(
        lambda x: noise(rng, x[1], x[0]), shapes, is_leaf=lambda x: isinstance(x, list)
    )
    row = (row, noise(rng, (), "float32"))
    record, again = jax.device_get(pack_and_unpack(row))
    assert record.dtype == jnp.uint32 and 0 <= record.nbytes - tree.nbytes(row) < 4
    assert_same_bits(again, row)


@jax.jit
def pack_and_unpack(row: Any) -> Any:
    fields = jax.tree.map(lambda x: jnp.zeros((0, *x.shape), x.dtype), row)
    record = ring.pack(row)
    return record, ring.unpack(fields)(record)


def test_packing_keeps_double_precision() -> None:
    with jax.enable_x64(True):
        row = {"x": jnp.array([np.pi, np.nan]), "n": jnp.array(-(2**40)), "b": jnp.array([True])}
        assert_same_bits(pack_and_unpack(row)[1], row)


GOOD = {"segments": 4, "period": 6, "length": 5, "batch_size": 8, "stride": 3}


@pytest.mark.parametrize("name", REPLAYS)
@pytest.mark.parametrize(
    "change, message",
    [
        *(({field: 0}, f"^{field}: 0 is below 1$") for field in GOOD),
        *(({field: -2}, f"^{field}: -2 is below 1$") for field in GOOD),
        *(({field: 2.0}, f"^{field}: 2.0 is not a whole number$") for field in GOOD),
        ({"period": True}, "^period: True is not a whole number$"),
        ({"stride": 4}, "^period: 6 is not a multiple of stride = 4$"),
        ({"stride": 12}, "^period: 6 is not a multiple of stride = 12$"),
        ({"length": 24}, "^length: .* 24 actions has 25 timesteps, .* = 4 x 6 = 24$"),
        ({"segments": 4_000_000_000}, "^segments: 4000000000 is above 2147483647$"),
        (
            {"segments": 2**28},
            "^segments: 268435456 of period = 6 are 1610612736 timesteps, above 1073741823$",
        ),
    ],
    ids=str,
)
def test_sizes_that_cannot_be_are_refused(name: str, change: Any, message: str) -> None:
    REPLAYS[name](**GOOD)
    with pytest.raises(ValueError, match=message):
        REPLAYS[name](**GOOD | change)


@pytest.mark.parametrize("name", REPLAYS)
def test_rings_that_cannot_be_counted_are_refused(name: str) -> None:
    """Their environments are known when the first segment is."""
    timestep, extras, _ = jax.tree.map(lambda x: x[0], stream(CASES[2], 0, 0))
    example = Segment((), timestep, timestep.action, extras)
    most = 2**30 // (6 * CASES[2].environments)
    fits = REPLAYS[name](**GOOD | {"segments": most})
    assert jax.eval_shape(fits.init, example)
    replay = REPLAYS[name](**GOOD | {"segments": most + 1})
    count = 3 * 6 * (most + 1)
    message = f"^segments: {most + 1} of period = 6 .* 3 environments are {count} .* {2**30 - 1}"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(replay.init, example)


def test_rows_of_the_largest_ring_are_counted_right() -> None:
    shape = ring.windows(ring.MOST // 31, 31, 29, 1, 4)
    for added in (5, shape.segments, shape.turn - 1, shape.turn - shape.segments - 1):
        held = ring.Ring(None, None, (), jnp.int32(added))  # type: ignore[arg-type]
        row, whole = (np.asarray(x, np.int64) for x in ring.changed(shape, held))
        last, oldest = added * 31 - 1, max(0, added - shape.segments) * 31  # times
        time = last - (last - row) % shape.rows  # when the row was written last
        expected = (time - 3 >= oldest) & (time + 29 <= last)
        np.testing.assert_array_equal(whole, expected)
        assert (last - 29) % shape.rows in row
        assert (oldest + 2) % shape.rows in row or added <= shape.segments
        first, count = ring.starts(shape, held)
        assert first == (oldest + 3) % shape.rows
        assert count == min(added, shape.segments) * 31 - 3 - 29


@pytest.mark.parametrize("name", REPLAYS)
def test_what_is_drawn_before_a_window_is_whole_weighs_nothing(name: str) -> None:
    case = CASES[2]
    replay = REPLAYS[name](case.segments, case.period, case.length, 8)
    parts = segments(case, 0, replay.warmup)
    state = jax.jit(replay.init)(jax.tree.map(lambda x: x[0], parts[0]._replace(memory=())))
    add, sample = jax.jit(replay.add), jax.jit(replay.sample)
    for part in parts:
        assert not replay.can_sample(state)
        drawn = sample(jax.random.key(0), state)
        np.testing.assert_array_equal(drawn.weight, np.zeros(8, np.float32), strict=True)
        state = add(state, part)
    assert replay.can_sample(state) and (sample(jax.random.key(0), state).weight == 1).all()


def test_a_ring_that_has_counted_to_the_end_goes_on_like_any_other() -> None:
    case = CASES[2]
    _, young, add, sample = machine(case)
    parts = segments(case, 3, 14)
    for part in parts[:5]:
        young = add(young, part)
    end = ring.windows(5, 4, 6, 1, 1).turn
    old = young._replace(added=jnp.int32(end - 5))
    for part in parts[5:]:
        young, old = add(young, part), add(old, part)
        assert_same_bits(*(sample(jax.random.key(0), state) for state in (young, old)))
    assert (young.added, old.added) == (14, 5 + 4) and end % 5 == 0


def test_a_window_may_fill_the_ring() -> None:
    assert uniform(segments=4, period=6, length=23, batch_size=1).warmup == 4


@pytest.mark.parametrize("jit", [jax.jit, lambda f: f], ids=["traced", "eager"])
def test_segments_of_another_length_are_refused(jit: Any) -> None:
    replay, state, _, _ = machine(CASES[2])
    segment = segments(CASES[2]._replace(period=5), 0, 1)[0]
    with pytest.raises(ValueError, match=r"^period: .* segments of 4 actions, this one has 5\b"):
        jit(replay.add)(state, segment)


def batch_of_two(segment: Segment) -> Segment:
    return jax.tree.map(lambda x: x[:, :2], segment._replace(memory=()))


def whole_rewards(segment: Segment) -> Segment:
    reward = segment.timestep.reward.view("int32")
    return segment._replace(timestep=segment.timestep._replace(reward=reward))


def longer_mask(segment: Segment) -> Segment:
    return segment._replace(extras=segment.extras | {"mask": np.zeros((4, 3, 5), bool)})


@pytest.mark.parametrize(
    "change, message",
    [
        (batch_of_two, r"^timestep.observation.a: float32\[4, 2, 14\] .* float32\[4, 3, 14\]$"),
        (whole_rewards, r"^timestep.reward: int32\[4, 3\] .* float32\[4, 3\]$"),
        (longer_mask, r"^extras.mask: bool\[4, 3, 5\] .* bool\[4, 3, 3\]$"),
    ],
)
def test_segments_unlike_the_example_are_refused(change: Any, message: str) -> None:
    replay, state, _, _ = machine(CASES[2])
    with pytest.raises(ValueError, match=message):
        replay.add(state, change(segments(CASES[2], 0, 1)[0]))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core has nothing to divide")
def test_a_small_batch_is_not_divided_between_threads() -> None:
    """XLA splits reads of large arrays, which takes longer than reading a few rows."""
    memory = uniform(segments=100_000, period=1, length=1, batch_size=128)
    timestep = TimeStep(*(jnp.zeros(2, x) for x in ("f4", "i4", "f4", "f4", "?", "?")))
    full = jax.eval_shape(memory.init, Segment((), timestep, timestep.action, ()))

    def rows(key: Any, state: Any) -> Any:
        return state.record.reshape(-1, 5)[jax.random.randint(key, (128,), 0, 200_000)]

    def divided(draw: Any) -> int:
        compiled = jax.jit(draw).lower(jax.random.key(0), full).compile()
        return str(compiled.as_text()).count('outer_dimension_partitions":["')

    assert divided(rows) > 0 == divided(memory.sample)
