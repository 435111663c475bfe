"""A small run, and a bit-by-bit comparison of what became of it."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import memrl_jax
from memrl_jax.run import experiment, loop, preparing
from memrl_jax.run.lanes import NOTHING, Varied
from memrl_jax.run.program import Program, Run

SMALL = memrl_jax.presets["dqn"].replace(
    environment="TMaze",
    environments=2,
    rollout_length=4,
    encoder=(8,),
    head=(),
    total_steps=640,
    batch_size=4,
    capacity=160,
    learning_starts=80,
)
LONG = SMALL.replace(total_steps=16_000)  # seconds, for processes that are killed or disturbed
SPACINGS = {"log_every": 80, "evaluate_every": 160, "checkpoint_every": 240}
RUN = Run(seeds=2, evaluate_episodes=4, **SPACINGS)  # type: ignore[arg-type]
Tree = dict[str, bytes | None]  # what a folder holds: None stands for a folder


class Figures(NamedTuple):
    """How trials ended: all of them must end in one of the ways that are `good`."""

    name: str
    good: tuple[str, ...]
    ends: Counter[str]

    @property
    def reached(self) -> bool:
        return set(self.ends) <= set(self.good)


def nothing(_: Any) -> None:
    pass


def train(out: Path, config: memrl_jax.Config, report: loop.Report = nothing) -> bool:
    """Start a run, or go on with it; return whether it has finished."""
    if (out / "config.json").exists():
        return experiment.resume(str(out), nothing, report).finished
    run = Run(**{**vars(RUN), "out": str(out)})
    return experiment.start(config, run, nothing, report).finished


def content(root: Path) -> Tree:
    paths = sorted(root.rglob("*"))
    return {str(x.relative_to(root)): x.read_bytes() if x.is_file() else None for x in paths}


def same(out: Path, like: Path) -> bool:
    """Tell whether all bits agree, but for places and times, which files tell of too."""
    return _lasting(out) == _lasting(like)


def _lasting(out: Path) -> dict[str, Any]:
    return {name: _told(Path(name).name, data) for name, data in content(out).items()}


def _told(name: str, data: bytes | None) -> Any:
    """Return what a file tells of, without its place, times and the processes that wrote it."""
    if data is None or name == "lock":
        return None
    if name in ("config.json", "sweep.json"):
        given = json.loads(data)
        return given | {"run": given["run"] | {"out": ""}}
    if name == "progress.jsonl":
        return [json.loads(line) | {"time": 0} for line in data.splitlines()]
    if name == "optuna.journal":
        return [_timeless(json.loads(line)) for line in data.splitlines()]
    return data


def _timeless(line: dict[str, Any]) -> dict[str, Any]:
    told = ("datetime_start", "datetime_complete", "worker_id")
    return {name: x for name, x in line.items() if name not in told}


def cached(place: Path) -> None:
    """Let the processes that are started share compiled programs."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(place)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


@contextmanager
def compiled_once() -> Iterator[None]:
    """Share compiled functions between the runs of this process."""
    original = preparing.make_program

    @cache
    def made(config: memrl_jax.Config, run: Run) -> Program:
        return original(config, run)

    def make_program(
        config: memrl_jax.Config, run: Run, varied: Varied = NOTHING, taken: Any = None
    ) -> Program:
        return made(config, Run(**{**vars(run), "out": ""}))._replace(run=run)

    preparing.make_program = make_program
    try:
        yield
    finally:
        preparing.make_program = original
