"""Training the points that a search asks for, batch after batch, each the lanes of one program."""

import json
from functools import partial
from typing import Any

from memrl_jax import points as of_points
from memrl_jax.run import files, group_training, history
from memrl_jax.run import sweep as sweeps
from memrl_jax.run.loop import Progress, Report
from memrl_jax.run.processes import by_first
from memrl_jax.run.search import Search, ask, journal
from memrl_jax.run.stages import Stage
from memrl_jax.run.sweep import Sweep


def sample(sweep: Sweep, search: Search) -> Sweep:
    """Return a batch that a search might ask for."""
    return sweep._replace(points=of_points.corners(search.vary)[:1] * search.at_once)


def train(stage: Stage, search: Search) -> bool:
    """Ask for points and train them until there are enough; return whether all were finished."""
    sweep, total = stage.sweep, stage.sweep.config.total_steps
    asked = len(by_first(partial(sweeps.asked, sweep)))
    done = max(0, asked - search.at_once)  # all but the last batch, if any
    for first in range(done, search.trials, search.at_once):
        tried, scores = by_first(partial(_ask, sweep, search, first))
        last = first + search.at_once
        stage.say(f"trials {first} to {last - 1} of {search.trials}{_best(tried, scores)}")
        batch = sweep._replace(points=tried[first:last], first=first)
        report = _share(stage.report, first * total, search.trials * total, search.at_once)
        if not group_training.train(stage._replace(sweep=batch, report=report)):
            return False
    by_first(lambda: _keep(sweep, search, sweeps.asked(sweep), _scores(sweep, search.trials)))
    return True


def _ask(sweep: Sweep, search: Search, first: int) -> tuple[list[dict[str, Any]], list[float]]:
    """Ask for the batch of the trial `first`, if nobody has; return all trials and their scores."""
    tried, scores = sweeps.asked(sweep), _scores(sweep, first)
    if len(tried) == first:
        tried = tried + ask(search, sweep.config, sweep.run.seed, tried, scores)
        files.write(sweep.folder / sweeps.TRIALS, json.dumps(tried, indent=2))
    _keep(sweep, search, tried, scores)
    return tried, scores


def _keep(sweep: Sweep, search: Search, tried: list[dict[str, Any]], scores: list[float]) -> None:
    """Write Optuna's journal; the trials that have ended, the first ones, have scores."""
    files.write(sweep.folder / sweeps.JOURNAL, journal(search, sweep.folder.name, tried, scores))


def _scores(sweep: Sweep, trials: int) -> list[float]:
    """Return the score of the last evaluation of the first trials."""
    pasts = [history.read(sweep.point(number) / "metrics.npz") for number in range(trials)]
    return [sweeps.score(past["evaluation_return"][:, -1]) for past in pasts]


def _best(tried: list[dict[str, Any]], scores: list[float]) -> str:
    if not scores:
        return ""
    best = max(range(len(scores)), key=scores.__getitem__)
    return f"; the best so far: {of_points.told(tried[best])}, return {scores[best]:.4g}"


def _share(report: Report, before: int, total: int, at_once: int) -> Report:
    """Return a `report` that counts the progress of a batch as a part of the whole."""

    def share(progress: Progress) -> None:
        done = before + at_once * progress.timesteps
        report(progress._replace(timesteps=done, total_steps=total))

    return share
