"""The commands of `memrl`."""

import collections.abc
import contextlib
import io
import json
import math
import tempfile
import textwrap
import time
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from flax import struct
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from memrl_jax import checks, imports, statistics
from memrl_jax.agents import AGENTS
from memrl_jax.config import Config
from memrl_jax.environments import ENVIRONMENTS
from memrl_jax.memory import MEMORIES
from memrl_jax.preset_configs import presets
from memrl_jax.replay import REPLAYS
from memrl_jax.rollout import Evaluation
from memrl_jax.run import experiment, files, folder, history
from memrl_jax.run.pool import Pool, pools, series, short, told
from memrl_jax.run.program import Run
from memrl_jax.run.taken import Taken
from memrl_jax.run.trackers import TRACKERS
from memrl_jax.statistics import iqm

MISSING = tyro.MISSING_NONPROP
SEVERAL = "--view", "--track", "--vary"  # options that may be given several times

TRAIN_HELP = """usage: memrl train PRESET [OPTIONS]
       memrl train PRESET --from RUN --take PART,... [OPTIONS]
       memrl train --resume RUN [OPTIONS]

presets: {presets}

`memrl train PRESET --help` lists every setting with its default,
`memrl train --resume RUN --help` what may change on the way.
`--import MODULE` brings in presets and other parts of your own.
Training goes on when nothing reads its output any more, as after `| head -1`.
"""


class Trained(Config):
    """What is trained, and on what."""

    imports: Annotated[
        tuple[str, ...], tyro.conf.arg(name="import", metavar="MODULE"), tyro.conf.UseAppendAction
    ] = struct.field(pytree_node=False, default=())


@dataclass(frozen=True)
class Around(Run):
    """Everything around a training run that can be given."""

    taken: Annotated[Mapping[str, Any] | None, tyro.conf.Suppress, tyro.conf.Fixed] = None


@dataclass(frozen=True)
class Train:
    """Train a preset, with any of its settings changed."""

    config: Trained
    run: Around
    source: Annotated[str | None, tyro.conf.arg(name="from", metavar="RUN")] = None
    """Folder of a run to take parameters from, as it was last saved. Each new seed takes those of
    its seed of the same number, cyclically. config.json tells what was taken, and a copy is kept
    in the new run's folder, which needs the other no more."""
    take: tuple[str, ...] = ()
    """Parts to take: encoder, memory, head, or what else its agent has; several with commas. All
    else begins anew. --freeze keeps parts as they are."""


@dataclass(frozen=True)
class Resume:
    """Go on with a run from its last checkpoint, as if it had never stopped; only environments on
    the host begin new episodes."""

    resume: str
    """Folder of the run."""
    total_steps: int | None = None
    """Timesteps of the whole run, over all copies: more than it was begun with, say."""
    log_every: int | None = None
    """Timesteps between two points of the metrics, from here on."""
    evaluate_every: int | None = None
    """Timesteps between two greedy evaluations, from here on."""
    evaluate_episodes: int | None = None
    """Episodes in an evaluation, from here on."""
    checkpoint_every: int | None = None
    """Timesteps between two checkpoints, from here on."""
    target_return: float | None = None
    """Stop once an evaluation reaches this; inf is out of reach."""
    max_gigabytes: float | None = None
    """Refuse to go on when replay and state of all seeds would hold more than this."""
    track: tuple[str, ...] | None = None
    """Trackers to tell of the run, from its beginning on: tensorboard, wandb, mlflow, or one of
    your own; without a name, none."""


