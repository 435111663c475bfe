"""Prioritized and uniform replay against their definition, over thousands of random sequences.

A sequence of operations adds segments, draws windows, and sets the priorities of those drawn last.
A thousand of them are played side by side. The oracle knows no ring and no tree: it keeps every
window that ever was, by the time at which it begins.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax import tree
from memrl_jax.replay import REPLAYS, prioritized, ring, sum_tree, uniform
from memrl_jax.types import ReplayMemory, Sample, Segment, TimeStep

ADD, SAMPLE, UPDATE = range(3)
STEPS, DRAWS = 30, 4
close = partial(np.testing.assert_allclose, rtol=3e-6)


def cooling(updates: Any) -> Any:
    return 0.3 + 0.7 / (1 + 0.2 * updates)


def warming(updates: Any) -> Any:
    return 1 - 0.6 / (1 + 0.1 * updates)


def at(schedule: Any, updates: Any) -> Any:
    return schedule(updates) if callable(schedule) else schedule


class Case(NamedTuple):
    """Sizes and options of a replay memory."""

    segments: int
    period: int
    length: int
    stride: int = 1
    environments: int = 2
    frames: int = 1
    radix: int = 16
    exponent: float | Callable = 0.6
    importance: float | Callable = 0.4

    @property
    def rows(self) -> int:
        return self.segments * self.period

    @property
    def stored(self) -> bool:
        return self.stride == self.period > 1

    def replay(self, name: str, draws: int = DRAWS) -> ReplayMemory:
        sizes = (self.segments, self.period, self.length, draws, self.stride)
        if name == "uniform":
            return uniform(*sizes, frames=self.frames)
        return prioritized(*sizes, self.exponent, self.importance, self.radix, self.frames)


CASES = {
    "transitions": Case(7, 1, 1, environments=3, radix=2),
    "windows that do not divide the capacity": Case(5, 4, 6, radix=3, exponent=cooling),
    "one window fills the ring": Case(2, 5, 9, exponent=0.0, importance=1.0),
    "stored": Case(5, 3, 7, stride=3, exponent=1.0, importance=warming),
    "stride divides period": Case(4, 6, 5, stride=2, radix=3, exponent=cooling, importance=warming),
    "one segment": Case(1, 8, 3, radix=8),
    "one segment, stored": Case(1, 6, 3, stride=6, environments=3, importance=0.0),
    "frames": Case(4, 3, 2, frames=3, exponent=warming),
    "frames, transitions": Case(9, 1, 1, frames=4, environments=1, radix=64),
    "frames, stride divides period": Case(3, 6, 3, stride=2, frames=4, importance=cooling),
    "frames, stored": Case(4, 3, 2, stride=3, frames=3, radix=2),
}


def noise(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    """Draw random bits: floats of all kinds, NaN among them."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(rng.bytes(size), dtype).reshape(shape)


def stack(frame: Any, start: Any, count: int) -> Any:
    """Put `count` frames side by side, at an episode's start the first one of it repeated."""
    stacks = [np.concatenate([frame[0]] * count, axis=-1)]
    for new, begins in zip(frame[1:], start[1:, :, None], strict=True):
        pushed = np.concatenate([stacks[-1][:, new.shape[-1] :], new], axis=-1)
        stacks.append(np.where(begins, np.concatenate([new] * count, axis=-1), pushed))
    return np.stack(stacks)


def stream(case: Case, segments: int) -> Any:
    """Make all that happens: one long segment, with a memory for every step."""
    shape: Any = (segments * case.period + 1, case.environments)
    rng = np.random.default_rng(0)
    start: Any = rng.random(shape) < 0.3
    # The last number in the newest frame tells the time and the environment.
    code = np.arange(shape[0] * shape[1], dtype=np.int32).reshape(*shape, 1)
    frame = np.concatenate([noise(rng, code.shape, np.int32), code], axis=-1)
    timestep = TimeStep(
        observation=stack(frame, start, case.frames),
        action=noise(rng, shape, np.int32),
        reward=noise(rng, shape, np.float32),
        discount=noise(rng, shape, np.float32),
        start=start,
        last=noise(rng, shape, np.uint8) > 127,
    )
    extras = {"log_prob": noise(rng, shape, np.float32)[:-1]}
    return Segment(noise(rng, (*shape, 2), np.float32), timestep, timestep.action[1:], extras)


