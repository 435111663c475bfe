"""Runs on disk: their files, their end, and that no interruption shows in their numbers."""

import dataclasses
import filecmp
import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memrl_jax
from memrl_jax import parallel, settings, tree
from memrl_jax.build import make
from memrl_jax.config import to_json
from memrl_jax.environments import ENVIRONMENTS, batch
from memrl_jax.rollout import Evaluation, evaluate
from memrl_jax.run import (
    checkpoint,
    experiment,
    history,
    lock,
    loop,
    measured,
    preparing,
    saved,
)
from memrl_jax.run.history import History
from memrl_jax.run.lanes import NOTHING, Lanes, Varied
from memrl_jax.run.loop import Progress, Result
from memrl_jax.run.program import Carry, Program, Run, check
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Environment, Spec, TimeStep
from tests.small import SMALL as CONFIG
from tests.test_table import assert_same_numbers

PER_STEP = CONFIG.environments * CONFIG.rollout_length
WARMUP = settings.named(CONFIG)["learning_starts"]
RUN = Run(seeds=3, log_every=80, evaluate_every=160, evaluate_episodes=4, checkpoint_every=240)


class Told(NamedTuple):
    """What a run said and reported."""

    lines: list[str]
    progress: list[Progress]


class Killed(Exception):
    """Stands for the end of the process: nothing is saved after it."""


@pytest.fixture(scope="module", autouse=True)
def compile_once() -> Iterator[None]:
    """Share compiled functions between runs that would compile the same ones."""
    original = preparing.make_program

    @cache
    def made(config: memrl_jax.Config, seeds: int, episodes: int) -> Program:
        return original(config, Run(seeds=seeds, evaluate_episodes=episodes))

    def make_program(
        config: memrl_jax.Config, run: Run, varied: Varied = NOTHING, taken: Any = None
    ) -> Program:
        check(run)
        make(config)
        same = config.replace(total_steps=CONFIG.total_steps)  # its length is not compiled
        program = made(same, run.seeds, run.evaluate_episodes)
        padded = run.seeds + -run.seeds % parallel.mesh(run.seeds).size
        wide = made(same, padded, run.evaluate_episodes)
        return program._replace(
            config=config,
            run=run,
            total_steps=config.total_steps,
            init=wide.init,
            chunk=wide.chunk,
            evaluate=wide.evaluate,
            parts=wide.parts,
            lanes=Lanes(run.seed, run.seeds, varied),
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "make_program", make_program)
        yield


