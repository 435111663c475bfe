"""Sweeps on disk: their folder, and how their points did.

A sweep's folder has `sweep.json` (config, options, points, and how it goes on after a round),
`rounds.json` (what was decided after each), `groups/` with the runs of several points that are
under way, and `points/`, where every point ends as an ordinary run: it can be evaluated, watched,
drawn and continued like any other. That of a search also has `trials.json` (the points asked for so
far) and `optuna.journal` (for Optuna's dashboard).
"""

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memrl_jax import points as of_points
from memrl_jax.build import make, per_rollout
from memrl_jax.config import Config, from_json, plain, to_json
from memrl_jax.points import Group, Point, Range
from memrl_jax.run import files, history, trackers
from memrl_jax.run.program import Run, check, spacings
from memrl_jax.run.rounds import Rule
from memrl_jax.run.search import Search, described, restored
from memrl_jax.statistics import iqm

ONCE = Rule()  # all points are trained to the end
FILE, ROUNDS = "sweep.json", "rounds.json"
TRIALS, JOURNAL = "trials.json", "optuna.journal"


class Sweep(NamedTuple):
    """What a sweep is."""

    folder: Path
    config: Config
    run: Run
    points: list[dict[str, Any]]
    rule: Rule
    search: Search | None = None  # then `points` are those of a batch, or none before it is asked
    first: int = 0  # number of the first point

    @property
    def groups(self) -> list[Group]:
        """Return the points that share a program, group by group."""
        return of_points.groups(self.config, self.points)

    @property
    def budgets(self) -> list[int]:
        """Return the timesteps at which the rounds end."""
        total = self.config.total_steps
        return self.rule.budgets(total, len(self.points), per_rollout(self.config))

    def point(self, number: int) -> Path:
        """Return the folder of a point's run."""
        return self.folder / f"points/{self.first + number:03d}"

    def group(self, round_: int, number: int) -> Path:
        """Return the folder of a group that is under way."""
        return self.folder / f"groups/{round_:02d}-{number:03d}"


def planned(
    config: Config,
    run: Run,
    points: Sequence[Point],
    rule: Rule = ONCE,
    search: Search | None = None,
) -> Sweep:
    """Check every point, or what a search may ask for, and return the sweep."""
    check(run)
    if run.target_return is not None:
        raise ValueError(f"target_return: {run.target_return:g} would stop all points of a sweep")
    trackers.check(run.track)
    config = from_json(to_json(config))
    if search is not None:
        return _planned(config, run, search, rule)
    found = [{name: plain(name, x) for name, x in point.items()} for point in points]
    _make(config, found)
    rule.check([group.varied for group in of_points.groups(config, found)])
    if rule != ONCE:
        run = _in_rounds(config, run, found)
    sweep = Sweep(Path(run.out), config, run, found, rule)
    make(config.replace(total_steps=sweep.budgets[0]))
    return sweep


def _planned(config: Config, run: Run, search: Search, rule: Rule) -> Sweep:
    """Check what a search may ask for, and return its sweep, which has no points yet."""
    if rule != ONCE:
        raise ValueError("search: halve and evolve_every are for points that are known before")
    search = restored(described(search))
    search.check(config)
    _make(config, of_points.corners(search.vary))
    return Sweep(Path(run.out), config, run, [], rule, search)


def _make(config: Config, found: Sequence[Point]) -> None:
    """Raise ValueError for settings out of range at any of the points."""
    for point in found:
        try:
            make(of_points.at(config, point))
        except ValueError as error:
            raise ValueError(f"{error} (at {of_points.told(point)})") from None


def _in_rounds(config: Config, run: Run, points: Sequence[Point]) -> Run:
    """Space points, evaluations and checkpoints as the whole of a sweep would, not its rounds."""
    for name in ("total_steps", "environments", "rollout_length"):
        if any(name in point for point in points):
            raise ValueError(f"vary: {name} differs, and so would the rounds of training")
    return Run(**vars(run) | spacings(run, config.total_steps))


def describe(sweep: Sweep) -> str:
    """Return the text of `sweep.json`."""
    rule = sweep.rule._asdict()
    rule["ranges"] = {name: list(x) for name, x in sweep.rule.ranges.items()}
    given = {"config": json.loads(to_json(sweep.config)), "run": vars(sweep.run)}
    search = {} if sweep.search is None else {"search": described(sweep.search)}
    return json.dumps(given | {"points": sweep.points, "rule": rule} | search, indent=2)


def read(path: str) -> Sweep:
    """Return the sweep in a folder; raises ValueError if it is none."""
    place = Path(path)
    try:
        given = files.parse(files.read(place / FILE))
        config, run, points = given["config"], Run(**given["run"] | {"out": path}), given["points"]
        ranges = {name: Range(*x) for name, x in given["rule"]["ranges"].items()}
        rule = Rule(**given["rule"] | {"ranges": ranges})
        search = restored(given["search"]) if "search" in given else None
    except FileNotFoundError:
        raise ValueError(f"sweep: {path} is not the folder of a sweep (no {FILE} in it)") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unreadable(place / FILE, error) from None
    return planned(from_json(json.dumps(config)), run, points, rule, search)


def decisions(sweep: Sweep) -> list[dict[str, Any]]:
    """Return what was decided after each round so far."""
    return _listed(sweep.folder / ROUNDS)


def asked(sweep: Sweep) -> list[dict[str, Any]]:
    """Return all points: of a search, those it has asked for so far."""
    return sweep.points if sweep.search is None else _listed(sweep.folder / TRIALS)


def _listed(path: Path) -> list[dict[str, Any]]:
    try:
        return list(files.parse(files.read(path))) if path.exists() else []
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"sweep: {path} cannot be read ({files.reason(error)})")


def clean(sweep: Sweep) -> None:
    """Remove what processes that were killed left behind."""
    for place in (sweep.folder, sweep.folder / "groups", sweep.folder / "points"):
        for path in place.iterdir():
            if files.is_temporary(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def scores(sweep: Sweep) -> dict[int, dict[str, np.ndarray]]:
    """Return the last evaluation of every finished point, [seeds] a metric, the best one first.

    Points that were given up come after all that were trained for longer, and last those that
    diverged: a seed's evaluation is NaN where its metrics are not finite.
    """
    found, trained = {}, {}
    for number in range(len(sweep.points)):
        past = history.read(sweep.point(number) / "metrics.npz")
        if "evaluation_return" in past:
            found[number] = {k: past[f"evaluation_{k}"][:, -1] for k in ("return", "length")}
            trained[number] = int(past["timestep"][-1])
    ended = {i: score(x["return"]) for i, x in found.items()}
    ranked = sorted(found, key=lambda i: (ended[i] == -math.inf, -trained[i], -ended[i]))
    return {i: found[i] for i in ranked}


def score(returns: np.ndarray) -> float:
    """Return the interquartile mean over seeds [S], or -inf if one of them is not finite."""
    return -math.inf if diverged(returns) else float(iqm(returns))


def diverged(returns: np.ndarray) -> bool:
    """Tell whether a point's evaluations [S] are not all finite."""
    return not np.all(np.isfinite(returns))


def table(sweep: Sweep) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of `sweep.csv`: a point and a seed each, the best point first."""
    for number, last in scores(sweep).items():
        timestep = int(history.read(sweep.point(number) / "metrics.npz")["timestep"][-1])
        for seed in range(sweep.run.seeds):
            values = {name: float(x[seed]) for name, x in last.items()}
            about = {"point": number, **sweep.points[number], "seed": seed, "timestep": timestep}
            yield about | values