def cut(everything: Segment, begin: Any, length: int) -> Segment:
    """Return the segments of `length` actions that begin at these times [...]."""
    row = begin[..., None] + np.arange(length + 1)
    timestep = jax.tree.map(lambda x: x[row], everything.timestep)
    steps = everything.action, everything.extras
    action, extras = jax.tree.map(lambda x: x[row[..., :-1]], steps)
    return Segment(everything.memory[begin], timestep, action, extras)


def example(everything: Segment) -> Segment:
    return jax.tree.map(lambda x: x[0], everything)


def begun(case: Case, sample: Sample) -> Any:
    """Return the time and the environment at which each window begins."""
    return divmod(sample.segment.timestep.observation[..., 0, :, -1], case.environments)


class Oracle:
    """Every window of many sequences, by the time and the environment in which it begins.

    Its weight is priority ** exponent, [sequences, times, environments], and 0 if it is not whole.
    """

    def __init__(self, case: Case, count: int, segments: int) -> None:
        self.case, self.time = case, np.arange((segments + case.segments) * case.period)
        self.weight = np.zeros((count, len(self.time), case.environments), np.float32)
        self.added, self.updates = np.zeros((2, count, 1), int)
        self.largest = np.ones((count, 1), np.float32)
        self.sequence = np.arange(count)[:, None]

    def raised(self, priority: Any) -> Any:
        return (priority + 1e-6) ** at(self.case.exponent, self.updates)

    def oldest(self) -> Any:
        return np.maximum(0, self.added - self.case.segments) * self.case.period

    def add(self, adding: Any) -> None:
        self.added += adding
        first, last = self.time - (self.case.frames - 1), self.time + self.case.length
        held = (first >= self.oldest()) & (last < self.added * self.case.period)
        whole = held & (self.time % self.case.stride == 0)
        weight = np.where(self.weight > 0, self.weight, self.raised(self.largest)[..., None])
        self.weight = np.where(whole[..., None], weight, 0).astype(np.float32)

    def update(self, updating: Any, time: Any, environment: Any, priority: Any) -> None:
        where = self.sequence, time, environment
        before, good = self.weight[where], (priority >= 0) & (priority <= 1e28)
        priority = np.where(good, priority, 0)
        changes = updating & good & (before > 0)
        self.weight[where] = np.where(changes, self.raised(priority), before)
        largest = np.maximum(self.largest, priority.max(1, keepdims=True))
        self.largest = np.where(updating, largest, self.largest)
        self.updates += updating


class Step(NamedTuple):
    """Where many sequences stand after one more operation in each."""

    everything: Segment
    state: Any
    oracle: Oracle
    sequence: Any  # [M, 1] those whose operation was to sample
    sample: Sample  # [M, DRAWS] what they drew
    sampler: Callable  # keys, state -> sample

    @property
    def where(self) -> Any:
        """Sequence, time and environment of the windows drawn."""
        return self.sequence, *begun(self.oracle.case, self.sample)


def play(name: str, case: Case, count: int) -> Iterator[Step]:
    """Do random operations: many adds in some sequences, few in others."""
    rng, everything, replay = np.random.default_rng(1), stream(case, STEPS), case.replay(name)
    empty = jax.device_get(jax.jit(replay.init)(example(everything)))
    state = jax.tree.map(lambda x: np.stack([x] * count), empty)
    add, update = in_turn(replay.add), in_turn(lambda *args: replay.update(*args)[0])
    sampler = jax.jit(jax.vmap(replay.sample))
    oracle, last = Oracle(case, count, STEPS), None
    for operation, keys in zip(*tapes(rng, count, replay.warmup), strict=True):
        now = operation[:, None]
        segment = cut(everything, oracle.added[:, 0] * case.period, case.period)
        state = add(now == ADD, state, segment)
        oracle.add(now == ADD)
        sample = jax.device_get(sampler(keys, state))
        drawn = (sample.index, *begun(case, sample))
        last = jax.tree.map(partial(np.where, now == SAMPLE), drawn, last or drawn)
        index, time, environment = last
        priority = priorities(rng, time, environment)
        state = update(now == UPDATE, state, index, priority)
        oracle.update(now == UPDATE, time, environment, priority)
        drew = np.flatnonzero(operation == SAMPLE)
        sample = jax.tree.map(lambda x, drew=drew: x[drew], sample)
        yield Step(everything, state, oracle, drew[:, None], sample, sampler)


