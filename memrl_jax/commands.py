"""What the commands of `memrl` do."""

import collections.abc
import contextlib
import io
import json
import tempfile
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from flax import struct
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from memrl_jax import checks, experiment, folder, history, imports
from memrl_jax.agents import AGENTS
from memrl_jax.config import Config, presets
from memrl_jax.environments import ENVIRONMENTS
from memrl_jax.memory import MEMORIES
from memrl_jax.program import Run
from memrl_jax.replay import REPLAYS
from memrl_jax.statistics import Interval, bootstrap

MISSING = tyro.MISSING_NONPROP

TRAIN_HELP = """usage: memrl train PRESET [OPTIONS]
       memrl train --resume RUN

presets: {presets}

`memrl train PRESET --help` lists every setting with its default.
`--import MODULE` brings in presets and other parts of your own.
Training goes on when nothing reads its output any more, as after `| head -1`.
"""


class Settings(Config):
    """A config whose modules are named one by one."""

    imports: Annotated[
        tuple[str, ...], tyro.conf.arg(name="import", metavar="MODULE"), tyro.conf.UseAppendAction
    ] = struct.field(pytree_node=False, default=())


@dataclass(frozen=True)
class Train:
    """Train a preset, with any of its settings changed."""

    config: Settings
    run: Run


@dataclass(frozen=True)
class Resume:
    """Go on with a run from its last checkpoint, as if it had never stopped."""

    resume: str
    """Folder of the run."""


@dataclass(frozen=True)
class Evaluate:
    """Play greedy episodes with every seed of a run; the run is left as it is."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    episodes: int = 100
    """Episodes per seed, each in an environment of its own."""
    seed: int = 0
    """Number that the keys of the episodes come from."""


@dataclass(frozen=True)
class Watch:
    """Film greedy episodes with one seed of a run, and what its memory attends to."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    seed: int = 0
    """Which of the run's seeds plays, from 0."""
    episodes: int = 1
    """Episodes, one after another."""
    out: str = "watch.gif"
    """GIF to write."""


@dataclass(frozen=True)
class Plot:
    """Draw the learning curves of runs: interquartile mean and 95 % interval over seeds."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN ...")]
    """Folders of the runs."""
    out: str = "curves.png"
    """PNG to write."""
    what: str = "evaluation_return"
    """Name of the metric to draw, as in metrics.npz."""


@dataclass(frozen=True)
class List:
    """Name environments, memories, replays, agents and presets."""

    imports: Annotated[
        tuple[str, ...], tyro.conf.arg(name="import", metavar="MODULE"), tyro.conf.UseAppendAction
    ] = ()
    """Modules of your own to import first, by name or as the path of a .py file."""


def train(arguments: list[str]) -> int:
    """Run `memrl train`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(TRAIN_HELP.format(presets=", ".join(presets)), end="")
        return 0
    if arguments[0].startswith("--resume"):
        path = parse(Resume, arguments, "memrl train").resume
        return follow(lambda say, report: experiment.resume(path, say, report))
    for module in _modules(arguments):  # for they may bring the preset
        imports.load("imports", module)
    name = checks.known("preset", arguments[0], presets)
    default = Train(Settings(**_fields(presets[name])), Run())
    given = parse(Train, arguments[1:], f"memrl train {name}", default)
    config = Config(**_fields(given.config))
    environment = config.environment.replace(":", "-").replace("/", "-")
    run = replace(given.run, out=given.run.out or f"runs/{name}-{environment}")
    return follow(lambda say, report: experiment.start(config, run, say, report))


def _modules(arguments: list[str]) -> list[str]:
    """Return what follows `--import`."""
    pairs = zip(arguments, [*arguments[1:], None], strict=True)
    after = [follower for word, follower in pairs if word == "--import" and follower]
    return after + [x.partition("=")[2] for x in arguments if x.startswith("--import=")]


def _fields(config: Config) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in fields(config)}


