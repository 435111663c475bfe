"""The commands `memrl watch`, `plot` and `report`: films, pictures and pages of runs."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from memrl_jax.commands.arguments import check_out, parse
from memrl_jax.run import files, history, saved
from memrl_jax.run.pool import pools, series, told


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


def watch(arguments: list[str]) -> int:
    """Run `memrl watch`."""
    from memrl_jax import plot

    given = parse(Watch, arguments, "memrl watch")
    check_out(given.out, ".gif")
    episodes = saved.play(given.run, given.seed, given.episodes)
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
    files.write(Path(given.out), text)
    print(given.out)
    return 0
