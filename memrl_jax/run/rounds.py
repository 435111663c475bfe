"""What happens to the points of a sweep between two rounds of training.

Successive halving gives up the worst points (Jamieson & Talwalkar 2016, algorithm 1: all rounds
but the last are shorter). Population-based training lets the worst members go on from the state and
settings of the best ones, with other floats (Jaderberg et al. 2017, section 4.1).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from memrl_jax import checks
from memrl_jax.points import Range

FACTOR = 1.25  # that a logarithmic setting is multiplied by or divided by
SHARE = 0.1  # of its range that another one is moved by
QUANTILE = 4  # a quarter of the population copies, from the best quarter


class Rule(NamedTuple):
    """How a sweep goes on after a round."""

    halve: int | None = None  # keep one of so many points
    evolve_every: int | None = None  # timesteps between two generations
    own_replay: bool = False  # a member that copies keeps its own experience
    ranges: Mapping[str, Range] = {}  # in which settings evolve

    def check(self, varied: Sequence[Mapping[str, Sequence[float]]]) -> None:
        """Raise ValueError unless groups that vary so, one mapping each, can follow the rule."""
        if self.halve is not None and self.evolve_every is not None:
            raise ValueError(
                f"halve: {self.halve} and evolve_every = {self.evolve_every} exclude each other"
            )
        if self.own_replay and self.evolve_every is None:
            raise ValueError("own_replay: True is for members that evolve; name evolve_every")
        if self.evolve_every is None:
            return
        if len(varied) > 1:
            raise ValueError(f"evolve_every: {len(varied)} groups are several programs, not one")
        for name in varied[0]:
            if name not in self.ranges:
                raise ValueError(f"evolve_every: {name} has no range to evolve in")
            x = self.ranges[name]
            if x.logarithmic and x.high < x.low * FACTOR**2:
                raise ValueError(
                    f"evolve_every: {name} is between {x.low:g} and {x.high:g}, too close"
                )
        members = len(next(iter(varied[0].values()), []))
        checks.at_least("evolve_every: points", members, QUANTILE)

    def budgets(self, total_steps: int, points: int, per_step: int) -> list[int]:
        """Return the timesteps at which the rounds end, in whole training steps."""
        if self.halve is not None:
            count = _whole_log(points, checks.at_least("halve", self.halve, 2))
            ends = [total_steps // self.halve**i for i in range(count, -1, -1)]
        elif self.evolve_every is not None:
            every = checks.at_least("evolve_every", self.evolve_every, per_step)
            ends = [*range(every, total_steps, every), total_steps]
        else:
            ends = [total_steps]
        return sorted({max(per_step, end // per_step * per_step) for end in ends[:-1]}) + ends[-1:]


def _whole_log(x: int, base: int) -> int:
    """Return the largest n with base ** n <= x."""
    return next(n for n in range(64) if base ** (n + 1) > x)


def kept(scores: Sequence[float], halve: int) -> list[int]:
    """Return which points go on, in ascending order: the best 1 / `halve` of them, at least one."""
    count = max(1, len(scores) // halve)
    return sorted(np.argsort(-np.asarray(scores), kind="stable")[:count].tolist())


class Generation(NamedTuple):
    """A population after it has evolved."""

    source: list[int]  # [P] whose state each member goes on from
    varied: dict[str, list[float]]  # [P] each


def evolve(
    scores: Sequence[float],
    varied: Mapping[str, Sequence[float]],
    ranges: Mapping[str, Range],
    random: np.random.Generator,
) -> Generation:
    """Let the worst quarter copy members of the best quarter, and move the floats they copied.

    Members that diverged, whose score is -inf, copy as well and are not copied. A float goes up or
    down, by `FACTOR` or `SHARE`, as drawn; where that leaves its range it goes the other way.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    count = len(order) // QUANTILE
    source = [*range(len(order))]
    moved = {name: [float(x) for x in values] for name, values in varied.items()}
    failed = int(np.sum(np.asarray(scores) == -np.inf))
    best = order[: min(count, len(order) - failed)]
    for loser in order[len(order) - max(count, failed) :].tolist() if len(best) else ():
        source[loser] = int(best[random.integers(len(best))])
        for name, values in varied.items():
            up = bool(random.integers(2))
            moved[name][loser] = _moved(float(values[source[loser]]), up, ranges[name])
    return Generation(source, moved)


def _moved(value: float, up: bool, within: Range) -> float:
    """Move a value up or down, or the other way if that would leave the range."""
    if within.logarithmic:
        ways = (value / FACTOR, value * FACTOR)
    else:
        step = SHARE * (within.high - within.low)
        ways = (value - step, value + step)
    first, second = ways[up], ways[not up]
    return first if within.low <= first <= within.high else second
