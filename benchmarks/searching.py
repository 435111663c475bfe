"""A learning rate on the T-Maze: what a search tries, beside a grid of eight."""

import json
import time
from pathlib import Path

import numpy as np
from rich.console import Console

import memrl_jax
from benchmarks import runs, transfer
from benchmarks.findings import Claim, Findings
from memrl_jax import plot, points
from memrl_jax.commands import shown
from memrl_jax.config import to_json
from memrl_jax.points import Range
from memrl_jax.run import history, sweep, sweep_training
from memrl_jax.run.program import Run
from memrl_jax.run.search import Search
from memrl_jax.run.sweep import Sweep
from memrl_jax.statistics import iqm

RATES = Range(1e-5, 1e-2, logarithmic=True)
GRID, TRIALS, AT_ONCE = 8, 32, 8
SEEDS = 2


def study(console: Console, place: Path, quick: bool) -> Findings:
    """Train a grid of learning rates, then those that a search asks for; compare the best ones."""
    # So few rollouts that most learning rates come too late.
    base = transfer.ppo(transfer.SHORT, rollouts=10 if quick else 60)
    trials = 2 * AT_ONCE if quick else TRIALS
    vary = {"learning_rate": RATES}
    rates = np.geomspace(RATES.low, RATES.high, GRID).tolist()
    began = time.perf_counter()
    once = base.total_steps  # all that counts is the return in the end
    run = Run(seeds=SEEDS, evaluate_every=once, evaluate_episodes=runs.EPISODES)
    listed = trained(console, base, run, place / "runs/grid", rates=rates)
    searched = trained(console, base, run, place / "runs/tpe", Search(trials, AT_ONCE, vary))
    minutes = (time.perf_counter() - began) / 60
    found = {"grid": tried(listed), "TPE": tried(searched)}
    draw(found, place)
    best = {name: max(pairs, key=lambda pair: pair[1]) for name, pairs in found.items()}
    table = shown.table({k: {"return": np.array([x])} for k, (_, x) in best.items()}, "best")
    claims = [] if quick else [judged(found)]
    figures = {"learning rates and returns": found, "seeds": [*range(SEEDS)]}
    configs = {"all": json.loads(to_json(base))}
    return Findings("T-Maze, learning rates", claims, figures, minutes, configs, table)


def trained(
    console: Console,
    base: memrl_jax.Config,
    run: Run,
    out: Path,
    search: Search | None = None,
    rates: list[float] | None = None,
) -> Sweep:
    """Train a sweep or a search, or go on with it."""
    listed = points.grid({"learning_rate": rates}) if rates else []
    run = Run(**vars(run) | {"out": str(out)})
    begin = sweep_training.resume if out.exists() else sweep_training.start
    done = sweep.planned(base, run, listed, search=search)
    with shown.progress_bar(console) as report:
        if not begin(done, console.print, report):
            raise KeyboardInterrupt
    return done._replace(points=sweep.asked(done))


def tried(done: Sweep) -> list[tuple[float, float]]:
    """Return the learning rates in the order in which they were tried, and their returns."""
    scores = sweep.scores(done)
    return [
        (point["learning_rate"], float(iqm(scores[number]["return"])))
        for number, point in enumerate(done.points)
    ]


def judged(found: dict[str, list[tuple[float, float]]]) -> Claim:
    """Judge whether the search has found a rate as good as the best of the grid."""
    rate, most = max(found["grid"], key=lambda pair: pair[1])
    enough = [number for number, (_, x) in enumerate(found["TPE"]) if x >= most]
    told = "none"
    if enough:
        own, x = found["TPE"][enough[0]]
        told = f"{x:.3f} at {own:.2g} in trial {enough[0] + 1}"
    figure = f"{told}; the grid's {most:.3f} at {rate:.2g}"
    return Claim(f"TPE: as good as the best of {GRID} within {TRIALS} trials", figure, bool(enough))


def draw(found: dict[str, list[tuple[float, float]]], place: Path) -> None:
    """Draw the best return so far against the trials."""
    best = {
        name: (np.arange(1, len(pairs) + 1), np.maximum.accumulate([[x for _, x in pairs]], axis=1))
        for name, pairs in found.items()
    }
    title, ylabel = "T-Maze: the best learning rate so far", history.shown("evaluation_return")
    plot.curves(best, place / "curves.png", xlabel="trials", ylabel=ylabel, title=title)
