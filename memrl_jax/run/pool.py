"""Pools of runs that share a config, their metrics, and short names that tell the pools apart."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memrl_jax import checks
from memrl_jax.config import Config, agent_name, flat, to_json
from memrl_jax.run import history, saved
from memrl_jax.run.history import History
from memrl_jax.run.program import Run
from memrl_jax.settings import named
from memrl_jax.statistics import count


class Pool(NamedTuple):
    """Runs of one config that took the same parameters from another run, or none."""

    name: str  # unique among the pools
    config: Config
    runs: Mapping[str, Run]  # folder -> options

    @property
    def seeds(self) -> int:
        """The number of seeds in all runs together."""
        return sum(run.seeds for run in self.runs.values())


def pools(paths: Sequence[str], separate: bool = False) -> list[Pool]:
    """Pool the runs that began alike, in the order of `paths`; `separate` keeps them apart.

    Those began alike whose configs are equal, and so is what they took from another run.
    Raises ValueError without runs, for a folder that is no run or named twice, and for runs of one
    pool that have the same seeds.
    """
    if not paths:
        raise ValueError("runs: name at least one")
    _check_named_once(paths)
    read = {path: saved.read(path)[1:] for path in paths}
    alike: dict[tuple[str, ...], dict[str, Run]] = {}
    for path, (config, run) in read.items():
        began = to_json(config), json.dumps(run.taken), path if separate else ""
        alike.setdefault(began, {})[path] = run
    for runs in alike.values():
        _check_seeds(runs)
    names = dict(zip(paths, short(paths), strict=True))
    common = [_common([names[path] for path in runs]) for runs in alike.values()]
    configs = [read[next(iter(runs))][0] for runs in alike.values()]
    settings = [dict(_settings(*read[next(iter(runs))])) for runs in alike.values()]
    return [*map(Pool, _distinct(common, configs, settings), configs, alike.values())]


def _check_named_once(paths: Sequence[str]) -> None:
    places = [os.path.abspath(path) for path in paths]
    for i, path in enumerate(paths):
        if places[i] in places[:i]:
            raise ValueError(f"runs: {path} is named twice")


def _check_seeds(runs: Mapping[str, Run]) -> None:
    by_seed: dict[int, str] = {}
    for path, run in runs.items():
        if (other := by_seed.setdefault(run.seed, path)) != path:
            raise ValueError(f"runs: {other} and {path} are of one config and have the same seeds")


def short(paths: Sequence[str]) -> list[str]:
    """Leave out of paths the parts that all of them begin with, and those that all end with."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    if len(parts) == 1:
        return [parts[0][-1]]
    for end in (0, -1):
        while min(map(len, parts)) > 1 and len({x[end] for x in parts}) == 1:
            parts = [x[1:] if end == 0 else x[:-1] for x in parts]
    return ["/".join(x) for x in parts]


def told(pools: Iterable[Pool]) -> str:
    """Describe how many seeds the pools have, and how many runs if a pool has several."""
    counts = sorted({pool.seeds for pool in pools})
    runs = sum(len(pool.runs) for pool in pools)
    seeds = count(counts[0]) if len(counts) == 1 else f"{counts[0]} to {count(counts[-1])}"
    pooled = any(len(pool.runs) > 1 for pool in pools)
    return f"{seeds} of {runs} runs" if pooled else seeds


def _common(names: Sequence[str]) -> str:
    """Return what names have in common but for the number of a seed, job or run, or else ''."""
    if len(names) == 1:
        return names[0]
    number = r"(^|[-_. /])(seeds?|s|jobs?|runs?)?[-_. ]*\d+(?=$|[-_. /])"
    stems = {re.sub(number, "", name).strip("-_. /") for name in names}
    return stems.pop() if len(stems) == 1 else ""


def _distinct(
    names: Sequence[str], configs: Sequence[Config], given: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Add to names that are equal, or empty, those of the settings `given` that differ."""
    out = []
    for i, name in enumerate(names):
        alike = [given[j] for j, other in enumerate(names) if other == name]
        differing = {k for one in alike for k in one if any(one[k] != x.get(k) for x in alike)}
        settings = ", ".join(f"{k}={given[i][k]}" for k in given[i] if k in differing)
        memory = named(configs[i]).get("memory", "none")
        with_memory = "" if memory == "none" else f" with {memory}"
        unnamed = settings or f"{configs[i].environment}, {agent_name(configs[i])}{with_memory}"
        out.append((f"{name} ({settings})" if settings else name) if name else unnamed)
    return out


def _settings(config: Config, run: Run) -> Iterable[tuple[str, Any]]:
    """Yield the settings of a config by name; of mappings, such as `memory_args`, every entry.

    What a run took from another, if anything, is one of these.
    """
    if run.taken:
        parts, of, timestep = (run.taken[name] for name in ("parts", "run", "timestep"))
        yield "taken", f"{'+'.join(parts)} of {of} at {timestep}"
    for name, value in flat(config).items():
        if isinstance(value, dict):
            yield from ((f"{name} {option}", x) for option, x in value.items())
        else:
            yield name, value


def pasts(pool: Pool) -> dict[str, History]:
    """Return the metrics of every run of a pool, by its folder; raises ValueError without any."""
    found = {path: history.read(Path(path) / "metrics.npz") for path in pool.runs}
    for path, past in found.items():
        if not past:
            raise ValueError(f"run: {path} has no metrics yet")
    return found


def series(pool: Pool, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps [points] and values [seeds, points] of a metric, over all runs of a pool.

    Raises ValueError for an unknown metric, and for runs with points at other times.
    """
    own = history.timesteps(what)
    found = pasts(pool)
    for path, past in found.items():
        checks.known("what", what, [k for k, v in past.items() if v.ndim == 2])
        for name in (own, own.replace("timestep", "step")):
            if name not in past:
                raise ValueError(f"metrics: {path}/metrics.npz has no {name!r}")
    first, *others = times = {path: past[own] for path, past in found.items()}
    for other in others:
        if not np.array_equal(times[first], times[other]):
            last = [
                f"{x} ({len(times[x])} up to timestep {times[x][-1]:,})" for x in (first, other)
            ]
            raise ValueError(
                f"runs: {' and '.join(last)} are of one config but have points at other times; "
                "--separate draws a curve for each"
            )
    seeds = [run.seeds for run in pool.runs.values()]
    steps = [past[own.replace("timestep", "step")] for past in found.values()]
    mean = np.average(steps, axis=0, weights=seeds)
    return mean, np.concatenate([past[what] for past in found.values()])
