"""The tables and the JSON files of the benchmarks."""

import datetime
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table

from benchmarks import actors, peers, purejaxrl
from benchmarks.bare import ENVIRONMENT, UPDATE
from benchmarks.targets import MAKE_TRAIN, Outcome, Target, outcomes
from benchmarks.timing import Timing, ratio
from memrl_jax.run import files, software

PIECES = ("act", "add", "sample", "update", "prioritize")  # together an iteration
LABELS = {
    "prioritize": "new priorities",
    "learn": "all after add in one",
    "memrl": "whole iteration",
}
FLOOR = (UPDATE, ENVIRONMENT)
TRAINERS = (
    "memrl",
    MAKE_TRAIN,
    purejaxrl.PUREJAXRL,
    peers.REJAX,
    peers.SB3,
    actors.SB3_CONTRIB,
)
PEERS = (peers.REJAX, peers.SB3, "torch")


def machine(libraries: Sequence[str] = PEERS) -> dict[str, Any]:
    """Describe what the figures depend on; `libraries` are those beside ours."""
    date = datetime.datetime.now().astimezone().isoformat(timespec="minutes")
    versions = {name: peers.version(name) for name in libraries}
    return {"cores": len(os.sched_getaffinity(0)), "date": date, **software.versions(), **versions}


def tables(
    name: str, timings: Sequence[Timing], parts: Sequence[Table], targets: Sequence[Target]
) -> Group:
    """Put a setting's tables under its name, and the outcome of its targets below."""
    judged = [_targets(timings, targets)] if targets else []
    return Group("", f"[bold]{name}[/]", *parts, *judged)


def figures(timings: Sequence[Timing], targets: Sequence[Target]) -> dict[str, Any]:
    """Return everything that was measured in a setting, as JSON types."""
    return {
        "timings": [
            t._asdict()
            | {"microseconds": t.microseconds.tolist(), "steps": t.steps.tolist()}
            | {"steps_per_second": float(np.median(t.steps_per_second))}
            for t in timings
        ],
        "targets": [
            {"name": o.target.name, "bound": o.target.bound, "ratio": o.ratio, "reached": o.reached}
            for o in outcomes(timings, targets)
        ],
    }


def save(path: Path, results: Mapping[str, Any]) -> None:
    """Write results as JSON, all or nothing."""
    path.parent.mkdir(exist_ok=True)
    files.write(path, json.dumps(results, indent=2))


def speeds(timings: Sequence[Timing]) -> Table:
    """Tabulate whole trainings, ours and others', by rows of replay and seeds."""
    cases = {t[:3]: t for t in timings}
    table = _table(
        "training", "by", "seeds", "us/iteration", "steps/s", "compile s", "MB", "memrl /"
    )
    for case in dict.fromkeys(t[1:3] for t in timings if t.name == "memrl"):
        ours = cases["memrl", *case]
        rows = f"{ours.capacity:,} rows" if ours.capacity else "on-policy"
        for theirs in (cases[name, *case] for name in TRAINERS if (name, *case) in cases):
            microseconds = f"{np.median(theirs.microseconds):,.1f}"
            cells = str(ours.seeds), microseconds, *_speed(theirs), _faster(ours, theirs)
            table.add_row(rows, theirs.name, *cells)
        table.add_section()
    return table


def _speed(timing: Timing) -> tuple[str, str, str]:
    """Return steps/s, seconds of compiling and the megabytes that the compiler plans for."""
    variant = f" ({timing.variant})" if timing.variant else ""
    speed = f"{np.median(timing.steps_per_second):,.0f}{variant}"
    compiling = f"{timing.compile_seconds:.1f}" if timing.compile_seconds else "-"
    return speed, compiling, f"{timing.nbytes / 1e6:,.1f}" if timing.nbytes else "-"


def _faster(ours: Timing, theirs: Timing) -> str:
    return f"{ratio(ours.steps_per_second, theirs.steps_per_second):.1f}x"


def split(timings: Sequence[Timing]) -> Table:
    """Split an iteration of one seed: times, and shares of the sum of all pieces."""
    cases = {t[:3]: t for t in timings}
    names = [name for name in PIECES if any(t.name == name for t in timings)]
    capacities = [t.capacity for t in timings if t.name == PIECES[0]]
    table = _table("us/iteration, 1 seed", *(f"{c:,} rows" for c in capacities))
    sums = [np.sum([cases[p, c, 1].microseconds for p in names], axis=0) for c in capacities]
    for name in (*names, "learn", "memrl"):
        times = [cases[name, c, 1].microseconds for c in capacities]
        cells = [
            f"{np.median(us):,.1f} {ratio(us, total):5.0%}"
            for us, total in zip(times, sums, strict=True)
        ]
        table.add_row(LABELS.get(name, name), *cells, end_section=name == names[-1])
    return table


