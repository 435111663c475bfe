"""The table of a run's metrics has the numbers of its arrays, in every way that it is written."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from memrl_jax.run import history, table
from memrl_jax.run.history import History

PAST: History = {
    "loss": np.array([[0.1, 1 / 3, 2.0], [1e-30, 4.0, 5.0]]),
    "steps": np.array([[8, 7, 8], [7, 8, 8]]),
    "return": np.array([[np.nan, 1.0, 1.5], [np.nan, np.nan, 2.0]]),
    "timestep": np.array([8, 16, 24]),
    "step": np.array([7.5, 15.0, 23.0]),
    "evaluation_return": np.array([[np.float32(0.1)], [-1.0]], np.float32),
    "evaluation_timestep": np.array([16]),
    "evaluation_step": np.array([15.0]),
}
TEXT = """\
timestep,step,seed,loss,steps,return,evaluation_return
8,7.5,0,0.1,8,,
8,7.5,1,1e-30,7,,
16,15.0,0,0.3333333333333333,7,1.0,0.10000000149011612
16,15.0,1,4.0,8,,-1.0
24,23.0,0,2.0,8,1.5,
24,23.0,1,5.0,8,2.0,
"""


def test_a_row_for_every_point_and_seed(tmp_path: Path) -> None:
    table.write(tmp_path / "metrics.csv", PAST)
    assert (tmp_path / "metrics.csv").read_text() == TEXT


def test_point_by_point_it_becomes_the_same_table(tmp_path: Path) -> None:
    """Also where the first evaluation brings new columns."""
    path = tmp_path / "metrics.csv"
    for timestep in PAST["timestep"]:
        past = history.until(PAST, timestep)
        table.extend(path, past)
        table.write(tmp_path / "whole.csv", past)
        assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert path.read_text() == TEXT


def test_without_a_point_there_is_no_table(tmp_path: Path) -> None:
    table.write(tmp_path / "metrics.csv", PAST)
    table.write(tmp_path / "metrics.csv", {})
    assert not list(tmp_path.iterdir())


def test_numbers_are_read_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    past = PAST | {"loss": rng.normal(size=(2, 3)) * 10.0 ** rng.integers(-300, 300, (2, 3))}
    table.write(tmp_path / "metrics.csv", past)
    assert_same_numbers(tmp_path / "metrics.csv", past)


def assert_same_numbers(path: Path, past: History) -> None:
    """Assert that a table has the very numbers of a history, and no others."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    seeds, points = past["steps"].shape
    assert len(rows) == seeds * points
    for row in rows:
        timestep, seed = int(row.pop("timestep")), int(row.pop("seed"))
        (point,) = np.flatnonzero(past["timestep"] == timestep)
        values = {"step": past["step"][point]}
        values |= {name: x[seed] for name, x in history.at(past, timestep).items()}
        for name, text in row.items():
            value = float(values[name]) if name in values else math.nan
            np.testing.assert_array_equal(float(text) if text else math.nan, value)
        assert values.keys() <= row.keys()


@pytest.mark.parametrize(
    ("timestep", "names"),
    [(8, ["loss", "steps", "return"]), (16, ["loss", "steps", "return", "evaluation_return"])],
)
def test_what_there_is_at_a_point(timestep: int, names: list[str]) -> None:
    assert list(history.at(PAST, timestep)) == names
