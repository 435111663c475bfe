"""The ratios that training should reach."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from benchmarks.peers import REJAX, SB3
from benchmarks.timing import Timing, ratio

SMALL, MIDDLE, LARGE = 10_000, 100_000, 1_000_000  # rows of replay

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


def overhead(t: Timings) -> float:
    alone = t["act", SMALL, 1].microseconds + t["learn", SMALL, 1].microseconds
    return ratio(t["memrl", SMALL, 1].microseconds, alone)


def growth(t: Timings) -> float:
    return ratio(t["memrl", LARGE, 1].microseconds, t["memrl", SMALL, 1].microseconds)


def scaling(t: Timings) -> float:
    return 8 * ratio(t["memrl", SMALL, 1].microseconds, t["memrl", SMALL, 8].microseconds)


def faster_than(peer: str, rows: int) -> Callable[[Timings], float]:
    return lambda t: ratio(t["memrl", rows, 1].steps_per_second, t[peer, rows, 1].steps_per_second)


TARGETS = (
    Target("time of an iteration / (act + learn alone)", True, 1.15, overhead),
    Target("time with 1,000,000 rows / 10,000 rows", True, 1.3, growth),
    Target("throughput of 8 seeds / 1 seed", False, 1.6, scaling),
    Target("steps/s of memrl / rejax, 10,000 rows", False, 1.5, faster_than(REJAX, SMALL)),
    Target("steps/s of memrl / rejax, 100,000 rows", False, 5.0, faster_than(REJAX, MIDDLE)),
    Target(f"steps/s of memrl / {SB3}, 10,000 rows", False, 8.0, faster_than(SB3, SMALL)),
)


def outcomes(timings: Sequence[Timing]) -> list[Outcome]:
    """Hold the timings of a setting against all targets."""
    by_case = {timing[:3]: timing for timing in timings}
    return [_outcome(target, by_case) for target in TARGETS]


def _outcome(target: Target, timings: Timings) -> Outcome:
    try:
        value = target.measure(timings)
    except KeyError:
        return Outcome(target, None, None)
    reached = value <= target.bound if target.at_most else value >= target.bound
    return Outcome(target, value, reached)
