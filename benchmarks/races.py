"""Runs of the same task in a race: how many steps each takes to solve it, and what comes of it.

A task counts as solved from the first greedy evaluation that returns enough; runs are compared by
the median of these steps over seeds.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

import memrl_jax
from benchmarks import runs
from benchmarks.findings import Claim, Findings
from benchmarks.runs import Curve, Result, Returns
from memrl_jax.statistics import iqm


class Race(NamedTuple):
    """Runs on one task, and the return that solves it; None if they are not judged by it."""

    title: str
    runs: Mapping[str, memrl_jax.Config]
    enough: float | None
    seeds: int


def study(make: Callable[[], Race], console: Console, place: Path, quick: bool) -> Findings:
    """Train the runs of a race; draw their curves and count the steps that they took."""
    race = make()
    lines = {} if race.enough is None else {"solved": race.enough}
    result = Result(race.title, race.runs, lambda returns: [], lines, race.seeds)
    result = runs.shortened(result) if quick else result
    series, returns, minutes = runs.train(result, place / "runs", console)
    runs.draw(series, result, place)
    if race.enough is None:
        return runs.findings(result, returns, [], minutes)
    taken = {label: steps_to(race.enough, curve) for label, curve in series.items()}
    claims = [] if quick else judged(race.enough, returns, taken)
    return runs.findings(result, returns, claims, minutes, **{"steps to solve": taken})


def steps_to(enough: float, curve: Curve) -> list[float | None]:
    """Return the steps of every seed until an evaluation first returned enough, or None."""
    steps, values = curve
    solved = values >= enough
    return [float(steps[np.argmax(x)]) if x.any() else None for x in solved]


def median(steps: list[float | None]) -> float:
    """Return the median, where seeds that never solved the task count as infinite."""
    return float(np.median([np.inf if x is None else x for x in steps]))


def judged(enough: float, returns: Returns, taken: Mapping[str, list[float | None]]) -> list[Claim]:
    """Judge whether runs solve a task, still do in the end, and do so sooner than DQN, if it ran.

    DQN itself is only what others are compared with.
    """
    claims = []
    for label in taken.keys() - {"DQN"}:
        score = float(iqm(returns[label].mean(axis=1)))
        text = f"{label}: IQM of the last evaluation >= {enough:g}"
        claims.append(Claim(text, f"{score:.2f}", score >= enough))
        solved = [x is not None for x in taken[label]]
        text = f"{label}: >= {enough:g} in an evaluation of every seed"
        own = median(taken[label])
        figure = f"{sum(solved)} of {len(solved)}, after {own:,.0f} steps (median)"
        claims.append(Claim(text, figure, all(solved)))
        if "DQN" in taken:
            others = median(taken["DQN"])
            text = f"{label}: solved in fewer steps than by DQN"
            claims.append(Claim(text, f"{own:,.0f} against {others:,.0f}", own < others))
    return sorted(claims)
