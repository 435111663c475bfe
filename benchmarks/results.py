"""Results of learning: `python -m benchmarks.results NAME [--quick] [--out FOLDER]`.

Each result trains from scratch, evaluates on fresh episodes or questions, says of every claim
whether it was reached, and writes curves, figures, configs and seeds to a folder.
"""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro
from rich.console import Console

from benchmarks import (
    agents,
    applications,
    babi,
    bandits,
    bsuite,
    episodic,
    mazes,
    pendulum,
    policies,
    popgym,
    probes,
    races,
    runs,
    searching,
    tasks,
    traces,
    transfer,
)
from benchmarks.findings import Findings, Study
from memrl_jax.checks import known
from memrl_jax.cli import leave, use_every_core
from memrl_jax.run.files import write
from memrl_jax.run.software import versions

RESULTS: dict[str, Study] = {
    **{name: partial(runs.study, make) for name, make in agents.RESULTS.items()},
    **{name: partial(runs.study, make) for name, make in policies.RESULTS.items()},
    **{name: partial(runs.study, make) for name, make in applications.RESULTS.items()},
    **{name: partial(runs.study, make) for name, make in pendulum.RESULTS.items()},
    **{name: partial(runs.study, make) for name, make in popgym.RESULTS.items()},
    **{name: partial(runs.study, make) for name, make in bandits.RESULTS.items()},
    **{name: partial(bsuite.study, x) for name, x in bsuite.RESULTS.items()},
    **{name: partial(probes.study, make) for name, make in tasks.RESULTS.items()},
    "babi": babi.study,
    **{name: partial(races.study, make) for name, make in episodic.RESULTS.items()},
    **{name: partial(races.study, make) for name, make in traces.RESULTS.items()},
    **{name: partial(mazes.study, plan) for name, plan in mazes.RESULTS.items()},
    "transfer": transfer.study,
    "searching": searching.study,
}


@dataclass(frozen=True)
class Options:
    """Train, evaluate and judge one of the results of this project."""

    name: tyro.conf.Positional[str]
    """Which; a name that is unknown is answered by those that are known."""
    out: str = ""
    """Folder to write to; by default benchmarks/results/NAME."""
    quick: bool = False
    """A small part of it, to see that it runs; claims are not judged."""


def main(arguments: list[str] | None = None) -> int:
    use_every_core()
    given = tyro.cli(Options, args=arguments, prog="python -m benchmarks.results")
    try:
        run(given, Console())
    except ValueError as error:
        print(f"benchmarks.results: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks.results: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


def run(given: Options, console: Console) -> None:
    """Run a result, print its claims and write its report."""
    study = RESULTS[known("name", given.name, RESULTS)]
    place = Path(given.out or f"benchmarks/results/{given.name}{'-quick' * given.quick}")
    place.mkdir(parents=True, exist_ok=True)
    found = study(console, place, given.quick)
    console.print(found.table)
    for claim in found.claims:
        verdict = "reached" if claim.reached else "NOT REACHED"
        console.print(f"{verdict:>11}  {claim.text}: {claim.figure}")
    write(place / "result.json", report(found))
    shutil.rmtree(place / "runs")  # what an interrupted study would be resumed from
    console.print(f"{found.minutes:.1f} minutes; curves: {place / 'curves.png'}")


def report(found: Findings) -> str:
    """Return figures, claims, configs and seeds as JSON text."""
    claims = [claim._asdict() | {"reached": bool(claim.reached)} for claim in found.claims]
    return json.dumps(
        {
            "title": found.title,
            "claims": claims,
            **found.figures,
            "minutes": round(found.minutes, 2),
            "cores": len(os.sched_getaffinity(0)),
            "versions": versions(),
            "configs": found.configs,
        },
        indent=2,
    )


if __name__ == "__main__":
    leave(main())