def in_turn(operation: Callable) -> Callable:
    """Do an operation on those of many states whose turn it is."""

    def one(turn: Any, state: Any, *args: Any) -> Any:
        return tree.where(turn[0], operation(state, *args), state)

    return jax.jit(jax.vmap(one))


def tapes(rng: np.random.Generator, count: int, warmup: int) -> tuple[Any, Any]:
    """Draw operations [STEPS, count] and keys; no window is drawn before one is whole."""
    shape = STEPS, count
    operation = rng.choice([SAMPLE, UPDATE], shape)
    operation[rng.random(shape) < np.linspace(0.1, 0.9, count)] = ADD
    operation[:warmup], operation[warmup] = ADD, SAMPLE
    return operation, jax.random.split(jax.random.key(2), shape)


def priorities(rng: np.random.Generator, time: Any, environment: Any) -> Any:
    """Draw priorities, some of them zero or no priorities; equal windows get equal ones."""
    pool = np.where(rng.random(31) < 0.1, 0, 10 ** rng.uniform(-2, 1, 31))
    pool = np.where(rng.random(31) < 0.1, rng.choice([np.nan, np.inf, -1e-9, 1.1e28], 31), pool)
    return pool[(7 * time + environment) % pool.size].astype(np.float32)


def check_contents(step: Step) -> None:
    """Check that what was drawn is whole, and bit for bit what happened then."""
    case, everything = step.oracle.case, step.everything
    assert (step.oracle.weight[step.where] > 0).all()
    _, time, environment = step.where
    row, column = time[:, None] + np.arange(case.length + 1)[:, None], environment[:, None]
    timestep = jax.tree.map(lambda x: x[row, column], everything.timestep)
    steps = everything.action, everything.extras
    action, extras = jax.tree.map(lambda x: x[row[:, :-1], column], steps)
    memory = everything.memory[time, environment]
    if not case.stored:
        timestep.start[:, 0] = True
        memory = np.zeros_like(memory)
    assert_same_bits(step.sample.segment, Segment(memory, timestep, action, extras))


def assert_same_bits(ours: Any, theirs: Any) -> None:
    def bits(x: Any) -> tuple[str, tuple[int, ...], bytes]:
        return x.dtype.name, x.shape, np.asarray(x).tobytes()

    assert jax.tree.map(bits, ours) == jax.tree.map(bits, theirs)


def check_weights(step: Step) -> None:
    """Check all weights, those of drawn windows, the sums, and when the first window is whole."""
    levels, oracle = jax.device_get(step.state.weights), step.oracle
    leaves, weights = (x.reshape(len(x), -1) for x in (levels[0], oracle.weight))
    np.testing.assert_array_equal((leaves > 0).sum(1), (weights > 0).sum(1))
    close(np.sort(leaves[leaves > 0]), np.sort(weights[weights > 0]))
    close(leaves[step.sequence, step.sample.index.start], oracle.weight[step.where])
    close(levels[-1].sum((1, 2)), weights.sum(1))
    enough = oracle.added >= oracle.case.replay("prioritized").warmup
    np.testing.assert_array_equal(weights.any(1), enough[:, 0])


def check_importance(step: Step) -> None:
    """Check (windows x probability) ** -importance, divided by the largest of a sample."""
    oracle, sequence = step.oracle, step.sequence[:, 0]
    weights = oracle.weight.reshape(len(oracle.weight), -1)[sequence]
    windows, total = (weights > 0).sum(1), weights.sum(1, dtype=np.float64)
    chance = oracle.weight[step.where] / total[:, None]
    exponent = at(oracle.case.importance, oracle.updates[sequence])
    correction = (windows[:, None] * chance) ** -exponent
    expected = correction / correction.max(axis=1, keepdims=True)
    np.testing.assert_allclose(step.sample.weight, expected, rtol=2e-5)


def check_frequencies(step: Step) -> None:
    """Draw from partly filled, full and wrapped rings; draws from strata vary less than chi^2."""
    oracle, repeats = step.oracle, 20
    seen, count = np.zeros_like(oracle.weight), len(oracle.weight)
    for key in jax.random.split(jax.random.key(4), repeats):
        sample = jax.device_get(step.sampler(jax.random.split(key, count), step.state))
        np.add.at(seen, (oracle.sequence, *begun(oracle.case, sample)), 1)
    chance = oracle.weight / oracle.weight.sum((1, 2), keepdims=True)
    adds = np.sign(oracle.added[:, 0] - oracle.case.segments)
    for filled in np.unique(adds):
        assert_likely(seen[adds == filled], DRAWS * repeats * chance[adds == filled])


