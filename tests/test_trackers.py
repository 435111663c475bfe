"""Trackers get the numbers of a run's metrics, and none of them can stop or slow it."""

import importlib
import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memrl_jax import points
from memrl_jax.commands import arguments, training
from memrl_jax.run import (
    experiment,
    history,
    loop,
    preparing,
    saved,
    sweep,
    sweep_training,
    telling,
    trackers,
)
from memrl_jax.run.loop import Progress, Result
from memrl_jax.run.program import Run, make_program
from memrl_jax.run.trackers import TRACKERS, Curves, Told, Tracker
from tests.small import SMALL

RUN = Run(seeds=2, log_every=80, evaluate_every=160, evaluate_episodes=2, checkpoint_every=240)
PAST: history.History = {
    "loss": np.array([[1.0, 2.0], [3.0, 5.0]]),
    "return": np.array([[np.nan, 1.0], [4.0, 2.0]]),
    "timestep": np.array([8, 16]),
    "step": np.array([7.5, 15.0]),
    "evaluation_return": np.array([[1.0], [2.0]]),
    "evaluation_timestep": np.array([16]),
    "evaluation_step": np.array([15.0]),
}


class Stopped(Exception):
    """Ends a run as if its process had been killed."""


class Heard:
    """A tracker that remembers all that it was told, over several resumes."""

    def __init__(self) -> None:
        self.points: list[tuple[int, Curves]] = []
        self.told: list[Told] = []
        self.closed = 0

    def start(self, told: Told) -> Tracker:
        self.told.append(told)
        return Tracker(lambda step, curves: self.points.append((step, curves)), self._close)

    def _close(self) -> None:
        self.closed += 1


@pytest.fixture(scope="module", autouse=True)
def compile_once() -> Iterator[None]:
    """Share the compiled functions, which do not depend on who is told."""
    program = preparing.make_program(SMALL, RUN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "make_program", lambda config, run, *_: program._replace(run=run))
        yield


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    heard = Heard()
    monkeypatch.setitem(TRACKERS, "heard", heard.start)
    return heard


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """An event that trackers may wait for, which comes in the end."""
    event = threading.Event()
    yield event
    event.set()


def train(out: Path, *track: str, at: int = 0) -> tuple[Result, list[str]]:
    """Train a new run, which is stopped after the timestep `at`."""
    lines: list[str] = []

    def report(progress: Progress) -> None:
        if progress.timesteps == at:
            raise Stopped

    run = Run(**{**vars(RUN), "out": str(out), "track": track})
    return experiment.start(SMALL, run, lines.append, report), lines


def resume(out: Path, **changes: Any) -> tuple[Result, list[str]]:
    lines: list[str] = []
    return experiment.resume(str(out), lines.append, lambda _: None, changes), lines


def expected(past: history.History) -> list[tuple[int, dict[str, dict[str, float]]]]:
    """Return what a tracker has to be told of a history."""
    out = []
    evaluated = past["evaluation_timestep"].tolist()
    for i, timestep in enumerate(past["timestep"].tolist()):
        point: dict[str, Any] = {"mean": {}} | {f"seed_{s}": {} for s in range(RUN.seeds)}
        for name, x in past.items():
            own = name.startswith("evaluation_")
            if x.ndim < 2 or (own and timestep not in evaluated):
                continue
            values = x[:, evaluated.index(timestep) if own else i].tolist()
            for curve, value in zip(point, [float(np.mean(values)), *values], strict=True):
                point[curve] |= {name: value} if value == value else {}  # but for NaN
        out.append((round(past["step"][i]), point))
    return out


def flat(points: list[tuple[int, Any]]) -> dict[tuple[str, int], float]:
    """Return values by METRIC/CURVE and step."""
    return {
        (f"{name}/{curve}", step): x
        for step, curves in points
        for curve, values in curves.items()
        for name, x in values.items()
    }


