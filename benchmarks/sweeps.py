"""A sweep beside the runs that it stands for: the same bits, and how much less time.

    python -m benchmarks.sweeps [--quick]

Eight learning rates of every preset, as one sweep and as eight runs, one after another, in a
process each with fresh compiles. Figures go to benchmarks/results/.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import command, report
from memrl_jax.run import history

RATES = [round(1e-4 * 10 ** (i / 4), 8) for i in range(8)]
PRESETS = {"dqn": 50_000, "drqn": 20_000, "recurrent-ppo": 102_400, "pqn": 1_024_000}  # timesteps


def trained(name: str, preset: str, steps: int, words: list[str], out: Path) -> tuple[float, float]:
    """Train by a command in a process of its own; return its CPU seconds and those of compiling."""
    given = [name, preset, *words, "--total-steps", str(steps), "--seeds", "2", "--no-cache"]
    given += ["--out", str(out)]
    code = f"""
import json, resource, sys, time
import jax
from memrl_jax import cli
spent = [0.0]
def note(name, seconds, **_):
    spent[0] += seconds * ("compile" in name or "trace" in name or "to_mlir" in name)
jax.monitoring.register_event_duration_secs_listener(note)
code = cli.main({given!r})
usage = resource.getrusage(resource.RUSAGE_SELF)
print("MEASURED", json.dumps([usage.ru_utime + usage.ru_stime, spent[0], code]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    cpu, compiling, status = json.loads(done.stdout.rpartition("MEASURED")[2])
    if status:
        raise RuntimeError(done.stderr)
    return cpu, compiling


def same(ours: Path, theirs: Path) -> bool:
    """Tell whether two runs have the same metrics, bit for bit."""
    x, y = (history.read(place / "metrics.npz") for place in (ours, theirs))
    return x.keys() == y.keys() and all(
        np.array_equal(x[name], y[name], equal_nan=True) for name in x
    )


def compare(preset: str, steps: int, rates: list[float], place: Path) -> dict[str, Any]:
    """Train a preset at all rates, in one sweep and run by run."""
    steps = steps if len(rates) > 2 else steps // 2
    listed = f"learning_rate={','.join(map(str, rates))}"
    began = time.perf_counter()
    swept = trained("sweep", preset, steps, ["--vary", listed], place / "sweep")
    wall = time.perf_counter() - began
    alone = [
        trained("train", preset, steps, ["--learning-rate", str(rate)], place / str(i))
        for i, rate in enumerate(rates)
    ]
    equal = [same(place / f"sweep/points/{i:03d}", place / str(i)) for i in range(len(rates))]
    singles = sum(cpu - compiling for cpu, compiling in alone)
    return {
        "cpu_seconds": swept[0],
        "compile_seconds": swept[1],
        "single_cpu_seconds": [cpu for cpu, _ in alone],
        "single_compile_seconds": [compiling for _, compiling in alone],
        "ratio": swept[0] / singles,
        "wall_seconds": wall,
        "same_bits": equal,
    }


def main() -> None:
    quick = command.quick(__doc__.partition("\n")[0])
    rates, presets = (RATES[::4], ["dqn"]) if quick else (RATES, [*PRESETS])
    table = Table("preset", "sweep, CPU s", "8 runs less compiling, CPU s", "ratio", "same bits")
    found = {}
    path = command.RESULTS / f"sweeps{'-quick' * quick}.json"
    for preset in presets:
        with tempfile.TemporaryDirectory() as place:
            found[preset] = x = compare(preset, PRESETS[preset], rates, Path(place))
        singles = x["cpu_seconds"] / x["ratio"]
        bits = f"{sum(x['same_bits'])} of {len(rates)}"
        table.add_row(
            preset, f"{x['cpu_seconds']:.0f}", f"{singles:.0f}", f"{x['ratio']:.2f}", bits
        )
        report.save(path, {"machine": report.machine(()), "presets": found})
    Console().print(table)


if __name__ == "__main__":
    main()