def assert_likely(seen: Any, expected: Any) -> None:
    """Check counts by chi-squared; cells of less than five count as one."""
    assert not seen[expected == 0].any()
    rare = expected < 5
    cells = (
        np.append(seen[~rare], seen[rare].sum()),
        np.append(expected[~rare], expected[rare].sum()),
    )
    chi_squared = np.sum((cells[0] - cells[1]) ** 2 / np.maximum(cells[1], 1e-3))
    assert jax.scipy.special.gammaincc(max(1, len(cells[0]) - 1) / 2, chi_squared / 2) > 1e-4


@pytest.mark.parametrize("name", CASES)
def test_prioritized_is_what_the_definition_says(name: str) -> None:
    """More than 10,000 sequences in all."""
    for step in play("prioritized", CASES[name], 1000):
        check_contents(step)
        check_weights(step)
        check_importance(step)
    check_frequencies(step)


@pytest.mark.parametrize("name", ["frames, stride divides period", "frames, stored"])
def test_uniform_is_what_the_definition_says(name: str) -> None:
    """10,000 sequences in all."""
    # To the oracle it is prioritized replay whose windows all weigh one.
    case = CASES[name]._replace(exponent=0)
    for step in play("uniform", case, 5000):
        check_contents(step)
        assert (step.sample.weight == 1).all()
    check_frequencies(step)


class Machine(NamedTuple):
    """A prioritized replay memory that draws many windows at once, compiled."""

    replay: ReplayMemory
    segment: Callable  # number -> segment
    add: Any
    sample: Any
    update: Any
    full: Any  # the state after two wraps


CASE = Case(3, 6, 3, stride=2, frames=4, radix=3, exponent=cooling)


@cache
def machine() -> Machine:
    replay, everything = CASE.replay("prioritized", 64), stream(CASE, 10)
    add, sample = jax.jit(replay.add), jax.jit(replay.sample)
    update = jax.jit(lambda *args: replay.update(*args)[0])

    def segment(number: int) -> Segment:
        return cut(everything, np.array(number * CASE.period), CASE.period)

    state = jax.jit(replay.init)(example(everything))
    for number in range(2 * CASE.segments):
        state = add(state, segment(number))
    return Machine(replay, segment, add, sample, update, state)


def test_thousands_of_updates_do_no_harm() -> None:
    replay, _, _, sample, _, full = machine()
    pool = 10 ** jax.random.uniform(jax.random.key(0), (31,), minval=-2, maxval=1)

    def once(state: Any, key: Any) -> Any:
        drawn = replay.sample(key, state)
        time, environment = begun(CASE, drawn)
        priority = pool[(7 * time + environment + 5 * state.updates) % 31]
        return replay.update(state, drawn.index, priority)[0], (time, environment, priority)

    keys = jax.random.split(jax.random.key(1), 3000)
    loop = jax.jit(lambda state: jax.lax.scan(once, state, keys))
    state, updates = loop(full)
    oracle = Oracle(CASE, 1, 2 * CASE.segments)
    for _ in range(2 * CASE.segments):
        oracle.add(1)
    for time, environment, priority in zip(*jax.device_get(updates), strict=True):
        oracle.update(1, time[None], environment[None], priority[None])
    close(sum_tree.total(state.weights), oracle.weight.sum(dtype=np.float64))
    assert state.updates == 3000 and state.largest == oracle.largest
    seen = np.zeros_like(oracle.weight)
    for key in keys[:500]:
        np.add.at(seen[0], begun(CASE, jax.device_get(sample(key, state))), 1)
    assert_likely(seen, oracle.weight / oracle.weight.sum() * seen.sum())


def test_a_window_overwritten_before_its_update_stays_out() -> None:
    _, segment, add, sample, update, full = machine()
    drawn = sample(jax.random.key(0), full)
    time, environment = begun(CASE, jax.device_get(drawn))
    assert len({*zip(time, environment, strict=True)}) == 12  # all that are whole
    state = update(add(full, segment(6)), drawn.index, jnp.full(64, 10, jnp.float32))
    newest = 10 ** cooling(1)
    close(sum_tree.total(state.weights), 6 * 10 + 6)
    close(sum_tree.total(add(state, segment(7)).weights), 6 + 6 * newest)


