"""Results of agents: every run is trained, then evaluated greedily in fresh environments.

An interrupted result can be resumed: until its report is written, its runs are kept in `runs/` of
its folder.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

import memrl_jax
from benchmarks.findings import Claim, Findings
from memrl_jax import plot
from memrl_jax.commands import shown
from memrl_jax.config import to_json
from memrl_jax.run import experiment, files, history, loop, saved
from memrl_jax.run.program import Run, spacings
from memrl_jax.run.taken import Taken

EPISODES = 100  # per seed, in the evaluation that the figures come from
Curve = tuple[np.ndarray, np.ndarray]  # steps [points], values [seeds, points]
Returns = Mapping[str, np.ndarray]  # label -> [seeds, episodes]


class Result(NamedTuple):
    """Runs to train and what they should show."""

    title: str
    runs: Mapping[str, memrl_jax.Config]
    claims: Callable[[Returns], list[Claim]]
    reference: Mapping[str, float]  # lines to draw across the curves
    seeds: int = 8
    episodes: int = EPISODES
    evaluations: int = 20  # in each run
    watched: int = 32  # episodes per seed in each of these: the points of the curves
    # label -> the run before it that it takes parameters from, and which parts of them
    takes: Mapping[str, tuple[str, Sequence[str]]] = MappingProxyType({})


def memoryless(config: memrl_jax.Config) -> memrl_jax.Config:
    """Return a config without memory, previous action and reward, all of which can keep a bit."""
    return config.replace(
        memory="none", memory_args={}, previous_action=False, previous_reward=False
    )


def study(make: Callable[[], Result], console: Console, place: Path, quick: bool) -> Findings:
    """Train the runs of a result; draw their curves."""
    result = shortened(make()) if quick else make()
    series, returns, minutes = train(result, place / "runs", console)
    draw(series, result, place)
    claims = [] if quick else result.claims(returns)
    return findings(result, returns, claims, minutes)


def findings(
    result: Result, returns: Returns, claims: list[Claim], minutes: float, **more: Any
) -> Findings:
    """Return what was found, with `more` figures beside the mean return of every seed."""
    means = {label: x.mean(axis=1) for label, x in returns.items()}
    figures = {
        "return": {label: x.round(4).tolist() for label, x in means.items()},
        "episodes": result.episodes,
        "seeds": list(range(result.seeds)),
        **more,
    }
    configs = {label: json.loads(to_json(config)) for label, config in result.runs.items()}
    table = shown.table({label: {"return": x} for label, x in means.items()}, "evaluation")
    return Findings(result.title, claims, figures, minutes, configs, table)


def draw(series: Mapping[str, Curve], result: Result, place: Path) -> None:
    """Draw the curves of a result as `curves.png`."""
    plot.curves(
        series,
        place / "curves.png",
        ylabel=history.shown("evaluation_return"),
        title=result.title,
        reference=result.reference,
    )


def train(result: Result, kept: Path, console: Console) -> tuple[dict, dict, float]:
    """Train every run, from the start or from where it was left in the folder `kept`.

    Returns curves for the plot, returns [seeds, episodes] at the end, and minutes of training.
    """
    series, returns, total = {}, {}, 0.0
    for label, config in result.runs.items():
        console.print(f"{label}: {config.environment}, {result.seeds} seeds")
        every = math.ceil(config.total_steps / result.evaluations)
        run = Run(
            out=str(kept / label),
            seeds=result.seeds,
            evaluate_every=every,
            evaluate_episodes=result.watched,
        )
        took = Path(run.out) / "seconds"
        first = taken(result, label, kept)
        with shown.progress_bar(console) as progress:
            done = begin_or_go_on(config, run, console.print, timed(progress, took), first)
        if not done.finished:
            raise KeyboardInterrupt
        past = done.history
        series[label] = past["evaluation_step"], past["evaluation_return"]
        returns[label] = saved.evaluate(run.out, result.episodes, seed=1).total
        total += seconds(took)
    return series, returns, total / 60


def taken(result: Result, label: str, kept: Path) -> Taken | None:
    """Return what a run takes from another in the folder `kept`, if it does."""
    if label not in result.takes:
        return None
    source, parts = result.takes[label]
    return saved.take(str(kept / source), parts, result.seeds)


def begin_or_go_on(
    config: memrl_jax.Config,
    run: Run,
    say: loop.Say,
    report: loop.Report,
    first: Taken | None = None,
) -> loop.Result:
    """Start a run, or resume it if it was begun; raises ValueError if that was another run."""
    if not Path(run.out).exists():
        return experiment.start(config, run, say, report, first)
    _, begun, options = saved.read(run.out)
    told = {"taken": first.record if first else None}
    asked = vars(run) | spacings(run, config.total_steps) | told
    if (to_json(begun), vars(options)) != (to_json(config), asked):
        raise ValueError(f"out: {run.out} was begun with other settings; remove it to begin anew")
    return experiment.resume(run.out, say, report)


def timed(report: loop.Report, path: Path) -> loop.Report:
    """Return a report that also saves to a file the seconds so far, over all interruptions."""
    earlier, began = seconds(path), time.perf_counter()

    def kept(progress: loop.Progress) -> None:
        files.write(path, str(earlier + time.perf_counter() - began))
        report(progress)

    return kept


def seconds(path: Path) -> float:
    """Return the seconds that `timed` has saved, or 0."""
    return float(path.read_text()) if path.exists() else 0.0


def shortened(result: Result) -> Result:
    """Take two seeds and a tenth of the steps."""
    runs = {}
    for label, config in result.runs.items():
        part = config.environments * config.rollout_length
        runs[label] = config.replace(total_steps=config.total_steps // 10 // part * part)
    return result._replace(runs=runs, seeds=2)
