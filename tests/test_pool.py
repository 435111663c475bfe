"""Which runs belong together, and what they are called."""

import json
from pathlib import Path

import pytest

from memrl_jax.config import Config, to_json
from memrl_jax.preset_configs import presets
from memrl_jax.run.pool import pools, short, told
from memrl_jax.run.program import Run

GRU = presets["drqn"]
LSTM = GRU.replace(memory="lstm")


def begun(root: Path, runs: dict[str, tuple[Config, int]]) -> list[str]:
    """Make the folders of runs: name -> config, seed."""
    for name, (config, seed) in runs.items():
        (root / name).mkdir(parents=True)
        about = {"config": json.loads(to_json(config)), "run": vars(Run(seeds=2, seed=seed))}
        (root / name / "config.json").write_text(json.dumps(about))
    return [str(root / name) for name in runs]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["runs/a"], ["a"]),
        (["runs/a", "runs/b"], ["a", "b"]),
        (["runs/a/tiny", "runs/b/tiny"], ["a", "b"]),
        (["runs/a/x", "runs/a/y", "runs/b/x"], ["a/x", "a/y", "b/x"]),
        (["runs", "runs/a"], ["runs", "runs/a"]),
        (["./runs/a", "runs/../b"], ["runs/a", "b"]),
    ],
)
def test_short_names_tell_paths_apart(paths: list[str], expected: list[str]) -> None:
    assert [name.removeprefix(f"{Path.cwd().name}/") for name in short(paths)] == expected


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ({"x-0": (GRU, 0), "x-1": (GRU, 1)}, {"x": 4}),
        ({"seed0/x": (GRU, 0), "seed1/x": (GRU, 1)}, {"CartPole-v1, dqn with gru": 4}),
        ({"a": (GRU, 0), "b": (LSTM, 0)}, {"a": 2, "b": 2}),
        (
            {"0/g": (GRU, 0), "0/l": (LSTM, 0), "1/g": (GRU, 1), "1/l": (LSTM, 1)},
            {"g": 4, "l": 4},
        ),
        ({"a": (GRU, 0), "b": (GRU, 1), "c": (LSTM, 0)}, {"CartPole-v1, dqn with gru": 4, "c": 2}),
        (
            {"a": (GRU, 0), "b": (GRU, 1), "c": (LSTM, 0), "d": (LSTM, 1)},
            {"memory=gru": 4, "memory=lstm": 4},
        ),
        (
            {"x-0": (GRU, 0), "x-1": (GRU, 1), "x": (LSTM.replace(frames=2), 0)},
            {"x (frames=1, memory=gru)": 4, "x (frames=2, memory=lstm)": 2},
        ),
    ],
)
def test_runs_of_one_config_are_a_pool(
    tmp_path: Path, runs: dict[str, tuple[Config, int]], expected: dict[str, int]
) -> None:
    found = pools(begun(tmp_path, runs))
    assert {pool.name: pool.seeds for pool in found} == expected
    assert [pool.config for pool in found] == [*{config: 0 for config, _ in runs.values()}]


def test_what_is_told_of_pools(tmp_path: Path) -> None:
    paths = begun(tmp_path, {"x-0": (GRU, 0), "x-1": (GRU, 1), "y": (LSTM, 0)})
    assert told(pools(paths)) == "2 to 4 seeds of 3 runs"
    assert told(pools(paths[:2])) == "4 seeds of 2 runs"
    assert told(pools(paths, separate=True)) == "2 seeds"