def test_a_window_that_took_the_place_of_one_drawn_before_keeps_its_priority() -> None:
    _, segment, add, sample, update, full = machine()
    drawn, later = sample(jax.random.key(0), full), full
    for number in range(6, 9):
        later = add(later, segment(number))
    updated = update(later, drawn.index, jnp.full(64, 10, jnp.float32))
    assert_same_bits(updated.weights, later.weights)
    assert (updated.largest, updated.updates) == (10, 1)
    mixed = jax.tree.map(
        lambda old, new: jnp.where(jnp.arange(64) < 32, old, new),
        *(sample(jax.random.key(1), state).index for state in (full, later)),
    )
    now = sum_tree.read(update(later, mixed, jnp.full(64, 10, jnp.float32)).weights, mixed.start)
    close(now[32:], 10 ** cooling(0))


@pytest.mark.parametrize("priority", [np.nan, np.inf, -np.inf, -1e-6, 1.1e28, 3e38])
def test_what_is_no_priority_changes_nothing_and_is_counted(priority: float) -> None:
    replay, _, _, sample, _, full = machine()
    index = sample(jax.random.key(0), full).index
    some = jnp.where(index.start < 9, priority, 2.0).astype(jnp.float32)
    state, counts = replay.update(full, index, some)
    before, after = (sum_tree.read(x.weights, index.start) for x in (full, state))
    close(after, jnp.where(index.start < 9, before, 2 ** cooling(0)))
    assert counts["refused_priorities"] == (index.start < 9).sum() > 0
    assert counts["refused_priorities"].dtype == jnp.int32 and state.largest == 2
    assert np.isfinite(sample(jax.random.key(1), state).weight).all()


def test_the_largest_priority_still_has_a_sum_and_weights() -> None:
    _, _, _, sample, update, full = machine()
    index = sample(jax.random.key(0), full).index
    state = update(full, index, jnp.where(index.start < 9, 1e28, 0.0).astype(jnp.float32))
    assert np.isfinite(sum_tree.total(state.weights)) and state.largest == np.float32(1e28)
    again = sample(jax.random.key(1), state)
    assert (again.index.start < 9).all() and (again.weight == 1).all()


def test_a_ring_that_has_counted_to_the_end_goes_on_like_any_other() -> None:
    """Windows are drawn, added to, and only then given priorities, across the turn."""
    _, segment, add, sample, update, young = machine()
    end = ring.windows(3, 6, 3, 2, 4).turn
    assert end == 2**31 - 2
    old = young._replace(ring=young.ring._replace(added=jnp.int32(end - 3)))
    for number in range(6, 12):
        drawn = [sample(jax.random.key(number), state) for state in (young, old)]
        assert_same_bits(*(x._replace(index=x.index.start) for x in drawn))
        adds = range(number, number + number % 4)  # none to three
        for again in adds:
            young, old = (add(state, segment(again % 10)) for state in (young, old))
        young, old = (
            update(state, x.index, x.weight) for state, x in zip((young, old), drawn, strict=True)
        )
        assert_same_bits(young.weights, old.weights)
    assert 3 <= old.ring.added < young.ring.added


def test_updates_are_counted_to_the_end_and_not_beyond() -> None:
    _, _, _, sample, update, full = machine()
    state = full._replace(updates=jnp.int32(2**31 - 2))
    drawn = sample(jax.random.key(0), state)
    for _ in range(3):
        state = update(state, drawn.index, drawn.weight)
        assert state.updates == 2**31 - 1
    close(sum_tree.read(state.weights, drawn.index.start), (drawn.weight + 1e-6) ** 0.3)


def test_a_key_draws_the_same_again_and_another_key_does_not() -> None:
    _, _, _, sample, _, full = machine()
    first, again, other = (sample(jax.random.key(seed), full) for seed in (0, 0, 1))
    assert_same_bits(first, again)
    assert (first.index.start != other.index.start).any()


def test_mapped_replays_are_replays() -> None:
    replay, _, _, sample, update, full = machine()
    keys = jax.random.split(jax.random.key(0), 3)

    def learn(key: Any, state: Any) -> Any:
        drawn = replay.sample(key, state)
        return replay.update(state, drawn.index, drawn.weight)[0], drawn

    states, samples = jax.jit(jax.vmap(learn, (0, None)))(keys, full)
    for i, key in enumerate(keys):
        ours, state = jax.tree.map(lambda x, i=i: x[i], (samples, states))
        theirs = sample(key, full)
        assert_same_bits((ours.segment, ours.index), (theirs.segment, theirs.index))
        close(ours.weight, theirs.weight)
        again = update(full, theirs.index, theirs.weight)
        jax.tree.map(close, state.weights, again.weights)


