"""The command `memrl sweep`."""

import csv
import io
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from memrl_jax import checks, imports, plot, points, statistics
from memrl_jax.commands import training
from memrl_jax.commands.arguments import fields_of, modules, parse
from memrl_jax.commands.shown import cell, progress_bar
from memrl_jax.config import Config
from memrl_jax.points import Point, Vary
from memrl_jax.preset_configs import presets
from memrl_jax.run import files, history, processes, sweep_training
from memrl_jax.run import sweep as sweeps
from memrl_jax.run.program import Run
from memrl_jax.run.rounds import Rule
from memrl_jax.run.search import Search
from memrl_jax.run.sweep import Sweep

Scores = Mapping[int, Mapping[str, np.ndarray]]  # point -> metric -> [seeds]
RETURN = "evaluation_return"
LABELLED = 8  # points whose curves have a colour and a label, the best ones
BATCH = 8  # trials of a search at once

HELP = """usage: memrl sweep PRESET --vary NAME=VALUE,VALUE,... [OPTIONS]
       memrl sweep PRESET --vary NAME=log:LOW..HIGH --search tpe --trials N [OPTIONS]
       memrl sweep --resume SWEEP

presets: {presets}

`memrl sweep PRESET --help` lists every setting with its default; each may vary.
"""


@dataclass(frozen=True)
class Options:
    """Train a preset with several seeds at every combination of values of some settings."""

    config: training.Trained
    run: training.Around
    vary: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUES ...")] = ()
    """Settings and their values: learning_rate=1e-4,3e-4, memory=gru,lru, encoder=[64],[64,64],
    memory_args.features=32,64; or ranges to draw from, learning_rate=log:1e-5..1e-2,
    discount=uniform:0.9..0.999. May be given several times."""
    grid: str | None = None
    """TOML file with more of them, one a line: a list, or a range as a string."""
    draws: int = 1
    """How often every range is drawn from, for each combination of the other values."""
    halve: int | None = None
    """Successive halving: train all points for a little, then give up all but one of so many, and
    so on, until the last are trained to the end."""
    evolve_every: int | None = None
    """Population-based training: after so many timesteps the worst quarter of the points goes on
    from the states of the best quarter, with settings a little higher or lower than theirs."""
    own_replay: bool = False
    """A member of the population that copies another one keeps its own experience."""
    search: Literal["tpe"] | None = None
    """Try points one batch after another, each where those before promise most: tpe are
    tree-structured Parzen estimators, asked of Optuna."""
    trials: int | None = None
    """Points that a search tries."""
    trials_at_once: int | None = None
    """Points in a batch, trained side by side in one program; by default 8."""


@dataclass(frozen=True)
class Resume:
    """Go on with a sweep, as if it had never stopped."""

    resume: str
    """Folder of the sweep."""


def sweep(arguments: list[str]) -> int:
    """Run `memrl sweep`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP.format(presets=", ".join(presets)), end="")
        return 0
    if any(word.partition("=")[0] == "--resume" for word in arguments):
        path = parse(Resume, arguments, "memrl sweep").resume
        return _follow(sweeps.read(path), sweep_training.resume)
    for module in modules(arguments):
        imports.load("imports", module)
    name = checks.known("preset", arguments[0], presets)
    default = Options(training.Trained(**fields_of(presets[name])), training.Around())
    given = parse(Options, arguments[1:], f"memrl sweep {name}", default)
    config = Config(**fields_of(given.config))
    run = replace(Run(**vars(given.run)), out=given.run.out or f"sweeps/{name}")
    vary = _given(given.vary) | _listed(given.grid, given.vary)
    search = _search(given, vary)
    found = [] if search else points.grid(vary, given.draws, run.seed)
    ranges = {name: x for name, x in vary.items() if isinstance(x, points.Range)}
    evolving = {} if given.evolve_every is None else ranges
    rule = Rule(given.halve, given.evolve_every, given.own_replay, evolving)
    return _follow(sweeps.planned(config, run, found, rule, search), sweep_training.start)


def _search(given: Options, vary: Vary) -> Search | None:
    """Return the search that was asked for; raises ValueError for options without their others."""
    if given.search is None:
        for name in ("trials", "trials_at_once"):
            if getattr(given, name) is not None:
                raise ValueError(f"{name}: {getattr(given, name)} is for a search; name search too")
        return None
    if given.trials is None:
        raise ValueError("search: tpe of how many points? name trials")
    if given.draws != 1:
        raise ValueError(f"draws: {given.draws} are for a grid; a search draws by itself")
    return Search(given.trials, given.trials_at_once or BATCH, vary)


def _given(words: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUES words."""
    vary: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals and text):
            raise ValueError(f"vary: {word!r} is not NAME=VALUES")
        if name in vary:
            raise ValueError(f"vary: {name} is given twice")
        vary[name] = points.values(f"vary: {name}", text)
    return vary


