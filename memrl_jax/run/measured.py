"""The files of a run's metrics: all of them, a table, a line of means for every point."""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from memrl_jax.run import files, history, table
from memrl_jax.run.history import History


def log(folder: Path, timestep: int, past: History) -> None:
    """Rewrite `metrics.npz`, and append the latest point to `metrics.csv` and `progress.jsonl`.

    The first holds all metrics, the second is a table of them, the third has means over seeds.
    """
    _write(folder, past)
    table.extend(folder / "metrics.csv", past)
    files.append(folder / "progress.jsonl", _line(timestep, past))


def record(folder: Path, past: History) -> None:
    """Write all metrics of a run that is trained already, as `log` would have, point by point."""
    _write(folder, past)
    table.write(folder / "metrics.csv", past)
    times = past.get("timestep", np.zeros(0, int)).tolist()
    lines = [_line(t, history.until(past, t)) for t in times]
    files.write(folder / "progress.jsonl", "".join(f"{line}\n" for line in lines))


def _write(folder: Path, past: History) -> None:
    with files.replacing(folder / "metrics.npz") as file:
        # In C order, so that the same numbers are the same bytes.
        np.savez(file, **{k: np.ascontiguousarray(x) for k, x in past.items()})  # type: ignore


def _line(timestep: int, past: History) -> str:
    line: dict[str, Any] = {"timestep": timestep, "step": float(past["step"][-1])}
    line["time"] = round(time.time(), 3)
    for name, value in history.at(past, timestep).items():
        mean = float(value.mean())
        line |= {name: mean} if math.isfinite(mean) else {}  # e.g. before an episode has ended
    return json.dumps(line)


def cut_log(folder: Path, past: History, timestep: int) -> None:
    """Remove from `progress.jsonl` what was logged after the last checkpoint, at `timestep`.

    `metrics.csv` is written anew from `past`. Raises ValueError if the lines before that are not
    those of its points.
    """
    path = folder / "progress.jsonl"
    try:
        lines = files.read(path).splitlines(keepends=True) if path.exists() else []
        steps = [files.parse(line)["timestep"] for line in lines if line.endswith(b"\n")]
        points = list(past.get("timestep", []))
        same = steps[: len(points)] == points and all(x > timestep for x in steps[len(points) :])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise files.unreadable(path, error) from None
    if not same:
        raise ValueError(f"run: {path} has other timesteps than metrics.npz up to {timestep}")
    if len(points) < len(lines):
        files.write(path, b"".join(lines[: len(points)]))
    table.write(folder / "metrics.csv", past)