def test_nothing_is_compiled_twice() -> None:
    _, segment, add, sample, update, state = machine()
    for number in range(6, 10):
        state = add(state, segment(number))
        drawn = sample(jax.random.key(number), state)
        state = update(state, drawn.index, drawn.weight)
    assert [f._cache_size() for f in (add, sample, update)] == [1, 1, 1]


def test_the_radix_does_not_change_what_is_drawn() -> None:
    *_, sample, _, full = machine()
    other = jax.jit(CASE._replace(radix=16).replay("prioritized", 64).sample)
    # Sums of whole numbers are exact, in any order.
    place = jnp.arange(18)
    weight = (sum_tree.read(full.weights, place) > 0) * (1.0 + place % 7)
    write = jax.jit(sum_tree.write)
    ours, theirs = (
        full._replace(weights=write(sum_tree.init(18, radix), place, weight)) for radix in (3, 16)
    )
    for key in jax.random.split(jax.random.key(0), 50):
        assert_same_bits(other(key, theirs).segment, sample(key, ours).segment)


def test_exponents_may_be_traced() -> None:
    full = machine().full

    def importance(exponent: Any, importance: Any) -> Any:
        case = CASE._replace(exponent=exponent, importance=importance)
        replay = case.replay("prioritized")
        index = replay.sample(jax.random.key(0), full).index
        unequal, _ = replay.update(full, index, 1.0 + jnp.arange(DRAWS))
        return replay.sample(jax.random.key(1), unequal).weight

    traced = jax.jit(importance)
    close(traced(0.5, 0.9), jax.jit(partial(importance, 0.5, 0.9))())
    assert (traced(0.5, 0.9) != traced(0.5, 0.0)).any()


GOOD = {"segments": 4, "period": 6, "length": 5, "batch_size": 8, "stride": 3}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"radix": 1}, "^radix: 1 is below 2$"),
        ({"radix": 4.0}, "^radix: 4.0 is not a whole number$"),
        ({"radix": 2000}, "^radix: 2000 is above 1024$"),
        ({"batch_size": 2**20 + 1}, "^batch_size: 1048577 is above 1048576$"),
        ({"exponent": 2.0}, "^exponent: 2.0 is not between 0 and 1$"),
        ({"exponent": -0.1}, "^exponent: -0.1 is not between 0 and 1$"),
        ({"exponent": "0.6"}, "^exponent: '0.6' is not a number, an array or a function$"),
        ({"importance": 1.5}, "^importance: 1.5 is not between 0 and 1$"),
        ({"importance": -1}, "^importance: -1 is not between 0 and 1$"),
        ({"importance": float("nan")}, "^importance: nan is not a number, an array or a function$"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(change: Any, message: str) -> None:
    prioritized(**GOOD)
    with pytest.raises(ValueError, match=message):
        prioritized(**GOOD | change)


@pytest.mark.parametrize("name", REPLAYS)
@pytest.mark.parametrize(
    "frames, longest, before",
    [(1, 23, ""), (2, 20, "3 before"), (4, 20, "3 before"), (5, 17, "6 before")],
)
def test_windows_too_long_with_their_frames_are_refused(
    name: str, frames: int, longest: int, before: str
) -> None:
    assert REPLAYS[name](**GOOD | {"frames": frames, "length": longest}).warmup == 4
    message = f"^length: .* {longest + 1} actions .*{before}.* = 4 x 6 = 24$"
    with pytest.raises(ValueError, match=message):
        REPLAYS[name](**GOOD | {"frames": frames, "length": longest + 1})


@pytest.mark.parametrize("name", REPLAYS)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)], ids=str)
def test_observations_that_are_no_stacks_are_refused(name: str, shape: tuple[int, ...]) -> None:
    replay, segment = REPLAYS[name](**GOOD, frames=2), example(stream(CASES["frames"], 1))
    good = segment.timestep._replace(observation={"a": jnp.zeros((2, 4))})
    bad = good._replace(observation={"a": jnp.zeros((2, 4)), "b": jnp.zeros((2, *shape))})
    replay.init(segment._replace(timestep=good))
    message = rf"^frames: {re.escape(str([*shape]))} is no stack of 2 along its last axis$"
    with pytest.raises(ValueError, match=message):
        replay.init(segment._replace(timestep=bad))