@pytest.fixture
def one_step_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give back control after every training step."""
    keep_pace(monkeypatch, 1)


def keep_pace(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    monkeypatch.setattr(loop.Pace, "after", lambda pace, *_: pace._replace(steps=steps))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Told]:
    """A run that nothing interrupted."""
    return start(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture
def copy(whole: tuple[Result, Told], tmp_path: Path) -> Path:
    """A copy of its folder, to tamper with."""
    return Path(shutil.copytree(whole[0].folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def trained() -> list[tuple[Any, dict[str, jax.Array]]]:
    """What `make_train` gives for the keys of the same seeds."""
    train = jax.jit(memrl_jax.make_train(CONFIG))
    return [train(key) for key in parallel.seed_keys(RUN.seed, 3)]


def start(
    out: Path,
    config: memrl_jax.Config = CONFIG,
    then: Callable[[Progress], None] = lambda progress: None,
    **options: Any,
) -> tuple[Result, Told]:
    """Train a new run; `then` may interrupt it after any chunk."""
    told = Told([], [])

    def report(progress: Progress) -> None:
        told.progress.append(progress)
        then(progress)

    run = dataclasses.replace(RUN, out=str(out), **options)
    return experiment.start(config, run, told.lines.append, report), told


def resume(out: Path, **changes: Any) -> tuple[Result, Told]:
    told = Told([], [])
    return experiment.resume(str(out), told.lines.append, told.progress.append, changes), told


def interrupt(at: int, signals: tuple[int, ...] = (signal.SIGINT,)) -> Callable[[Progress], None]:
    def then(progress: Progress) -> None:
        if progress.timesteps == at:
            for number in signals:
                os.kill(os.getpid(), number)

    return then


def kill(at: int) -> Callable[[Progress], None]:
    def then(progress: Progress) -> None:
        if progress.timesteps == at:
            raise Killed

    return then


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in (folder / "checkpoints").glob("*.ckpt"))


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names(folder) if "." in name}


def load(folder: Path, step: int, config: memrl_jax.Config = CONFIG) -> Carry:
    _, _, run = saved.read(str(folder))
    like = preparing.make_program(config, run).shapes
    return checkpoint.load(folder / f"checkpoints/{step:012d}.ckpt", like)


def log(folder: Path) -> list[dict[str, Any]]:
    """Read `progress.jsonl`; NaN and Infinity are not JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in progress.jsonl")

    lines = (folder / "progress.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def assert_same_history(a: History, b: History) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def assert_same_run(folder: Path, like: Path) -> None:
    """Assert that no bit differs: the checkpoints, the metrics, the log but for its times."""
    assert checkpoints(folder)[-1] == checkpoints(like)[-1] == CONFIG.total_steps
    last = f"checkpoints/{CONFIG.total_steps:012d}.ckpt"
    assert filecmp.cmp(folder / last, like / last, shallow=False)
    assert_same_history(*(history.read(x / "metrics.npz") for x in (folder, like)))
    assert filecmp.cmp(folder / "metrics.csv", like / "metrics.csv", shallow=False)
    ours, theirs = ([line | {"time": 0} for line in log(x)] for x in (folder, like))
    assert ours == theirs


def test_files_of_a_run(whole: tuple[Result, Told]) -> None:
    result, _ = whole
    assert result.finished
    assert names(result.folder) == [
        "checkpoints",
        "checkpoints/000000000480.ckpt",
        "checkpoints/000000000640.ckpt",
        "config.json",
        "lock",
        "metrics.csv",
        "metrics.npz",
        "progress.jsonl",
        "versions.json",
    ]
    out = str(result.folder)
    assert saved.read(out) == (
        result.folder,
        CONFIG,
        dataclasses.replace(RUN, out=out),
    )
    versions = json.loads((result.folder / "versions.json").read_text())
    assert versions["jax"] == jax.__version__
    assert versions["memrl_jax"] == memrl_jax.__version__
    assert versions["devices"] == f"{jax.device_count()} x cpu"


def test_metrics_are_arrays_of_seeds_and_steps(whole: tuple[Result, Told]) -> None:
    past = history.read(whole[0].folder / "metrics.npz")
    assert_same_history(past, whole[0].history)
    assert past["timestep"].tolist() == [160, 240, 320, 400, 480, 560, 640]
    assert past["evaluation_timestep"].tolist() == [160, 320, 480, 640]
    for name in ("return", "length", "reward", "loss", "q", "episodes", "steps"):
        assert past[name].shape == (3, 7)
    for name in ("return", "length", "unfinished"):
        assert past[f"evaluation_{name}"].shape == (3, 4)
    assert np.all(np.isfinite(past["loss"])) and np.all(past["loss"] > 0)
    assert len(set(past["loss"][:, -1])) == 3  # seeds differ
    assert np.all((past["evaluation_length"] >= 9) & (past["evaluation_length"] <= 18))


def test_the_table_has_the_numbers_of_the_arrays(whole: tuple[Result, Told]) -> None:
    assert_same_numbers(whole[0].folder / "metrics.csv", whole[0].history)


def test_every_point_is_a_line_of_the_log(whole: tuple[Result, Told]) -> None:
    past, lines = whole[0].history, log(whole[0].folder)
    for name in ("timestep", "step"):
        assert [line[name] for line in lines] == past[name].tolist()
    times = [line["time"] for line in lines]
    assert times == sorted(times)
    np.testing.assert_allclose([line["loss"] for line in lines], past["loss"].mean(axis=0))
    evaluated = [line for line in lines if "evaluation_return" in line]
    for name in ("timestep", "step"):
        assert [line[name] for line in evaluated] == past[f"evaluation_{name}"].tolist()


def test_progress_is_reported(whole: tuple[Result, Told]) -> None:
    _, told = whole
    steps = [progress.timesteps for progress in told.progress]
    assert steps == sorted(set(steps)) and steps[-1] == CONFIG.total_steps
    assert all(progress.total_steps == CONFIG.total_steps for progress in told.progress)
    assert all(progress.rate > 0 for progress in told.progress)
    assert told.progress[0].evaluation is None
    assert told.progress[-1].evaluation is not None
    assert np.isfinite(told.progress[-1].mean_return)


def test_the_estimate_is_what_is_held(whole: tuple[Result, Told]) -> None:
    result, told = whole
    carry = load(result.folder, CONFIG.total_steps)
    agent, everything = (tree.nbytes(x) / 3 for x in (carry.train.agent, carry.train))
    pattern = r"(.+B) of agent and (.+B) of environments per seed, (.+B) for 3 seeds"
    match = re.fullmatch(pattern, told.lines[0])
    assert match is not None
    said = [float(x.split()[0]) * {"B": 1, "kB": 1000}[x.split()[1]] for x in match.groups()]
    assert said == pytest.approx([agent, everything - agent, 3 * everything], rel=5e-3)


@pytest.mark.usefixtures("one_step_chunks")
def test_the_size_of_chunks_does_not_matter(whole: tuple[Result, Told], tmp_path: Path) -> None:
    result, told = start(tmp_path / "run")
    assert len(told.progress) == (CONFIG.total_steps - WARMUP) / PER_STEP
    assert len(whole[1].progress) < len(told.progress) / 2
    assert_same_run(result.folder, whole[0].folder)


@pytest.fixture
def hangup() -> Iterator[None]:
    """Let SIGHUP be heard, which it is not where the tests run under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("one_step_chunks", "hangup")
@pytest.mark.parametrize(
    "at, number",
    [
        *((at, signal.SIGINT) for at in (88, 344, 400, 480)),
        *((344, number) for number in (signal.SIGTERM, signal.SIGHUP)),
    ],
)
def test_interrupted_and_resumed(
    whole: tuple[Result, Told], tmp_path: Path, at: int, number: int
) -> None:
    """At the first step, inside an interval, at a point of the metrics, at a checkpoint."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    result, told = start(tmp_path / "run", then=interrupt(at, (number,)))
    assert not result.finished
    assert told.progress[-1].timesteps == at == checkpoints(result.folder)[-1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    result, told = resume(result.folder)
    assert result.finished
    assert told.lines[0].endswith(f"going on from timestep {at}")
    assert told.progress[0].timesteps == at + PER_STEP
    assert_same_run(result.folder, whole[0].folder)


@pytest.mark.usefixtures("one_step_chunks")
def test_interrupted_twice(whole: tuple[Result, Told], tmp_path: Path) -> None:
    result, _ = start(tmp_path / "run", then=interrupt(200))
    result = experiment.resume(str(result.folder), print, interrupt(208))
    assert not result.finished
    result, _ = resume(result.folder)
    assert_same_run(result.folder, whole[0].folder)


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "run", then=interrupt(88, (signal.SIGINT, signal.SIGINT)))
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("one_step_chunks")
@pytest.mark.parametrize("at", [88, 200, 424, 600])
def test_killed_and_resumed(whole: tuple[Result, Told], tmp_path: Path, at: int) -> None:
    """Before and after the first point, the first checkpoint and the first evaluation."""
    out = tmp_path / "run"
    with pytest.raises(Killed):
        start(out, then=kill(at))
    saved = checkpoints(out)[-1]
    assert saved == max(step for step in (WARMUP, 240, 480) if step < at)
    with open(out / "progress.jsonl", "a") as file:
        file.write('{"timestep": 6')  # killed while writing a line
    result, told = resume(out)
    assert result.finished
    assert told.progress[0].timesteps == saved + PER_STEP
    assert_same_run(out, whole[0].folder)


def test_what_was_loaded_lies_where_what_was_trained_does(copy: Path) -> None:
    """Otherwise going on would compile everything twice."""
    _, config, run = saved.read(str(copy))
    program = preparing.make_program(config, run)
    carry, about = saved.load(program, copy)
    assert about.timestep == CONFIG.total_steps
    loaded = jax.tree.map(lambda x: x.sharding, carry)
    trained = jax.tree.map(lambda x: x.sharding, program.chunk(carry, jnp.int32(1)))
    assert loaded == trained


def test_killed_before_the_first_checkpoint(
    whole: tuple[Result, Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(experiment.snapshot, "save", die)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # nor does it remove anything
        start(tmp_path / "run")
    assert checkpoints(tmp_path / "run") == []
    with pytest.raises(ValueError, match=r"^run: .* has no checkpoint$"):
        saved.evaluate(str(tmp_path / "run"), 4, 0)
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", whole[0].folder)


def test_resuming_a_finished_run_changes_nothing(whole: tuple[Result, Told], copy: Path) -> None:
    before = contents(copy)
    result, told = resume(copy)
    assert result.finished and result.folder == copy
    assert told.progress == []
    assert told.lines[0].endswith("going on from timestep 640")
    assert_same_history(result.history, whole[0].history)
    assert contents(copy) == before


def test_resuming_a_run_that_reached_its_target_changes_nothing(tmp_path: Path) -> None:
    result, told = start(tmp_path / "run", target_return=-100.0)
    assert result.finished
    assert result.history["evaluation_timestep"].tolist() == [160]
    assert told.progress[-1].timesteps == 160 == checkpoints(result.folder)[-1]
    before = contents(result.folder)
    result, told = resume(result.folder)
    assert result.finished and told.progress == []
    assert contents(result.folder) == before


def test_a_run_that_reached_its_target_goes_on_for_another(
    whole: tuple[Result, Told], tmp_path: Path
) -> None:
    first, _ = start(tmp_path / "run", target_return=-100.0)
    assert first.history["evaluation_timestep"].tolist() == [160]
    resume(tmp_path / "run", target_return=float("inf"))
    assert_same_run(tmp_path / "run", whole[0].folder)
    (entry,) = described(tmp_path / "run")["history"]
    assert entry == {"timestep": 160, "changed": {"target_return": [-100.0, float("inf")]}}


def test_a_run_made_longer_is_one_that_was_so_long_from_the_start(
    whole: tuple[Result, Told], tmp_path: Path
) -> None:
    short, _ = start(tmp_path / "run", CONFIG.replace(total_steps=320))
    assert short.finished and checkpoints(short.folder)[-1] == 320
    longer, told = resume(short.folder, total_steps=640)
    assert longer.finished and told.progress[-1].total_steps == 640
    assert_same_run(longer.folder, whole[0].folder)
    assert described(longer.folder)["history"] == [
        {"timestep": 320, "changed": {"total_steps": [320, 640]}}
    ]
    before = contents(longer.folder)
    resume(longer.folder, total_steps=640)
    assert contents(longer.folder) == before


def test_spacings_may_change_and_are_those_of_the_start_where_they_do_not(tmp_path: Path) -> None:
    defaults: dict[str, Any] = {"log_every": None, "evaluate_every": None, "checkpoint_every": None}
    out = tmp_path / "run"
    start(out, CONFIG.replace(total_steps=160), **defaults)
    asked = described(out)["run"]
    assert [asked[name] for name in defaults] == [2, 8, 16]
    again, _ = resume(out, total_steps=240, evaluate_every=40, log_every=np.int64(40))
    assert again.history["evaluation_timestep"].tolist() == [*range(88, 161, 8), 200, 240]
    assert checkpoints(out) == [224, 240]
    assert described(out)["run"] == asked | {"evaluate_every": 40, "log_every": 40}
    assert described(out)["config"]["total_steps"] == 240


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"total_steps": 560}, "total_steps: 560 is below 640, the timesteps that are done"),
        ({"total_steps": 641}, "total_steps: 641 is not a multiple of .* = 8"),
        ({"total_steps": 0}, "total_steps: 0 is below 1"),
        ({"evaluate_every": 0}, "evaluate_every: 0 is below 1"),
        ({"log_every": jnp.ones(2)}, "log_every: .* cannot be written to config.json"),
        ({"learning_rate": 0.1}, "learning_rate: cannot change on resume .*total_steps, .*"),
        ({"seeds": 4}, "seeds: cannot change on resume .*"),
    ],
)
def test_what_may_not_change_is_refused(copy: Path, changes: dict[str, Any], message: str) -> None:
    before = contents(copy)
    with pytest.raises(ValueError, match=f"^{message}$"):
        resume(copy, **changes)
    assert contents(copy) == before


