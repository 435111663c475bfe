"""Searching: which points to try next, by what has come of those before them.

Tree-structured Parzen estimators (Bergstra et al. 2011), asked of Optuna in batches: a batch is
trained as one program. What is asked depends on the points before, their scores and a seed alone;
Optuna's journal is written for its dashboard, and never read here.
"""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from memrl_jax import checks, points
from memrl_jax.config import Config, plain
from memrl_jax.points import Point, Range, Vary
from memrl_jax.settings import traced


class Search(NamedTuple):
    """What is searched, and how long."""

    trials: int
    at_once: int  # trials in a batch
    vary: Vary

    def check(self, config: Config) -> None:
        """Raise ValueError unless every batch can be asked for, and trained as one program."""
        if find_spec("optuna") is None:
            raise ValueError('search: optuna is not installed; pip install "memrl_jax[search]"')
        checks.positive("trials", self.trials)
        if self.trials % checks.positive("trials_at_once", self.at_once):
            raise ValueError(
                f"trials: {self.trials} is no multiple of trials_at_once = {self.at_once}"
            )
        points.check(self.vary)
        if "total_steps" in self.vary:
            raise ValueError("vary: total_steps differs, and so would what trials are judged by")
        free = {*traced(points.at(config, points.corners(self.vary)[0]))}
        for name, x in self.vary.items():
            if isinstance(x, Range) and name not in free:
                raise ValueError(f"search: {name} shapes the program; list values, not a range")
        if len(self.shaping(config)) == len(self.vary):
            raise ValueError(f"search: {', '.join(self.vary)} shape the program; vary a float too")

    def shaping(self, config: Config) -> list[str]:
        """Return the settings that differ between programs, not within a batch."""
        free = {*traced(config)}
        return [
            name
            for name, x in self.vary.items()
            if name not in free or not (isinstance(x, Range) or all(map(checks.is_real, x)))
        ]


def described(search: Search) -> dict[str, Any]:
    """Return a search as JSON types."""
    vary = {
        name: x._asdict() if isinstance(x, Range) else [plain(name, value) for value in x]
        for name, x in search.vary.items()
    }
    return search._asdict() | {"vary": vary}


def restored(given: Mapping[str, Any]) -> Search:
    """Return the search that was `described`."""
    vary = {
        name: Range(**x) if isinstance(x, Mapping) else [*x] for name, x in given["vary"].items()
    }
    return Search(**{**given, "vary": vary})


def ask(
    search: Search, config: Config, seed: int, tried: Sequence[Point], scores: Sequence[float]
) -> list[dict[str, Any]]:
    """Return the next batch of points, after all that were `tried` and their scores.

    A score of -inf is that of a point that diverged. The first batch is drawn at random. The points
    of a batch have the settings that shape the program in common: those of its first point.
    """
    import optuna

    batch = np.random.SeedSequence([seed, len(tried)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=search.at_once,
            seed=int(batch.generate_state(1)[0]),
            constant_liar=True,  # points of a batch keep away from each other
        )
    study = _study(search, tried, scores, sampler=sampler)
    asked: list[dict[str, Any]] = []
    for _ in range(search.at_once):
        if asked:
            study.enqueue_trial({name: asked[0][name] for name in search.shaping(config)})
        asked.append(study.ask(_space(search)).params)
    return [_point(search, chosen) for chosen in asked]


def journal(search: Search, name: str, tried: Sequence[Point], scores: Sequence[float]) -> bytes:
    """Return Optuna's journal of the points that were tried; those without a score are running."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    with TemporaryDirectory() as place:
        path = Path(place) / "journal"
        storage = JournalStorage(JournalFileBackend(str(path)))
        _study(search, tried, scores, storage=storage, study_name=name)
        return path.read_bytes()


def _study(search: Search, tried: Sequence[Point], scores: Sequence[float], **options: Any) -> Any:
    """Return a study that knows the points that were tried."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells of every study it makes
    study = optuna.create_study(direction="maximize", **options)
    states = optuna.trial.TrialState
    for number, point in enumerate(tried):
        done = number < len(scores)
        well = done and math.isfinite(scores[number])
        trial = optuna.trial.create_trial(
            state=states.COMPLETE if well else states.FAIL if done else states.RUNNING,
            value=scores[number] if well else None,
            params={name: _choice(search.vary[name], x) for name, x in point.items()},
            distributions=_space(search),
        )
        study.add_trial(trial)
    return study


def _space(search: Search) -> dict[str, Any]:
    """Return what Optuna calls the distributions of the settings that vary."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    return {
        name: FloatDistribution(x.low, x.high, log=x.logarithmic)
        if isinstance(x, Range)
        else CategoricalDistribution([_choice(x, value) for value in x])
        for name, x in search.vary.items()
    }


def _choice(values: Sequence[Any] | Range, value: Any) -> Any:
    """Return a value as Optuna keeps it: lists and mappings as JSON."""
    listed = isinstance(value, list | dict) and not isinstance(values, Range)
    return json.dumps(value) if listed else value


def _point(search: Search, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the point that Optuna has chosen, with the values that were listed."""
    point = {}
    for name, values in search.vary.items():
        x = chosen[name]
        if not isinstance(values, Range):
            x = next(value for value in values if _choice(values, value) == x)
        point[name] = x
    return point
