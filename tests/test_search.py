"""Searching: what is asked for next, how it is trained, and that an interrupt changes nothing."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import trials
from memrl_jax import cli
from memrl_jax.points import Range, Vary
from memrl_jax.run import checkpoint, preparing, saved, search, stages, sweep, sweep_training
from memrl_jax.run.program import Run
from memrl_jax.run.search import Search
from tests.small import SMALL

optuna = pytest.importorskip("optuna")

RATE = Range(1e-4, 1e-2, True)
LISTED: dict[str, list[Any]] = {
    "memory": ["gru", "lstm"],
    "encoder": [[8], [8, 8]],
    "discount": [0.9, 0.99],
    "max_gradient_norm": [None, 1.0],
}
MIXED: Vary = {"learning_rate": RATE, **LISTED}


def silent(*_: Any) -> None:
    """Say nothing."""


def test_what_is_asked_for_depends_on_what_was_tried_and_the_seed_alone() -> None:
    asked = Search(16, 4, MIXED)
    first = search.ask(asked, SMALL, 3, [], [])
    assert first == search.ask(asked, SMALL, 3, [], []) != search.ask(asked, SMALL, 4, [], [])
    better, worse = [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]
    second = search.ask(asked, SMALL, 3, first, better)
    assert second == search.ask(asked, SMALL, 3, first, better)
    assert second != search.ask(asked, SMALL, 3, first, worse)
    assert second != first
    for point in first + second:
        assert [*point] == [*MIXED]
        assert 1e-4 <= point["learning_rate"] <= 1e-2
        assert all(point[name] in values for name, values in LISTED.items())


def test_a_batch_has_in_common_what_shapes_the_program() -> None:
    asked = Search(8, 4, MIXED)
    assert asked.shaping(SMALL) == ["memory", "encoder", "max_gradient_norm"]
    for seed in range(5):
        batch = search.ask(asked, SMALL, seed, [], [])
        for name in asked.shaping(SMALL):
            assert all(point[name] == batch[0][name] for point in batch)
        assert len({point["learning_rate"] for point in batch}) == 4
    memories = {search.ask(asked, SMALL, seed, [], [])[0]["memory"] for seed in range(9)}
    assert memories == {"gru", "lstm"}


def test_points_come_closer_to_the_best() -> None:
    asked = Search(64, 8, {"learning_rate": Range(1e-7, 1.0, True)})
    tried: list[dict[str, Any]] = []

    def away() -> list[float]:
        return [abs(math.log10(point["learning_rate"]) + 3) for point in tried]

    for _ in range(8):
        tried += search.ask(asked, SMALL, 0, tried, [-x for x in away()])
    at_random = 1.75  # the median distance of a rate from 1e-3, between 1e-7 and 1
    assert np.median(away()[8:]) < at_random / 2


def test_optuna_reads_the_journal(tmp_path: Path) -> None:
    asked = Search(8, 4, MIXED)
    tried = search.ask(asked, SMALL, 0, [], [])
    scores = [0.1, 1 / 3, -2.0]
    path = tmp_path / "optuna.journal"
    path.write_bytes(search.journal(asked, "x", tried, scores))
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    study = optuna.load_study(study_name="x", storage=optuna.storages.JournalStorage(backend))
    assert [trial.value for trial in study.trials] == [*scores, None]
    assert study.best_trial.number == 1
    names = [trial.state.name for trial in study.trials]
    assert names == ["COMPLETE"] * 3 + ["RUNNING"]
    for trial, point in zip(study.trials, tried, strict=True):
        assert trial.params["learning_rate"] == point["learning_rate"]
        assert trial.params["encoder"] == str(point["encoder"])


class Stopped(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def programs() -> tuple[Any, list[Any]]:
    """What is compiled, once for all searches, and the calls that made it."""
    made = []
    prepare = stages.shared()
    make = preparing.make_program

    def counted(*given: Any) -> Any:
        made.append(given)
        return make(*given)

    def counting(*given: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(preparing, "make_program", counted)
            return prepare(*given)

    return counting, made


@pytest.fixture
def once(programs: tuple[Any, list[Any]], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(sweep_training, "shared", lambda: programs[0])
    return programs[1]


def begun(place: Path) -> sweep.Sweep:
    run = Run(str(place), 2, log_every=160, evaluate_every=320, evaluate_episodes=4)
    asked = Search(6, 2, {"learning_rate": RATE})
    return sweep.planned(SMALL, run, [], search=asked)


def test_a_search_is_one_program_and_an_interrupt_changes_nothing(
    tmp_path: Path, once: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, place = tmp_path / "whole/x", tmp_path / "stopped/x"
    for out in (whole, place):
        out.parent.mkdir()
    assert sweep_training.start(begun(whole), silent, silent)
    assert [len(given[2]["learning_rate"]) for given in once if len(given) > 2 and given[2]] == [2]
    save, paths = checkpoint.save, []

    def stop(path: Path, *rest: Any) -> None:
        save(path, *rest)
        paths.append(path)
        if len(paths) % 5 == 0:
            raise Stopped

    monkeypatch.setattr(checkpoint, "save", stop)
    begin: Any = sweep_training.start
    stops = 0
    while True:
        try:
            assert begin(begun(place) if not stops else sweep.read(str(place)), silent, silent)
            break
        except Stopped:
            begin = sweep_training.resume
            stops += 1
    assert stops >= 4
    assert trials.same(place.parent, whole.parent)
    for number in range(6):
        agent: Any = saved.read(str(place / f"points/{number:03d}"))[1].agent
        rate = sweep.asked(begun(place))[number]["learning_rate"]
        assert agent.optimizer.learning_rate == rate


def test_the_command_ends_with_a_table_and_goes_on(
    tmp_path: Path, once: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x"
    words = ["sweep", "drqn", "--environment", "TMaze", "--vary", "learning_rate=log:1e-4..1e-2"]
    words += ["--search", "tpe", "--trials", "4", "--trials-at-once", "2", "--seeds", "2"]
    words += ["--environments", "2", "--encoder", "8", "--memory-args", "features=8"]
    words += ["--total-steps", "640", "--window", "4", "--batch-size", "4", "--capacity", "160"]
    words += ["--learning-starts", "80", "--target-period", "5", "--evaluate-episodes", "4"]
    assert cli.main([*words, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "4 trials, 2 at once" in said and "trials 2 to 3 of 4; the best so far: " in said
    with open(out / "sweep.csv") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 8 and {row["point"] for row in rows} == {*"0123"}
    assert (out / "curves.png").exists() and (out / "effect-learning_rate.png").exists()
    assert cli.main(["sweep", "--resume", str(out)]) == 0


@pytest.mark.parametrize(
    "words, problem",
    [
        (["--trials", "10"], "trials: 10 is no multiple of trials_at_once = 8"),
        ([], "search: tpe of how many points? name trials"),
        (["--trials", "8", "--draws", "2"], "draws: 2 are for a grid"),
        (["--trials", "8", "--halve", "2"], "search: halve and evolve_every are for points"),
        (["--trials", "8", "--vary", "batch_size=uniform:2..8"], "batch_size shapes the program"),
        (["--trials", "8", "--vary", "discount=uniform:0.9..1.5"], "(at learning_rate=0.01, disc"),
        (["--trials", "8", "--vary", "total_steps=640,1280"], "vary: total_steps differs"),
    ],
)
def test_errors_are_one_line(
    words: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["sweep", "dqn", "--vary", "learning_rate=log:1e-4..1e-2", "--search", "tpe"]
    assert cli.main([*given, *words, "--out", str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err
    assert problem in said and said.count("\n") == 1
    assert not [*tmp_path.iterdir()]