def described(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def edit(folder: Path, *where: str, value: Any) -> None:
    """Set one entry of `config.json`."""
    given = described(folder)
    entry = given
    for name in where[:-1]:
        entry = entry[name]
    entry[where[-1]] = value
    (folder / "config.json").write_text(json.dumps(given))


@pytest.mark.parametrize(
    "where, value, message",
    [
        (
            ("config", "agent", "optimizer", "learning_rate"),
            0.5,
            "learning_rate is 0.001 .*, 0.5 in config",
        ),
        (
            ("config", "agent", "body", "memory_args", "features"),
            16,
            "memory_args is {'features': 8} .*16.* in con",
        ),
        (("config", "environment"), "TMaze-active", "environment is 'TMaze' in the file, "),
        (("run", "seed"), 1, "seed is 0 in the file, 1 in config.json"),
        (("run", "seeds"), 2, "seeds is 3 in the file, 2 in config.json"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(
    copy: Path, where: tuple[str, ...], value: Any, message: str
) -> None:
    edit(copy, *where, value=value)
    path = re.escape(str(copy / "checkpoints/000000000640.ckpt"))
    for read in (
        lambda: resume(copy),
        lambda: saved.trained(str(copy)),
        lambda: saved.evaluate(str(copy), 4, 0),
    ):
        with pytest.raises(ValueError, match=f"^{path}: {message}.*$") as error:
            read()
        assert "which is whole" not in str(error.value)


def test_a_checkpoint_of_another_run_is_refused(copy: Path, tmp_path: Path) -> None:
    other, _ = start(tmp_path / "other", seed=1)
    name = "checkpoints/000000000640.ckpt"
    shutil.copy(other.folder / name, copy / name)
    with pytest.raises(ValueError, match=f"^{copy / name}: seed is 1 in the file, 0 in .*480,.*$"):
        resume(copy)


def test_the_checkpoint_before_a_damaged_one_serves(whole: tuple[Result, Told], copy: Path) -> None:
    path = copy / "checkpoints/000000000640.ckpt"
    path.write_bytes(path.read_bytes()[:-1])
    advice = "remove it to go on from the one before, of timestep 480, which is whole"
    with pytest.raises(ValueError, match=f"^{path}: truncated, .*; {advice}$"):
        resume(copy)
    path.unlink()
    resume(copy)
    assert_same_run(copy, whole[0].folder)
    for name in checkpoints(copy):
        (copy / f"checkpoints/{name:012d}.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match=f"^{path}: not a memrl_jax checkpoint$"):
        resume(copy)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            lambda past: history.until(past, 560),
            "has its last point before timestep 640 at 560, .*640",
        ),
        (lambda past: {}, "has its last point before timestep 640 at None, .* after one at 640"),
        (
            lambda past: past | {"loss": past["loss"] + 1},
            "is not what was measured up to timestep 640",
        ),
    ],
)
def test_metrics_that_are_not_those_of_the_checkpoint_are_refused(
    copy: Path, spoil: Callable[[History], History], message: str
) -> None:
    path = copy / "metrics.npz"
    np.savez(path, **spoil(history.read(path)))  # type: ignore[arg-type]
    before = contents(copy)
    with pytest.raises(ValueError, match=f"^metrics: {path} {message}$"):
        resume(copy)
    assert contents(copy) == before


def test_a_hole_in_the_log_is_refused(copy: Path) -> None:
    path = copy / "progress.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(
        ValueError, match=f"^run: {path} has other timesteps than metrics.npz up to"
    ):
        resume(copy)


def test_metrics_without_a_checkpoint_are_not_begun_anew(copy: Path) -> None:
    shutil.rmtree(copy / "checkpoints")
    before = contents(copy)
    with pytest.raises(ValueError, match=f"^run: {copy} has no checkpoint$"):
        resume(copy)
    assert contents(copy) == before


def test_other_versions_are_said(copy: Path) -> None:
    path = copy / "versions.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"jax": "0.1", "python": "2.7"}))
    _, told = resume(copy)
    assert re.search(r"numbers may differ: jax 0\.1 -> 0.*, python 2\.7 -> 3", told.lines[1])
    saved.evaluate(str(copy), 4, 0)


def test_only_one_process_writes(copy: Path) -> None:
    before = contents(copy)
    with lock.held(copy, print):
        with pytest.raises(
            ValueError, match=f"^run: {copy} is being written by process {os.getpid()} on .+$"
        ):
            resume(copy)
        saved.evaluate(str(copy), 4, 0)
        saved.trained(str(copy))
    assert contents(copy) == before
    (copy / "lock").write_text("1 on a machine that has died")
    assert resume(copy)[0].finished


def test_what_dead_writers_left_is_removed(copy: Path, tmp_path: Path) -> None:
    left = "metrics.npz.0123456789abcdef.tmp", "checkpoints/7.ckpt.0123456789abcdef.tmp"
    kept = "notes.tmp", "x.0123456789abcdef"
    for name in left + kept:
        (copy / name).write_text("x")
    resume(copy)
    assert not set(left) & set(names(copy)) and set(kept) <= set(names(copy))
    stale = ["new.0123456789abcdef.tmp", "new.fedcba9876543210.tmp", "other.0123456789abcdef.tmp"]
    for name in stale:
        (tmp_path / name).mkdir()
    with lock.held(tmp_path / stale[1], print):
        start(tmp_path / "new", CONFIG.replace(total_steps=88))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["copy", "new", *stale[1:]]


def test_numbers_of_numpy_and_jax_are_trained_with_as_they_are_written(
    whole: tuple[Result, Told], tmp_path: Path
) -> None:
    given = settings.named(CONFIG)
    config = CONFIG.replace(
        learning_rate=np.float64(given["learning_rate"]),
        epsilon_start=jnp.float32(given["epsilon_start"]),
        window=np.int64(4),
        memory_args={"features": np.int32(8)},
        previous_action=np.bool_(True),
    )
    result, _ = start(tmp_path / "run", config, seeds=np.int64(3), target_return=np.float32(100))
    assert to_json(saved.read(str(result.folder))[1]) == to_json(CONFIG)
    assert_same_run(result.folder, whole[0].folder)


@pytest.mark.parametrize("value", [np.ones(2, np.float32), jnp.ones((1,)), 1j, np.complex64(1)])
def test_numbers_that_cannot_be_written_leave_nothing(tmp_path: Path, value: Any) -> None:
    config = CONFIG.replace(learning_rate=value)
    with pytest.raises(ValueError, match=r"^learning_rate: .+ is not a number$"):
        start(tmp_path / "run", config)
    config = CONFIG.replace(environment_args={"bonus": value})
    with pytest.raises(ValueError, match=r"^environment_args: bonus: .+ cannot be written to "):
        start(tmp_path / "run", config)
    assert names(tmp_path) == []


@pytest.mark.parametrize("where", ["os.rename", "os.fsync", "memrl_jax.run.software.versions"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_folder_is_made_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(where, fail)
    out = tmp_path / "run"
    refused = KeyboardInterrupt, ValueError
    with pytest.raises(refused, match=f"^(|out: {out} cannot be made .No space left on device.)$"):
        start(out)
    assert names(tmp_path) == []


def test_a_target_out_of_reach_stops_nothing(whole: tuple[Result, Told], tmp_path: Path) -> None:
    result, _ = start(tmp_path / "run", target_return=100.0)
    assert_same_run(result.folder, whole[0].folder)


def test_evaluation_and_checkpoints_leave_training_untouched(
    whole: tuple[Result, Told], tmp_path: Path
) -> None:
    result, _ = start(tmp_path / "run", evaluate_every=56, checkpoint_every=88, log_every=1000)
    assert result.history["evaluation_timestep"].tolist() == [*range(112, 640, 56), 640]
    assert checkpoints(result.folder) == [616, 640]
    ours, theirs = (load(x, CONFIG.total_steps).train for x in (result.folder, whole[0].folder))
    for x, y in zip(numbers(ours), numbers(theirs), strict=True):
        np.testing.assert_array_equal(x, y)


def test_an_evaluation_afterwards_is_fresh_and_can_be_repeated(copy: Path) -> None:
    before = contents(copy)
    seeds = (RUN.seed, RUN.seed, RUN.seed + 1)
    played = [saved.evaluate(str(copy), episodes=4, seed=seed) for seed in seeds]
    assert played[0].total.shape == played[0].length.shape == played[0].done.shape == (3, 4)
    np.testing.assert_array_equal(played[0].total, played[1].total)
    assert not np.array_equal(played[0].total, played[2].total)
    assert contents(copy) == before


def test_no_key_serves_two_purposes(
    whole: tuple[Result, Told], copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those of training, of each of the run's evaluations, of evaluating it and of watching it."""
    made: list[jax.Array] = []

    def seed_keys(*given: int) -> jax.Array:
        made.append(original(*given))
        return made[-1]

    original = parallel.seed_keys
    monkeypatch.setattr(parallel, "seed_keys", seed_keys)
    start(tmp_path / "run")
    saved.evaluate(str(copy), episodes=4, seed=RUN.seed)
    saved.play(str(copy), seed=0, episodes=1)
    keys = [tuple(key) for used in made for key in jax.random.key_data(used).tolist()]
    assert len(made) == 1 + 4 + 1 + 1 and len(set(keys)) == 3 * len(made)


def test_steps_are_the_environments_with_either_way_to_train(
    whole: tuple[Result, Told], trained: list[Any]
) -> None:
    """Timesteps that begin an episode are none; those of the warm-up are counted."""
    past, told = whole[0].history, whole[1]
    state, metrics = jax.tree.map(lambda *x: jnp.stack(x), *trained)
    steps, means = history.binned(metrics, points=7)
    np.testing.assert_array_equal(past["step"], steps)
    np.testing.assert_array_equal(past["steps"], means["steps"])
    np.testing.assert_array_equal(past["episodes"], means["episodes"])
    assert past["evaluation_step"].tolist() == steps[[0, 2, 4, 6]].tolist()
    assert told.progress[-1].steps == steps[-1]
    begun = np.asarray(metrics["episodes"].sum(axis=1) + CONFIG.environments)
    held = np.asarray(state.actor.timestep.last.sum(axis=1))  # whose next has not begun
    first = CONFIG.environments  # `reset` gives it, before the first timestep that is counted
    assert (CONFIG.total_steps - past["steps"].sum(axis=1) == begun - held - first).all()


def test_seeds_over_devices_are_make_train_of_the_same_keys(
    whole: tuple[Result, Told], trained: list[Any]
) -> None:
    past = whole[0].history
    carry = load(whole[0].folder, CONFIG.total_steps)
    assert parallel.mesh(3).size == 2
    for seed, (state, metrics) in enumerate(trained):
        ours = jax.tree.map(lambda x, seed=seed: x[seed], carry.train)
        for x, y in zip(numbers(ours), numbers(state), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
        updates = np.diff(past["timestep"], prepend=WARMUP) / PER_STEP
        loss = (past["loss"][seed] * updates).sum()
        assert loss == pytest.approx(float(metrics["loss_sum"].sum()), rel=1e-4)


def numbers(state: Any) -> list[np.ndarray]:
    def number(x: Any) -> np.ndarray:
        key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if key else x)

    return [number(x) for x in jax.tree.leaves(state)]


def test_more_seeds_leave_the_first_as_they_are(whole: tuple[Result, Told], tmp_path: Path) -> None:
    result, _ = start(tmp_path / "run", seeds=4)
    assert result.history["loss"].shape == (4, 7)
    assert_same_history(
        {k: v[:3] if v.ndim == 2 else v for k, v in result.history.items()}, whole[0].history
    )
    three, four = (load(x.folder, CONFIG.total_steps) for x in (whole[0], result))
    for x, y in zip(numbers(three), numbers(four), strict=True):
        np.testing.assert_array_equal(x, y[:3])


def test_another_seed_number_is_another_run(whole: tuple[Result, Told], tmp_path: Path) -> None:
    result, _ = start(tmp_path / "run", seed=1)
    assert not np.any(result.history["loss"] == whole[0].history["loss"])


def write(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")


def test_what_fails_before_the_first_checkpoint_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("memrl_jax.run.snapshot.save", full)
        with pytest.raises(OSError, match="No space left"):
            start(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    assert start(tmp_path / "run", CONFIG.replace(total_steps=160))[0].finished


def rewind(folder: Path, step: int) -> None:
    """Make `step` the last checkpoint of a run."""
    for path in (folder / "checkpoints").glob("*.ckpt"):
        if int(path.stem) > step:
            path.unlink()


def test_a_diverging_loss_ends_the_run(tmp_path: Path) -> None:
    """The first update with such a learning rate is still finite; the next loss is not."""
    config = CONFIG.replace(learning_rate=1e30)
    with pytest.raises(
        FloatingPointError,
        match=r"^loss: (inf|nan) at step [0-9]+ of seed 0, timestep 96; the last checkpoint",
    ):
        start(tmp_path / "run", config, checkpoint_every=PER_STEP)
    assert checkpoints(tmp_path / "run") == [80, 88]
    for step in (80, 88):
        params = load(tmp_path / "run", step).train.agent.learner.params
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(params))


@pytest.mark.parametrize("steps", [1, 1000])
def test_the_seed_and_step_of_a_nan_are_named(
    copy: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    keep_pace(monkeypatch, steps)
    rewind(copy, 480)
    path = copy / "checkpoints/000000000480.ckpt"
    carry = load(copy, 480)
    for x in jax.tree.leaves(carry.train.agent.learner.params):
        x[1] = np.nan
    checkpoint.save(path, carry, checkpoint.about(path))
    before = contents(copy)["checkpoints/000000000480.ckpt"]
    with pytest.raises(
        FloatingPointError, match=r"^loss: nan at step [0-9]+ of seed 1, timestep 488; "
    ):
        resume(copy)
    assert checkpoints(copy) == [480] and path.read_bytes() == before


def broken(at: int) -> Environment:
    """Episodes of five steps; from its step `at` on, a copy of it gives NaN for a reward."""

    def see(time: jax.Array, taken: jax.Array, action: jax.Array) -> Any:
        start, last = time == 0, time == 5
        reward = jnp.where(start, 0.0, jnp.where(taken < at, 1.0, jnp.nan))
        discount = jnp.where(last, 0.0, 1.0)
        timestep = TimeStep(jnp.ones(1), action, reward, discount, start, last)
        return (time, taken), timestep

    def reset(key: Any) -> Any:
        return see(jnp.int32(0), jnp.int32(0), jnp.int32(0))

    def step(key: Any, state: Any, action: jax.Array) -> Any:
        time, taken = state
        time = jnp.where(time == 5, 0, time + 1)
        return see(time, taken + (time > 0), jnp.where(time == 0, 0, action))

    spec = Spec(Continuous((1,), jnp.float32, 0, 1), Discrete(2))
    return Environment(reset, step, spec, 5)


def test_a_nan_reward_is_called_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 90 steps of each of two copies, that is, in timestep 108 of each, of four at a time.

    In evaluations of five steps there is nothing to see of it.
    """
    monkeypatch.setitem(ENVIRONMENTS, "Broken", broken)
    config = CONFIG.replace(environment="Broken", environment_args={"at": 90}, memory="none")
    config = config.replace(memory_args={}, encoder=())
    said = r"^reward: nan at step 180 of seed 0, timestep 216; the last checkpoint before"
    with pytest.raises(FloatingPointError, match=said):
        start(tmp_path / "run", config, seeds=1, checkpoint_every=200)
    assert checkpoints(tmp_path / "run") == [WARMUP, 200]


def test_a_nan_reward_of_an_evaluation_is_called_one(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = preparing.make_program

    def make_program(*given: Any) -> Program:
        program = original(*given)

        def evaluate(x: Any) -> Evaluation:
            played = program.evaluate(x)
            return played._replace(total=played.total.at[1, 2].set(jnp.nan))

        return program._replace(evaluate=evaluate)

    monkeypatch.setattr(preparing, "make_program", make_program)
    said = r"^reward: nan at step (9|1\d) of episode 2 of an evaluation of seed 1$"
    with pytest.raises(FloatingPointError, match=said):
        saved.evaluate(str(copy), episodes=4, seed=0)


def test_evaluation_stops_where_a_return_ceases_to_be_finite() -> None:
    env, memory = batch(broken(3)), jnp.zeros((2, 0))

    def policy(key: Any, memory: Any, timestep: TimeStep) -> Any:
        return memory, jnp.zeros(2, jnp.int32), ()

    played = jax.jit(lambda key: evaluate(env, policy, memory, key, 2))(jax.random.key(0))
    assert np.all(np.isnan(played.total)) and played.done.tolist() == [True, True]
    assert played.length.tolist() == [3, 3]


@pytest.mark.parametrize(
    "make, what",
    [
        (lambda out: out.mkdir(), "and is empty; remove it, or name a folder to make"),
        (lambda out: write(out / "config.json"), "; continue it with --resume {out}"),
        (lambda out: write(out / "notes.txt"), "and is not a run; name a folder to make"),
        (lambda out: write(out), "and is no folder; name a folder to make"),
        (os.mkfifo, "and is no folder; name a folder to make"),
        (lambda out: out.symlink_to("nowhere"), "and is no folder; name a folder to make"),
    ],
)
def test_what_is_in_the_way_is_left_alone(
    tmp_path: Path, make: Callable[[Path], Any], what: str
) -> None:
    out = tmp_path / "run"
    make(out)
    before = names(tmp_path), contents(tmp_path)
    with pytest.raises(ValueError, match=f"^out: {out} exists ?{what.format(out=out)}$"):
        start(out)
    assert (names(tmp_path), contents(tmp_path)) == before


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("seeds", 0, "seeds: 0 is below 1"),
        ("seed", -1, "seed: -1 is below 0"),
        ("seed", 2**32, "seed: 4294967296 is above 4294967295"),
        ("seed", 0.0, "seed: 0.0 is not a whole number"),
        ("evaluate_episodes", 0, "evaluate_episodes: 0 is below 1"),
        ("log_every", 0, "log_every: 0 is below 1"),
        ("evaluate_every", -5, "evaluate_every: -5 is below 1"),
        ("checkpoint_every", 0.5, "checkpoint_every: 0.5 is not a whole number or None"),
        ("target_return", float("nan"), "target_return: nan is not a number or None"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_written(
    tmp_path: Path, field: str, value: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        start(tmp_path / "run", **{field: value})
    assert names(tmp_path) == []


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def look() -> None:
        with loop.interruptible() as interrupted:
            seen.append((interrupted(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_what_is_not_known_yet_is_left_out_of_the_log(tmp_path: Path) -> None:
    past = {"timestep": np.array([8]), "step": np.array([7.5])}
    past |= {"return": np.array([[np.nan], [1.0]]), "loss": np.array([[0.5], [1.0]])}
    measured.log(tmp_path, 8, past)
    (line,) = log(tmp_path)
    assert set(line) == {"timestep", "step", "time", "loss"} and line["loss"] == 0.75


def test_the_latest_return_stays_until_there_is_a_later_one() -> None:
    none = {"episodes": np.zeros(2), "return_sum": np.zeros(2)}
    some = {"episodes": np.array([1.0, 3.0]), "return_sum": np.array([1.0, 1.0])}
    past = {"return": np.array([[1.0, np.nan], [np.nan, 2.0]])}
    assert np.isnan(loop._latest_return(none, {}))
    assert loop._latest_return(none, past) == 1.5
    assert loop._latest_return(some, past) == 0.5


def test_a_run_of_another_version_is_refused_and_the_version_named(copy: Path) -> None:
    versions = json.loads((copy / "versions.json").read_text())
    (copy / "versions.json").write_text(json.dumps(versions | {"memrl_jax": "0.1.0"}))
    (copy / "config.json").write_text('{"config": {"as": "it was"}, "run": {}, "history": []}')
    with pytest.raises(ValueError, match=r"^run: .+ was written by memrl_jax 0\.1\.0, whose runs "):
        saved.read(str(copy))
    (copy / "versions.json").write_text(json.dumps(versions))
    with pytest.raises(ValueError, match=r"^run: .+config.json: config: agent is missing$"):
        saved.read(str(copy))
