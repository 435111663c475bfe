"""`metrics.csv`: the metrics of a run as a table, a row for every point and seed.

Its columns are `timestep`, `step`, `seed` and one for every metric. A cell is empty where a metric
has no value: an evaluation's at a point without one, a return before an episode has ended. Numbers
are written such that reading them gives the bits of `metrics.npz`.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from memrl_jax.run import files, history
from memrl_jax.run.history import History


def write(path: Path, past: History) -> None:
    """Write the table of all points, atomically; without a point there is no file."""
    if not past:
        path.unlink(missing_ok=True)
        return
    with files.replacing(path) as file:
        file.write((_header(past) + _points(past, past["timestep"])).encode())


def extend(path: Path, past: History) -> None:
    """Add the last point to the table, or write it anew if that point brings new columns."""
    if _first_line(path) == _header(past):
        files.append(path, _points(past, past["timestep"][-1:]).removesuffix("\n"))
    else:
        write(path, past)


def _first_line(path: Path) -> str:
    try:
        with files.opened(path) as file:
            return file.readline().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _header(past: History) -> str:
    return _lines([["timestep", "step", "seed", *_metrics(past)]])


def _points(past: History, timesteps: Iterable[int]) -> str:
    """Return the rows of all seeds at some timesteps."""
    names, steps = _metrics(past), dict(zip(past["timestep"], past["step"].tolist(), strict=True))
    rows: list[list[Any]] = []
    for timestep in timesteps:
        values = history.at(past, timestep)
        seeds = len(next(iter(values.values())))
        columns = [_cells(values[x]) if x in values else [None] * seeds for x in names]
        for seed, cells in enumerate(zip(*columns, strict=True)):
            rows.append([timestep, steps[timestep], seed, *cells])
    return _lines(rows)


def _metrics(past: History) -> list[str]:
    return [name for name, x in past.items() if x.ndim == 2]


def _cells(values: np.ndarray) -> list[Any]:
    return [None if x != x else x for x in values.tolist()]  # NaN


def _lines(rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