def follow(train: Callable[[experiment.Say, experiment.Report], experiment.Result]) -> int:
    """Train with a progress bar, and say how it ended."""
    console = Console()
    with progress_bar(console) as report:
        result = train(console.print, report)
    if "evaluation_return" in result.history:
        last = {k: result.history[f"evaluation_{k}"][:, -1] for k in ("return", "length")}
        console.print(table({result.folder.name: last}))
    if result.finished:
        print(f"finished: {result.folder}")
        return 0
    print(f"interrupted and saved; go on with: memrl train --resume {result.folder}")
    return 130


def evaluate(arguments: list[str]) -> int:
    """Run `memrl evaluate`."""
    given = parse(Evaluate, arguments, "memrl evaluate")
    played = experiment.evaluate(given.run, given.episodes, given.seed)
    console = Console()
    rows = Table("seed", "return", "length", title=f"{given.episodes} greedy episodes per seed")
    for seed, (total, length) in enumerate(zip(played.total, played.length, strict=True)):
        rows.add_row(str(seed), *(cell(bootstrap(x, np.mean)) for x in (total, length)))
    means = [x.mean(axis=1) for x in (played.total, played.length)]
    rows.add_row("IQM over seeds", *(cell(bootstrap(x)) for x in means), style="bold")
    console.print(rows)
    unfinished = int(np.sum(~played.done))
    if unfinished:
        console.print(
            f"{unfinished} episodes did not end within the horizon; they count as they are"
        )
    return 0


def watch(arguments: list[str]) -> int:
    """Run `memrl watch`."""
    from memrl_jax import plot

    given = parse(Watch, arguments, "memrl watch")
    check_out(given.out, ".gif")
    episodes = experiment.play(given.run, given.seed, given.episodes)
    console = Console()
    for number, episode in enumerate(episodes):
        total = float(episode.reward.sum())
        console.print(f"episode {number}: {len(episode.action)} steps, return {total:.4g}")
    columns = (TextColumn("{task.completed} / {task.total} frames"), BarColumn(bar_width=None))
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=sum(len(episode.action) for episode in episodes))
        plot.film(episodes, given.out, report=lambda done: bar.update(task, completed=done))
    print(given.out)
    return 0


def plot(arguments: list[str]) -> int:
    """Run `memrl plot`."""
    from memrl_jax import plot

    given = parse(Plot, arguments, "memrl plot")
    if not given.runs:
        raise ValueError("runs: name at least one")
    check_out(given.out, ".png")
    series = {}
    for path in given.runs:
        place, _, _ = folder.read(path)
        past = history.read(place / "metrics.npz")
        if not past:
            raise ValueError(f"run: {path} has no metrics yet")
        checks.known("what", given.what, [k for k, v in past.items() if v.ndim == 2])
        prefix = "evaluation_" if given.what.startswith("evaluation_") else ""
        series[path] = (past[f"{prefix}step"], past[given.what])
    label = given.what.removeprefix("evaluation_")
    plot.curves(series, given.out, ylabel=label)
    print(given.out)
    return 0


def list_names(arguments: list[str]) -> int:
    """Run `memrl list`."""
    for module in parse(List, arguments, "memrl list").imports:
        imports.load("imports", module)
    for title, names in (
        ("environments", ENVIRONMENTS),
        ("memories", MEMORIES),
        ("replays", REPLAYS),
        ("agents", AGENTS),
        ("presets", presets),
    ):
        print(f"{title}:")
        print(textwrap.indent(textwrap.fill(", ".join(names), 76, break_on_hyphens=False), "  "))
    return 0


def check_out(path: str, suffix: str) -> None:
    """Raise ValueError, before there is anything to write, for a file that cannot be written."""
    out = Path(path)
    if out.suffix != suffix:
        raise ValueError(f"out: {path!r} does not end in {suffix}")
    try:
        if not out.parent.is_dir():
            raise ValueError(f"out: there is no folder {str(out.parent)!r}")
        if out.is_dir():
            raise ValueError(f"out: {path!r} is a folder")
        tempfile.TemporaryFile(dir=out.parent, prefix=f".{out.name}.").close()
    except OSError as error:
        raise ValueError(f"out: {path!r} cannot be written ({error.strerror})") from None