def test_one_curve_for_every_seed_and_the_mean() -> None:
    first, second = telling._points(PAST, 0)
    assert (first.step, second.step) == (8, 15)
    assert telling.curves(first.values) == {
        "mean": {"loss": 2.0},
        "seed_0": {"loss": 1.0},
        "seed_1": {"loss": 3.0, "return": 4.0},
    }
    assert telling.curves(second.values) == {
        "mean": {"loss": 3.5, "return": 1.5, "evaluation_return": 1.5},
        "seed_0": {"loss": 2.0, "return": 1.0, "evaluation_return": 1.0},
        "seed_1": {"loss": 5.0, "return": 2.0, "evaluation_return": 2.0},
    }
    assert [point.timestep for point in telling._points(PAST, 8)] == [16]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The run that nobody is told of."""
    return train(tmp_path_factory.mktemp("runs") / "plain")[0]


def assert_same_numbers(result: Result, like: Result) -> None:
    assert history.digest(result.history) == history.digest(like.history)


def test_a_tracker_is_told_of_every_point(plain: Result, heard: Heard, tmp_path: Path) -> None:
    result, lines = train(tmp_path / "run", "heard")
    assert heard.points == expected(result.history) == expected(plain.history)
    assert heard.closed == 1 and not any("track" in line for line in lines)
    (told,) = heard.told
    assert told.name == "run" and told.folder == tmp_path / "run/trackers/heard"
    assert told.settings["environment"] == "TMaze" and told.settings["seeds"] == 2
    assert json.loads((tmp_path / "run/config.json").read_text())["run"]["track"] == ["heard"]
    assert saved.read(str(tmp_path / "run"))[2].track == ("heard",)


def test_a_resume_goes_on_in_the_same_place_and_tells_nothing_twice(
    plain: Result, heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.Pace, "after", lambda pace, *_: pace._replace(steps=1))
    with pytest.raises(Stopped):
        train(tmp_path / "run", "heard", at=424)  # the last checkpoint is of 240
    assert len(heard.points) == 4
    result, _ = resume(tmp_path / "run")
    assert_same_numbers(result, plain)
    assert heard.points == expected(plain.history)
    assert heard.told[0] == heard.told[1] and heard.closed == 2


def test_a_tracker_that_comes_later_is_told_everything(
    plain: Result, heard: Heard, tmp_path: Path
) -> None:
    train(tmp_path / "run")
    result, _ = resume(tmp_path / "run", track=["heard"])
    assert heard.points == expected(plain.history)
    changed = json.loads((tmp_path / "run/config.json").read_text())["history"][0]["changed"]
    assert changed == {"track": [[], ["heard"]]}
    resume(tmp_path / "run", track=())
    assert len(heard.told) == 1 and saved.read(str(result.folder))[2].track == ()


def broken(told: Told, at: str) -> Tracker:
    """Raise, in words over two lines, where told to."""

    def fail(where: str) -> None:
        if where == at:
            raise ConnectionError("no\nnetwork")

    fail("start")
    return Tracker(lambda step, curves: fail("log"), lambda: fail("close"))


@pytest.mark.parametrize("at", ["start", "log", "close"])
def test_one_that_raises_is_named_once_and_the_run_goes_on(
    plain: Result, heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    monkeypatch.setitem(TRACKERS, "broken", partial(broken, at=at))
    result, lines = train(tmp_path / "run", "broken", "heard")
    assert_same_numbers(result, plain)
    assert [line for line in lines if "track" in line] == [
        "track: broken raised ConnectionError: no network; the run goes on, a resume tells it the "
        "rest"
    ]
    assert heard.points == expected(plain.history)


@pytest.mark.parametrize("at", ["start", "log", "close"])
def test_one_that_hangs_is_waited_for_no_longer_than_said(
    plain: Result,
    heard: Heard,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    release: threading.Event,
    at: str,
) -> None:
    def hang(where: str) -> None:
        if where == at:
            release.wait()

    def hanging(told: Told) -> Tracker:
        hang("start")
        return Tracker(lambda step, curves: hang("log"), lambda: hang("close"))

    monkeypatch.setitem(TRACKERS, "hanging", hanging)
    monkeypatch.setattr(telling, "PATIENCE", 0.5)
    result, lines = train(tmp_path / "run", "hanging", "heard")
    assert_same_numbers(result, plain)
    assert [line for line in lines if "track" in line] == [
        "track: hanging has not answered for 0.5 s; the run goes on, a resume tells it the rest"
    ]
    assert heard.points == expected(plain.history)


def test_every_point_of_a_sweep_is_told_as_a_run_and_who_fails_is_asked_once(
    heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "make_program", make_program)  # the shared one has one point
    monkeypatch.setitem(TRACKERS, "heard", heard.start)
    asked: list[str] = []

    def failing(told: Told) -> Tracker:
        asked.append(told.name)
        raise ConnectionError

    monkeypatch.setitem(TRACKERS, "failing", failing)
    run = Run(**{**vars(RUN), "out": str(tmp_path / "swept"), "track": ("failing", "heard")})
    plan = sweep.planned(SMALL, run, points.grid({"learning_rate": [1e-3, 1e-2]}))
    lines: list[str] = []
    assert sweep_training.start(plan, lines.append, lambda _: None)
    assert asked == ["swept-000"] and len([x for x in lines if "track: failing" in x]) == 1
    assert [told.name for told in heard.told] == ["swept-000", "swept-001"]
    assert [told.settings["learning_rate"] for told in heard.told] == [1e-3, 1e-2]
    due = [expected(history.read(plan.point(i) / "metrics.npz")) for i in range(2)]
    assert heard.points == [point for each in due for point in each] and heard.closed == 2
    assert saved.read(str(plan.point(1)))[2].track == ("failing", "heard")


def test_a_damaged_note_of_what_was_told_is_named_and_the_run_goes_on(
    plain: Result, heard: Heard, tmp_path: Path
) -> None:
    train(tmp_path / "run", "heard")
    (tmp_path / "run/trackers/heard.json").write_text("[]")
    result, lines = resume(tmp_path / "run")
    assert_same_numbers(result, plain)
    (line,) = [line for line in lines if "track" in line]
    assert line.startswith(f"track: heard raised ValueError: {tmp_path}/run/trackers/heard.json ")


def test_one_of_ones_own_is_reached_by_import(tmp_path: Path) -> None:
    module = tmp_path / "module_with_a_tracker.py"
    module.write_text(
        "from memrl_jax.run.trackers import TRACKERS, Tracker\n"
        "steps = []\n"
        "def start(told):\n"
        "    return Tracker(lambda step, curves: steps.append(step), lambda: None)\n"
        "TRACKERS['mine'] = start\n"
    )
    config = SMALL.replace(imports=(str(module),))
    try:
        run = Run(**{**vars(RUN), "out": str(tmp_path / "run"), "track": ["mine"]})
        result = experiment.start(config, run, print, lambda _: None)
    finally:
        del TRACKERS["mine"]
    told = importlib.import_module("module_with_a_tracker").steps
    assert told == [round(x) for x in result.history["step"]]


def test_a_slow_tracker_slows_nothing_and_is_told_everything(tmp_path: Path) -> None:
    """Points wait for it, not the run: sending takes no time, and all arrive by the end."""
    seen: list[int] = []

    def log(step: int, curves: Curves) -> None:
        time.sleep(0.02)
        seen.append(step)

    told = Told("run", "", tmp_path, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRACKERS, "slow", lambda told: Tracker(log, lambda: None))
        feed = telling.Feed("slow", told, print)
        began = time.monotonic()
        feed.send(PAST | {"timestep": np.array([8, 16]), "step": np.array([1.0, 2.0])})
        assert time.monotonic() - began < 0.02
        feed.points.put(None)
        feed.end(time.monotonic() + 10)
    assert seen == [1, 2]


@pytest.mark.parametrize(
    ("track", "message"),
    [
        (("tensorbord",), "track: 'tensorbord' is unknown; did you mean 'tensorboard'?"),
        (("heard", "heard"), "track: 'heard' is named 2 times"),
        (("missing",), "track: 'missing' is not installed; pip install \"memrl_jax[missing]\""),
    ],
)
def test_what_cannot_track_is_refused_before_the_run_begins(
    heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, track: Any, message: str
) -> None:
    monkeypatch.setitem(TRACKERS, "missing", heard.start)
    monkeypatch.setitem(trackers.MODULES, "missing", "a_module_that_is_not_there")
    run = Run(**{**vars(RUN), "out": str(tmp_path / "run"), "track": track})
    with pytest.raises(ValueError) as caught:
        experiment.start(SMALL, run, print, lambda _: None)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir()) and not heard.told


def test_every_tracker_of_ours_has_an_extra() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for name, module in trackers.MODULES.items():
        assert project["optional-dependencies"][name][0].startswith(module)


@pytest.fixture
def tracked(
    plain: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, dict[tuple[str, int], float]]:
    """Where a run goes that is stopped and resumed, and what a tracker has to show of it."""
    for name in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(loop.Pace, "after", lambda pace, *_: pace._replace(steps=1))
    return tmp_path / "run", flat(expected(plain.history))


def stop_and_go_on(out: Path, track: str) -> None:
    with pytest.raises(Stopped):
        train(out, track, at=424)
    _, lines = resume(out)
    assert not [line for line in lines if "track" in line], lines


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard(tracked: tuple[Path, dict[tuple[str, int], float]]) -> None:
    pytest.importorskip("tensorboardX")
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out, values = tracked
    stop_and_go_on(out, "tensorboard")
    found = {}
    for curve in ("mean", "seed_0", "seed_1"):
        events = reader.EventAccumulator(str(out / "trackers/tensorboard" / curve)).Reload()
        for tag in events.Tags()["scalars"]:
            for event in events.Scalars(tag):
                found[f"{tag}/{curve}", event.step] = event.value
    assert found.keys() == values.keys()
    for key, value in values.items():
        assert found[key] == np.float32(value), key  # its files hold float32


def logged(data: bytes) -> Iterator[bytes]:
    """Return the records of a file of wandb's: LevelDB's log format after a header of 7 bytes.

    wandb reads it in Go only.
    """
    at, record = 7, b""
    while at + 7 <= len(data):
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + length]
        if kind in (1, 4):  # the whole of it, or its last part
            yield record
            record = b""
        at += 7 + length
        left = -at % 32_768  # in this block: too few bytes for a header are zeros
        at += left if left < 7 else 0


def by_wandb(messages: Any, out: Path) -> tuple[set[str], dict[tuple[str, int], float]]:
    """Return the ids and the values in the files of wandb's."""
    ids, found = set(), {}
    for path in sorted(out.glob("trackers/wandb/wandb/offline-run-*/run-*.wandb")):
        for record in map(messages.Record.FromString, logged(path.read_bytes())):
            ids |= {record.run.run_id} - {""}
            row = record.history
            for item in row.item:
                name = item.key or "/".join(item.nested_key)
                if name[0] != "_":  # its own
                    found[name, row.step.num] = json.loads(item.value_json)
    return ids, found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wandb(tracked: tuple[Path, dict[tuple[str, int], float]]) -> None:
    messages = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    out, values = tracked
    stop_and_go_on(out, "wandb")
    id = json.loads((out / "trackers/wandb.json").read_text())["id"]
    deadline = time.monotonic() + 30  # another process writes them, also after `finish`
    while by_wandb(messages, out)[1] != values and time.monotonic() < deadline:
        time.sleep(0.1)
    assert by_wandb(messages, out) == ({id}, values)


@pytest.mark.filterwarnings("ignore")
def test_mlflow(tracked: tuple[Path, dict[tuple[str, int], float]]) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    out, values = tracked
    stop_and_go_on(out, "mlflow")
    client = MlflowClient(f"sqlite:///{out}/trackers/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("memrl_jax")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["environment"] == "TMaze"
    found = {
        (name, x.step): x.value
        for name in run.data.metrics
        for x in client.get_metric_history(run.info.run_id, name)
    }
    assert found == values


@pytest.mark.parametrize(
    ("words", "track"),
    [
        ("", None),
        ("--track", ()),
        ("--track wandb mlflow", ("wandb", "mlflow")),
        ("--track wandb --track=mlflow --total-steps 8", ("wandb", "mlflow")),
    ],
)
def test_trackers_on_the_command_line(words: str, track: Any) -> None:
    given = ["--resume", "x", *words.split()]
    assert arguments.parse(training.Resume, given, "memrl train").track == track