@dataclass(frozen=True)
class Evaluate:
    """Play greedy episodes with every seed of runs; runs of one config that have other seeds are
    one, and all are left as they are."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN ...")]
    """Folders of the runs."""
    episodes: int = 100
    """Episodes per seed, each in an environment of its own."""
    seed: int = 0
    """Number that the keys of the episodes come from."""
    environment: str | None = None
    """Another environment with the same spaces to play in, without training there; by default the
    run's own."""
    environment_args: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of that environment, as name=value, in place of the run's."""


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
    """Draw the learning curves of runs: interquartile mean and 95 % bootstrap interval over seeds;
    runs of one config that have other seeds are one curve."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN ...")]
    """Folders of the runs."""
    out: str = "curves.png"
    """PNG to write."""
    what: str = "evaluation_return"
    """Name of the metric to draw, as in metrics.npz."""
    separate: bool = False
    """Draw a curve for every run, also for those of one config."""


@dataclass(frozen=True)
class Report:
    """Tell of runs on one page of HTML that needs no network: settings, evaluations and curves with
    intervals, memories and an episode; runs of one config that have other seeds are one."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN ...")]
    """Folders of the runs."""
    out: str = "report.html"
    """HTML to write."""
    separate: bool = False
    """Tell of every run by itself, also of those of one config."""


@dataclass(frozen=True)
class List:
    """Name environments, memories, replays, agents, presets and trackers."""

    imports: Annotated[
        tuple[str, ...], tyro.conf.arg(name="import", metavar="MODULE"), tyro.conf.UseAppendAction
    ] = ()
    """Modules of your own to import first, by name or as the path of a .py file."""