def _listed(path: str | None, words: Sequence[str]) -> dict[str, Any]:
    """Read a grid file: a list of values a setting, or a range as text."""
    if path is None:
        return {}
    try:
        given = tomllib.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"grid: {path} cannot be read ({files.reason(error)})") from None
    named = [word.partition("=")[0] for word in words]
    vary: dict[str, Any] = {}
    for name, x in points.flattened(given).items():
        if name in named:
            raise ValueError(f"grid: {path} has {name}, as --vary has")
        if not isinstance(x, str | list):
            raise ValueError(f"grid: {name} = {checks.shown(x)} in {path} is no list and no range")
        vary[name] = points.values(f"grid: {name}", x) if isinstance(x, str) else x
    return vary


def _follow(done: Sweep, train: Any) -> int:
    """Train with a progress bar, tell how it ended, and return the exit code.

    Of several processes, only the first one says anything.
    """
    console = Console(quiet=not processes.leads())
    with progress_bar(console) as report:
        finished = train(done, partial(console.print, markup=False), report)
    if not processes.leads():
        return 0 if finished else 130
    if not finished:
        print(f"interrupted and saved; go on with: memrl sweep --resume {done.folder}")
        return 130
    console.print(write(done._replace(points=sweeps.asked(done))))
    print(f"finished: {done.folder} (sweep.csv, curves.png, a picture a setting, points/)")
    return 0


def write(done: Sweep) -> Table:
    """Write `sweep.csv` and the pictures of a finished sweep; return the table of its points."""
    rows = [*sweeps.table(done)]
    text = io.StringIO()
    written = csv.DictWriter(text, [*rows[0]], lineterminator="\n")
    written.writeheader()
    written.writerows(rows)
    files.write(done.folder / "sweep.csv", text.getvalue())
    scores = sweeps.scores(done)
    if well := {i: x for i, x in scores.items() if not sweeps.diverged(x["return"])}:
        _draw(done, scores, well)
    return _table(done, scores)


def _draw(done: Sweep, scores: Scores, well: Scores) -> None:
    """Draw the points that have not diverged: curves, and returns by every setting."""
    _curves(done, [*well])
    for name in done.points[0]:
        values = [done.points[number][name] for number in well]
        returns = np.stack([score["return"] for score in well.values()])
        title = f"{done.config.environment}: {name}"
        out = done.folder / f"effect-{name}.png"
        plot.effect(name, values, returns, out, ylabel=history.shown(RETURN), title=title)
    if done.rule.evolve_every is not None:
        _schedule(done, scores)


def _schedule(done: Sweep, scores: Scores) -> None:
    """Draw who went on from whose state after each round, and how settings moved."""
    decided = sweeps.decisions(done)
    first = done.groups[0].varied
    last = [sweeps.score(scores[number]["return"]) for number in range(len(done.points))]
    plot.schedule(
        [*done.budgets],
        [*map(_drawn, (*(decision["scores"] for decision in decided), last))],
        [decision["source"] for decision in decided],
        {name: [first[name], *(x["varied"][name] for x in decided)] for name in first},
        done.folder / "schedule.png",
        title=f"{done.config.environment}: {len(last)} members, {len(decided) + 1} rounds",
    )


def _drawn(scores: Sequence[float | None]) -> list[float]:
    """Return scores in which members that diverged are as the worst of the others."""
    worst = min((x for x in scores if x is not None and x > -math.inf), default=0.0)
    return [worst if x is None else max(x, worst) for x in scores]


def _curves(done: Sweep, ranked: Sequence[int]) -> None:
    """Draw the curves of all points, with labels on the best ones."""

    def curve(number: int) -> tuple[np.ndarray, np.ndarray]:
        past = history.read(done.point(number) / "metrics.npz")
        return past["evaluation_step"], past[RETURN]

    best = {points.told(done.points[i]): curve(i) for i in ranked[:LABELLED]}
    others = [curve(i) for i in ranked[LABELLED:]]
    title = f"{done.config.environment}: {len(ranked)} points"
    title += f", the best {LABELLED} in colour" if others else ""
    out = done.folder / "curves.png"
    plot.curves(best, out, ylabel=history.shown(RETURN), title=title, others=others)


def _table(done: Sweep, scores: Scores) -> Table:
    """Tabulate the points, the best one first."""
    names = [*done.points[0]]
    table = Table("point", *names, "return", "length", title="last evaluation: IQM over seeds")
    for number, score in scores.items():
        point: Point = done.points[number]
        settings = [escape(points.told({name: point[name]}).partition("=")[2]) for name in names]
        diverged = sweeps.diverged(score["return"])
        cells = ["diverged", ""] if diverged else [cell(score[x]) for x in ("return", "length")]
        table.add_row(f"{number:03d}", *settings, *cells)
    table.caption = statistics.caption([done.run.seeds])
    return table
