"""The ratios that training, replay and neural memories should reach."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from benchmarks.actors import SB3_CONTRIB
from benchmarks.bare import ENVIRONMENT, UPDATE
from benchmarks.peers import CPPRB, FLASHBAX, REJAX, SB3
from benchmarks.purejaxrl import PUREJAXRL
from benchmarks.timing import Timing, ratio

SMALL, MIDDLE, LARGE = 10_000, 100_000, 1_000_000  # rows of replay
MAKE_TRAIN = "make_train"  # ours, called from Python: seeds are vmapped

Timings = Mapping[tuple[str, int, int], Timing]  # by name, rows and seeds


class Target(NamedTuple):
    """A ratio and the bound it should keep."""

    name: str
    at_most: bool
    bound: float
    measure: Callable[[Timings], float]  # raises KeyError where something was not timed


class Outcome(NamedTuple):
    """A target and what was measured."""

    target: Target
    ratio: float | None
    reached: bool | None


def overhead(rows: int) -> Callable[[Timings], float]:
    """Return the measure of an iteration's time over that of what it cannot do without."""

    def measure(t: Timings) -> float:
        bare = t[UPDATE, SMALL, 1].microseconds + t[ENVIRONMENT, SMALL, 1].microseconds
        return ratio(t["memrl", rows, 1].microseconds, bare)

    return measure


def time_against(ours: str, peer: str, rows: int) -> Callable[[Timings], float]:
    return lambda t: ratio(t[ours, rows, 1].microseconds, t[peer, rows, 1].microseconds)


def seeds_against(ours: str, peer: str, seeds: int) -> Callable[[Timings], float]:
    """Return the measure of how many times faster an iteration of all seeds is than a peer's."""
    return lambda t: ratio(t[peer, SMALL, seeds].microseconds, t[ours, SMALL, seeds].microseconds)


def growth(t: Timings) -> float:
    return ratio(t["memrl", LARGE, 1].microseconds, t["memrl", SMALL, 1].microseconds)


def scaling(t: Timings) -> float:
    return 8 * ratio(t["memrl", SMALL, 1].microseconds, t["memrl", SMALL, 8].microseconds)


def faster_than(peer: str, rows: int) -> Callable[[Timings], float]:
    return lambda t: ratio(t["memrl", rows, 1].steps_per_second, t[peer, rows, 1].steps_per_second)


def against_bare(t: Timings) -> float:
    (rows,) = {rows for name, rows, _ in t if name == UPDATE}
    return ratio(t["memrl", rows, 1].microseconds, t[UPDATE, rows, 1].microseconds)


def above_gradients(t: Timings) -> float:
    return ratio(t["learn", 0, 1].microseconds, t["gradients", 0, 1].microseconds)


ON_POLICY = (
    Target(f"steps/s of memrl / {SB3_CONTRIB}", False, 10.0, faster_than(SB3_CONTRIB, 0)),
    Target(f"steps/s of memrl / {PUREJAXRL}", False, 1.5, faster_than(PUREJAXRL, 0)),
    Target("time of an update / its gradient steps alone", True, 1.15, above_gradients),
)
CONTINUOUS = (Target(f"steps/s of memrl / {SB3}", False, 5.0, faster_than(SB3, LARGE)),)
WINDOWS = (
    Target("time of an iteration / bare update of the same windows", True, 1.2, against_bare),
)
TRAINING = (
    Target(
        "time of an iteration / (bare update + environment), 10,000 rows",
        True,
        1.2,
        overhead(SMALL),
    ),
    Target(
        "time of an iteration / (bare update + environment), 1,000,000 rows",
        True,
        1.2,
        overhead(LARGE),
    ),
    Target(
        f"time of {MAKE_TRAIN} / {PUREJAXRL}, 10,000 rows",
        True,
        0.75,
        time_against(MAKE_TRAIN, PUREJAXRL, SMALL),
    ),
    Target(
        f"time of {MAKE_TRAIN} / {PUREJAXRL}, 1,000,000 rows",
        True,
        0.75,
        time_against(MAKE_TRAIN, PUREJAXRL, LARGE),
    ),
    Target(
        f"speed of 8 seeds, memrl / {PUREJAXRL}", False, 2.0, seeds_against("memrl", PUREJAXRL, 8)
    ),
    Target(
        f"speed of 8 seeds, {MAKE_TRAIN} vmapped / {PUREJAXRL}",
        False,
        1.2,
        seeds_against(MAKE_TRAIN, PUREJAXRL, 8),
    ),
    Target("time with 1,000,000 rows / 10,000 rows", True, 1.3, growth),
    Target("throughput of 8 seeds / 1 seed", False, 1.6, scaling),
    Target("steps/s of memrl / rejax, 10,000 rows", False, 1.5, faster_than(REJAX, SMALL)),
    Target("steps/s of memrl / rejax, 100,000 rows", False, 5.0, faster_than(REJAX, MIDDLE)),
    Target(f"steps/s of memrl / {SB3}, 10,000 rows", False, 8.0, faster_than(SB3, SMALL)),
)