def train(arguments: list[str]) -> int:
    """Run `memrl train`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(TRAIN_HELP.format(presets=", ".join(presets)), end="")
        return 0
    if any(word.partition("=")[0] == "--resume" for word in arguments):
        for word in arguments:
            name = word.partition("=")[0].replace("-", "_")
            if name.startswith("__") and name not in ("__resume", "__help"):
                folder.check_changeable(name.removeprefix("__"))
        asked = dict(vars(parse(Resume, arguments, "memrl train")))
        path = asked.pop("resume")
        changes = {name: x for name, x in asked.items() if x is not None}
        return follow(lambda say, report: experiment.resume(path, say, report, changes))
    for module in modules(arguments):  # they may define the preset
        imports.load("imports", module)
    name = checks.known("preset", arguments[0], presets)
    default = Train(Trained(**fields_of(presets[name])), Around())
    given = parse(Train, arguments[1:], f"memrl train {name}", default)
    config = Config(**fields_of(given.config))
    environment = config.environment.replace(":", "-").replace("/", "-")
    run = replace(Run(**vars(given.run)), out=given.run.out or f"runs/{name}-{environment}")
    first = _first(given)
    return follow(lambda say, report: experiment.start(config, run, say, report, first))


def _first(given: Train) -> Taken | None:
    """Return the parameters to begin with; raises ValueError for one of two options alone."""
    if given.source is None and not given.take:
        return None
    if given.source is None:
        raise ValueError(f"from: {', '.join(given.take)} of which run? name its folder")
    return experiment.take(given.source, given.take, given.run.seeds)


def modules(arguments: list[str]) -> list[str]:
    """Return the modules that follow `--import`."""
    pairs = zip(arguments, [*arguments[1:], None], strict=True)
    after = [follower for word, follower in pairs if word == "--import" and follower]
    return after + [x.partition("=")[2] for x in arguments if x.startswith("--import=")]


def fields_of(config: Config) -> dict[str, Any]:
    """Return the fields of a config, those that nest as they are."""
    return {f.name: getattr(config, f.name) for f in fields(config)}


def follow(train: Callable[[experiment.Say, experiment.Report], experiment.Result]) -> int:
    """Train with a progress bar, print how it ended, and return the exit code."""
    console = Console()
    with progress_bar(console) as report:
        result = train(partial(console.print, markup=False), report)
    if "evaluation_return" in result.history:
        last = {k: result.history[f"evaluation_{k}"][:, -1] for k in ("return", "length")}
        console.print(table({result.folder.name: last}, "last evaluation"))
    if result.finished:
        print(f"finished: {result.folder}")
        return 0
    print(f"interrupted and saved; go on with: memrl train --resume {result.folder}")
    return 130


def evaluate(arguments: list[str]) -> int:
    """Run `memrl evaluate`."""
    given = parse(Evaluate, arguments, "memrl evaluate")
    found = pools(given.runs)
    console = Console()
    where = given.environment, given.environment_args
    for pool in found:
        played = {x: experiment.evaluate(x, given.episodes, given.seed, *where) for x in pool.runs}
        console.print(_evaluated(pool, played, given.episodes, _told(pool, *where)))
        unfinished = sum(int(np.sum(~x.done)) for x in played.values())
        if unfinished:
            console.print(
                f"{unfinished} episodes did not end within the horizon; they count as they are"
            )
    return 0


def _told(pool: Pool, environment: str | None, args: Mapping[str, Any]) -> str:
    """Tell of an environment in which a pool was not trained; '' if none is given."""
    if environment is None and not args:
        return ""
    words = [f"{name}={x}" for name, x in args.items()]
    return " ".join([" in", environment or pool.config.environment, *words])


def _evaluated(
    pool: Pool, played: Mapping[str, Evaluation], episodes: int, where: str = ""
) -> Table:
    """Tabulate returns and lengths of all seeds of a pool, and their IQM."""
    names = dict(zip(played, short([*played]), strict=True))
    title = f"{pool.name}: greedy episodes{where}"
    rows = Table("seed", "return", "length", title=escape(title))
    for path, x in played.items():
        for seed, values in enumerate(zip(x.total, x.length, strict=True)):
            label = f"{names[path]}, {seed}" if len(played) > 1 else str(seed)
            rows.add_row(escape(label), *(cell(value, np.mean) for value in values))
    both = zip(*((x.total, x.length) for x in played.values()), strict=True)
    means = [np.concatenate(x).mean(axis=1) for x in both]
    rows.add_row(f"IQM of {told([pool])}", *map(cell, means), style="bold")
    few = ", too narrow for so few" if episodes < 10 else ""
    over = f"mean and 95 % bootstrap interval over {episodes} episodes{few}"
    rows.caption = f"a seed: {over if episodes > 1 else '1 episode, no interval'}\n"
    rows.caption += f"IQM: {statistics.caption([pool.seeds])}"
    return rows


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
    found = pools(given.runs, given.separate)
    drawn = {}
    for pool in found:
        runs = f", {len(pool.runs)} runs" if len(pool.runs) > 1 else ""
        drawn[f"{pool.name}{runs}"] = series(pool, given.what)
    shown = history.shown(given.what)
    names = dict.fromkeys(pool.config.environment for pool in found)
    environments = ", ".join(names) if len(names) <= 3 else f"{len(names)} environments"
    plot.curves(drawn, given.out, ylabel=shown, title=f"{environments}: {shown}, {told(found)}")
    print(given.out)
    return 0


def report(arguments: list[str]) -> int:
    """Run `memrl report`."""
    from memrl_jax.report import report

    given = parse(Report, arguments, "memrl report")
    check_out(given.out, ".html")
    text = report(given.runs, given.separate, partial(print, flush=True))
    folder.write(Path(given.out), text)
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
        ("trackers", TRACKERS),
    ):
        print(f"{title}:")
        print(textwrap.indent(textwrap.fill(", ".join(names), 76, break_on_hyphens=False), "  "))
    return 0


def check_out(path: str, suffix: str) -> None:
    """Raise ValueError for a file that cannot be written, before the work on its contents.

    What processes that were killed while they wrote it left behind is removed.
    """
    out = Path(path)
    if out.suffix != suffix:
        raise ValueError(f"out: {path!r} does not end in {suffix}")
    try:
        if not out.parent.is_dir():
            raise ValueError(f"out: there is no folder {str(out.parent)!r}")
        if out.is_dir():
            raise ValueError(f"out: {path!r} is a folder")
        tempfile.TemporaryFile(dir=out.parent, prefix=f".{out.name}.").close()
        for left in out.parent.iterdir():
            if files.is_temporary(left, of=out.name):
                left.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(f"out: {path!r} cannot be written ({error.strerror})") from None


def table(rows: Mapping[str, Mapping[str, np.ndarray]], title: str) -> Table:
    """Tabulate values over seeds [S] per row and column: interquartile mean and interval."""
    columns = list(next(iter(rows.values())))
    out = Table("run", "seeds", *columns, title=f"{title}: IQM over seeds")
    seeds = {name: len(values[columns[0]]) for name, values in rows.items()}
    for name, values in rows.items():
        out.add_row(escape(name), str(seeds[name]), *(cell(values[column]) for column in columns))
    out.caption = statistics.caption(seeds.values())
    return out


def cell(values: np.ndarray, statistic: statistics.Statistic = iqm) -> str:
    """Format a statistic of values [S], and its interval if there are several."""
    return escape(statistics.text(values, statistic))


@contextlib.contextmanager
def progress_bar(console: Console) -> Iterator[experiment.Report]:
    """Show steps, steps/s, times and returns; without a terminal, a line per tenth of the run."""
    bar = Progress(
        TextColumn("{task.fields[steps]}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("return {task.fields[now]}"),
        console=console,
        disable=not console.is_terminal,
        speed_estimate_period=20,
    )
    task = bar.add_task("", total=None, steps="compiling", rate="", now="-")
    tenth, compiled, began = 0, False, time.monotonic()

    def say(text: str) -> None:
        if not console.is_terminal:
            console.print(text, soft_wrap=True)  # a line each, however wide

    def report(progress: experiment.Progress) -> None:
        nonlocal tenth, compiled
        if not compiled:
            say(f"compiled in {time.monotonic() - began:.0f} s")
            compiled = True
        now = "-" if math.isnan(progress.mean_return) else f"{progress.mean_return:.4g}"
        if progress.evaluation is not None:
            now += f", greedy {progress.evaluation:.4g}"
        rate = f"{progress.rate:,.0f} steps/s"
        total = progress.total_steps
        done = progress.timesteps
        steps = f"{done:>11,} / {total:,} timesteps, {progress.steps:,} steps"
        bar.update(task, completed=done, total=total, steps=steps, rate=rate, now=now)
        if 10 * done // total > tenth:
            tenth = 10 * done // total
            say(f"{steps}  {rate}  return {now}")

    with bar:
        yield report


def parse(kind: Any, arguments: list[str], program: str, default: Any = MISSING) -> Any:
    """Parse arguments into a dataclass; raises ValueError, in one line, for invalid ones."""
    _check_once(arguments)
    for option in SEVERAL:
        arguments = _together(option, arguments)
    for option in ("--take", "--freeze"):
        arguments = _together(option, arguments, ",")
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
    """Raise ValueError for an option that is given more than once."""
    words = [x.partition("=")[0].replace("_", "-") for x in arguments if x.startswith("--")]
    for option in words:
        if words.count(option) > 1 and option not in ("--import", *SEVERAL):
            raise ValueError(f"{option}: given {words.count(option)} times")


def _together(option: str, arguments: list[str], separator: str | None = None) -> list[str]:
    """Gather the words of an option that may be given several times behind one, at the end.

    Words are split at the `separator`.
    """
    words: list[str] = []
    others: list[str] = []
    taking = others
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name == option:
            taking = words
            words += [value] * bool(equals)
            continue
        taking = others if argument.startswith("--") else taking
        taking.append(argument)
    if separator:
        words = [part for word in words for part in word.split(separator)]
    return [*others, option, *words] if words else arguments


def _one_line(text: str) -> str:
    """Extract the message, and the options it suggests, from the text that tyro writes."""
    lines = [line.strip() for line in text.splitlines()]
    blocks = [list(x) for rule, x in groupby(lines, lambda line: not line.strip("-")) if not rule]
    _title, message, *hints = blocks
    likely = ("Perhaps you meant", "Arguments similar to")
    near = [hint[1].split()[0] for hint in hints if hint[0].startswith(likely)]
    return " ".join(message) + (f"; did you mean {' and '.join(near)}?" if near else "")


def _options_rule(info: Any) -> Any:
    """Parse a mapping from `name=value` words, with numbers and booleans as such."""
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