def floor(timings: Sequence[Timing]) -> Table:
    """Compare whole iterations of one seed with a bare update and a bare rollout together."""
    cases = {t[:3]: t.microseconds for t in timings}
    update, rollout = (next(x for case, x in cases.items() if case[0] == n) for n in FLOOR)
    table = _table("us/iteration, 1 seed", "", "/ (bare update + environment)")
    for name, x in zip(FLOOR, (update, rollout), strict=True):
        table.add_row(name, f"{np.median(x):,.1f}", "", end_section=name == FLOOR[-1])
    for (name, rows, seeds), x in cases.items():
        if name in ("memrl", MAKE_TRAIN, purejaxrl.PUREJAXRL) and seeds == 1:
            share = f"{ratio(x, update + rollout):.2f}x"
            table.add_row(f"{name}, {rows:,} rows", f"{np.median(x):,.1f}", share)
    return table


def beside(timings: Sequence[Timing], ours: str) -> Table:
    """Compare times per iteration with those of `ours`: a column for every name."""
    cases = {t[:3]: t for t in timings}
    others = [name for name in dict.fromkeys(t.name for t in timings) if name != ours]
    table = _table("us/iteration", "seeds", ours, *(f"{name}\n(/ {ours})" for name in others))
    for base in (t for t in timings if t.name == ours):
        cells = [f"{np.median(base.microseconds):,.1f}"]
        for name in others:
            other = cases.get((name, base.capacity, base.seeds))
            cells.append(_times(base, other) if other else "-")
        table.add_row(f"{base.capacity:,} rows", str(base.seeds), *cells)
    return table


def _times(ours: Timing, other: Timing) -> str:
    slower = ratio(other.microseconds, ours.microseconds)
    return f"{np.median(other.microseconds):,.1f} ({slower:.2f}x)"


def matrix(corner: str, cells: Mapping[str, Mapping[str, float]]) -> Table:
    """Tabulate numbers by row and column; what is missing is a dash."""
    columns = list(dict.fromkeys(name for row in cells.values() for name in row))
    table = _table(corner, *columns)
    for name, row in cells.items():
        table.add_row(name, *(f"{row[c]:,.1f}" if c in row else "-" for c in columns))
    return table


def memories(timings: Sequence[Timing], nbytes: Mapping[str, int], base: str) -> Table:
    """Compare memories by the microseconds a step takes: all sequences together, one input each.

    And, of those that have it, by what a single `step` of one sequence takes.
    """
    cases = {t.name: t for t in timings}
    columns = ["forward\nus/step", "forward and\nbackward", f"{base} /\nthis", "compile s"]
    columns += ["one sequence,\nus/step", "state\nbytes"]
    table = _table(f"{timings[0].capacity} steps", *columns)
    rival = cases[f"{base} | both"].microseconds
    for name, size in nbytes.items():
        forward, both = cases[f"{name} | forward"], cases[f"{name} | both"]
        steps = (f"{np.median(t.microseconds) / t.capacity:,.1f}" for t in (forward, both))
        speed = f"{ratio(rival, both.microseconds):.2f}x"
        alone = cases.get(f"{name} | step")
        single = f"{np.median(alone.microseconds):,.1f}" if alone else "-"
        table.add_row(name, *steps, speed, f"{both.compile_seconds:.1f}", single, f"{size:,}")
    return table


def _targets(timings: Sequence[Timing], targets: Sequence[Target]) -> Table:
    table = _table("target", "bound", "measured", "")
    for outcome in outcomes(timings, targets):
        table.add_row(*_judged(outcome))
    return table


def _judged(outcome: Outcome) -> tuple[str, str, str, str]:
    target = outcome.target
    bound = f"{'at most' if target.at_most else 'at least'} {target.bound:g}"
    if outcome.ratio is None:
        return target.name, bound, "-", "not measured"
    verdict = "reached" if outcome.reached else "not reached"
    return target.name, bound, f"{outcome.ratio:.2f}", verdict


def _table(first: str, *columns: str) -> Table:
    table = Table(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table