def worst_against(peer: str) -> Callable[[Timings], float]:
    """Return the measure of how many times faster than a peer ours is in its worst case."""

    def measure(t: Timings) -> float:
        cases = [case for name, *case in t if name == peer]
        speedups = [
            ratio(t[peer, rows, seeds].microseconds, t["memrl", rows, seeds].microseconds)
            for rows, seeds in cases
        ]
        if not speedups:
            raise KeyError(peer)
        return min(speedups)

    return measure


def against_alone(piece: str) -> Callable[[Timings], float]:
    """Return the measure of an iteration's time over that of a piece alone, at the one capacity."""

    def measure(t: Timings) -> float:
        (rows,) = {rows for name, rows, _ in t if name == piece} or {0}
        return ratio(t["memrl", rows, 1].microseconds, t[piece, rows, 1].microseconds)

    return measure


GROWTH = Target("time with 1,000,000 rows / 10,000 rows", True, 2.0, growth)
UNIFORM = (
    Target(f"speed of memrl / {FLASHBAX}, worst case", False, 1.0, worst_against(FLASHBAX)),
    GROWTH,
)
PRIORITIZED = (
    Target(f"speed of memrl / {FLASHBAX}, worst case", False, 2.0, worst_against(FLASHBAX)),
    Target(f"speed of memrl / {CPPRB}, worst case", False, 1.0, worst_against(CPPRB)),
    GROWTH,
)
ITERATION = (
    Target("time of an iteration / learn alone", True, 1.2, against_alone("learn")),
    Target("time of an iteration / update alone", True, 1.2, against_alone("update")),
)


def memory_faster(ours: str, theirs: str) -> Callable[[Timings], float]:
    """Return the measure of how many times faster one memory is than another, with gradients."""

    def measure(t: Timings) -> float:
        length = next(iter(t))[1]
        slower = t[f"{theirs} | both", length, 1].microseconds
        return ratio(slower, t[f"{ours} | both", length, 1].microseconds)

    return measure


def _memory_target(ours: str, theirs: str, bound: float) -> Target:
    return Target(f"speed of {ours} / {theirs}", False, bound, memory_faster(ours, theirs))


MEMORY = (
    _memory_target("gru", "flax GRU", 1.0),
    _memory_target("lstm", "flax LSTM", 1.0),
    _memory_target("mingru, sequential", "mingru, associative", 1.3),
    _memory_target("lru, sequential", "lru, associative", 1.3),
    _memory_target("mingru, sequential", "flax GRU", 1.6),
    _memory_target("lru, sequential", "flax GRU", 1.4),
    Target("time of ntm / lstm", True, 3.0, memory_faster("lstm", "ntm")),
    Target("time of dnc / lstm", True, 15.0, memory_faster("lstm", "dnc")),
)
ACCELERATED = (  # of 1,024 inputs
    _memory_target("mingru, associative", "flax GRU", 5.0),
    _memory_target("lru, associative", "flax GRU", 5.0),
)


def outcomes(timings: Sequence[Timing], targets: Sequence[Target]) -> list[Outcome]:
    """Compare the timings of a setting with its targets."""
    by_case = {timing[:3]: timing for timing in timings}
    return [_outcome(target, by_case) for target in targets]


def _outcome(target: Target, timings: Timings) -> Outcome:
    try:
        value = float(target.measure(timings))
    except KeyError:
        return Outcome(target, None, None)
    reached = value <= target.bound if target.at_most else value >= target.bound
    return Outcome(target, value, reached)
