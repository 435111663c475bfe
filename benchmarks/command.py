"""What the benchmarks' commands share: run settings in turn, print tables, write a JSON file."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks import report
from benchmarks.targets import Target
from benchmarks.timing import Timing
from benchmarks.trials import Figures

RESULTS = Path(__file__).parent / "results"
Say = Callable[[str], None]


class Setting(NamedTuple):
    """What is timed together, how it is tabulated, and what it should reach."""

    name: str
    measure: Callable[[Say], Sequence[Timing]]
    tables: Callable[[Sequence[Timing]], Sequence[Table]]
    targets: Sequence[Target] = ()


def quick(description: str) -> bool:
    """Parse the command line; return whether only a few short cases are wanted."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a few short cases, in a minute")
    return bool(parser.parse_args().quick)


def run(
    name: str,
    machine: Mapping[str, Any],
    settings: Sequence[Setting],
    more: Callable[[], tuple[Table, dict[str, Any]]] | None = None,
) -> None:
    """Measure and print one setting after another, and write all so far to `name`.json.

    `more` gives a table of something that is not timed, and its figures.
    """
    console = Console(width=None if sys.stdout.isatty() else 140)
    path = RESULTS / f"{name}.json"
    results: dict[str, Any] = {"machine": machine, "settings": {}}
    console.print(", ".join(f"{k} {v}" for k, v in machine.items()), markup=False)
    for setting in settings:
        with console.status(setting.name) as status:
            timings = setting.measure(status.update)
        parts = setting.tables(timings)
        console.print(report.tables(setting.name, timings, parts, setting.targets))
        results["settings"][setting.name] = report.figures(timings, setting.targets)
        report.save(path, results)
    if more:
        table, figures = more()
        console.print("", table)
        report.save(path, results | figures)
    console.print(f"figures: {path}")


def keep(found: Sequence[Figures], name: str) -> Path:
    """Save how trials ended, and return the path."""
    ended = {x.name: {"ends": x.ends, "reached": x.reached} for x in found}
    path = RESULTS / f"{name}.json"
    report.save(path, {"machine": report.machine(()), "trials": ended})
    return path


def publish(found: Sequence[Figures], name: str, console: Console) -> int:
    """Print how trials ended, save it as `name`.json, and return the exit code."""
    table = Table("trials", "ended", "to reach: all", "")
    for x in found:
        ends = "\n".join(f"{count} {end}" for end, count in x.ends.items())
        table.add_row(x.name, ends, "\n".join(x.good), "reached" if x.reached else "not reached")
    console.print(table)
    console.print(f"figures: {keep(found, name)}")
    return 0 if all(x.reached for x in found) else 1