def table(rows: Mapping[str, Mapping[str, np.ndarray]]) -> Table:
    """Tabulate values over seeds [S] per row and column: interquartile mean and interval."""
    columns = list(next(iter(rows.values())))
    out = Table("run", *columns, title="last evaluation: IQM over seeds, 95 % interval")
    for name, values in rows.items():
        out.add_row(name, *(cell(bootstrap(values[column])) for column in columns))
    return out


def cell(x: Interval) -> str:
    """Write an interval in a cell of a table."""
    return f"{x.estimate:.4g} [{x.low:.4g}, {x.high:.4g}]"


@contextlib.contextmanager
def progress_bar(console: Console) -> Iterator[experiment.Report]:
    """Show steps, steps/s, time left and returns; without a terminal, a line every tenth."""
    bar = Progress(
        TextColumn("{task.fields[steps]}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("return {task.fields[now]}"),
        console=console,
        disable=not console.is_terminal,
        speed_estimate_period=20,
    )
    task = bar.add_task("", total=None, steps="compiling", rate="", now="-")
    tenth = 0

    def report(progress: experiment.Progress) -> None:
        nonlocal tenth
        now = f"{progress.mean_return:.4g}"
        if progress.evaluation is not None:
            now += f", greedy {progress.evaluation:.4g}"
        rate = f"{progress.rate:,.0f} steps/s"
        total = progress.total_steps
        steps = f"{progress.steps:>11,} / {total:,} steps"
        bar.update(task, completed=progress.steps, total=total, steps=steps, rate=rate, now=now)
        if not console.is_terminal and 10 * progress.steps // total > tenth:
            tenth = 10 * progress.steps // total
            console.print(f"{steps}  {rate}  return {now}")

    with bar:
        yield report


def parse(kind: Any, arguments: list[str], program: str, default: Any = MISSING) -> Any:
    """Read arguments into a dataclass; raises ValueError, in one line, for what does not fit."""
    _check_once(arguments)
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_options_rule)
    prefixes = (tyro.conf.OmitArgPrefixes,)

    def read() -> Any:
        with registry:
            return tyro.cli(kind, prog=program, args=arguments, default=default, config=prefixes)

    said = io.StringIO()
    try:
        # Without a terminal, tyro writes plain text.
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return read()
    except SystemExit as stop:
        if stop.code:
            raise ValueError(_one_line(said.getvalue())) from None
    return read()  # prints the help, and exits


def _check_once(arguments: list[str]) -> None:
    """Raise ValueError for an option that is given again."""
    words = [x.partition("=")[0].replace("_", "-") for x in arguments if x.startswith("--")]
    for option in words:
        if words.count(option) > 1 and option != "--import":
            raise ValueError(f"{option}: given {words.count(option)} times")


def _one_line(text: str) -> str:
    """Take the message, and the options near it, out of what tyro writes around them."""
    lines = [line.strip() for line in text.splitlines()]
    blocks = [list(x) for rule, x in groupby(lines, lambda line: not line.strip("-")) if not rule]
    _title, message, *hints = blocks
    likely = ("Perhaps you meant", "Arguments similar to")
    near = [hint[1].split()[0] for hint in hints if hint[0].startswith(likely)]
    return " ".join(message) + (f"; did you mean {' and '.join(near)}?" if near else "")


def _options_rule(info: Any) -> Any:
    """Read a mapping from `name=value` words, with numbers and booleans as such."""
    if typing.get_origin(info.type) is not collections.abc.Mapping:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=VALUE ...",
        instance_from_str=_options,
        is_instance=lambda x: isinstance(x, Mapping),
        str_from_instance=lambda x: [f"{name}={value}" for name, value in x.items()],
    )


def _options(words: list[str]) -> dict[str, Any]:
    pairs = [_option(word) for word in words]
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is given {names.count(name)} times")
    return dict(pairs)


def _option(word: str) -> tuple[str, Any]:
    name, equals, text = word.partition("=")
    if not (name and equals and text):
        raise ValueError(f"{word!r} is not name=value")
    try:
        return name, json.loads(text.lower() if text in ("True", "False") else text)
    except json.JSONDecodeError:
        return name, text
