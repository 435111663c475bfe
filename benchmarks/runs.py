"""Results of agents: every run is trained, then evaluated greedily in fresh environments."""

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

import memrl_jax
from benchmarks.findings import Claim, Findings
from memrl_jax import commands, experiment, plot
from memrl_jax.config import to_json
from memrl_jax.program import Run

EPISODES = 100  # per seed, in the evaluation that the figures come from
Returns = Mapping[str, np.ndarray]  # label -> [seeds, EPISODES]


class Result(NamedTuple):
    """Runs to train and what they should show."""

    title: str
    runs: Mapping[str, memrl_jax.Config]
    claims: Callable[[Returns], list[Claim]]
    reference: Mapping[str, float]  # lines to draw across the curves
    seeds: int = 8


def memoryless(config: memrl_jax.Config) -> memrl_jax.Config:
    """Take the memory out, and the previous action and reward, in which a bit can be kept."""
    return config.replace(
        memory="none", memory_args={}, previous_action=False, previous_reward=False
    )


def study(make: Callable[[], Result], console: Console, place: Path, quick: bool) -> Findings:
    """Train the runs of a result; draw their curves."""
    result = shortened(make()) if quick else make()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        series, returns = train(result, Path(scratch), console)
    minutes = (time.perf_counter() - began) / 60
    plot.curves(series, place / "curves.png", title=result.title, reference=result.reference)
    figures = {
        "return": {label: x.mean(axis=1).round(4).tolist() for label, x in returns.items()},
        "episodes": EPISODES,
        "seeds": list(range(result.seeds)),
    }
    configs = {label: json.loads(to_json(config)) for label, config in result.runs.items()}
    table = commands.table({k: {"return": x.mean(axis=1)} for k, x in returns.items()})
    claims = [] if quick else result.claims(returns)
    return Findings(result.title, claims, figures, minutes, configs, table)


def train(result: Result, scratch: Path, console: Console) -> tuple[dict, dict]:
    """Train every run; return curves for the plot, and returns [seeds, EPISODES] at the end."""
    series, returns = {}, {}
    for label, config in result.runs.items():
        console.print(f"{label}: {config.environment}, {result.seeds} seeds")
        run = Run(out=str(scratch / label), seeds=result.seeds)
        with commands.progress_bar(console) as progress:
            done = experiment.start(config, run, console.print, progress)
        if not done.finished:
            raise KeyboardInterrupt
        past = done.history
        series[label] = past["evaluation_step"], past["evaluation_return"]
        returns[label] = experiment.evaluate(run.out, EPISODES, seed=1).total
    return series, returns


def shortened(result: Result) -> Result:
    """Take two seeds and a tenth of the steps."""
    runs = {}
    for label, config in result.runs.items():
        part = config.environments * config.rollout_length
        runs[label] = config.replace(total_steps=config.total_steps // 10 // part * part)
    return result._replace(runs=runs, seeds=2)
