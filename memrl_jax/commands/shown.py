"""What the commands of `memrl` show on the terminal: tables, and progress."""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from memrl_jax import statistics
from memrl_jax.run import loop
from memrl_jax.statistics import iqm


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
def progress_bar(console: Console) -> Iterator[loop.Report]:
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

    def report(progress: loop.Progress) -> None:
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
