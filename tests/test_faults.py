"""The trials of benchmarks/faults.py in their short forms: a run survives what happens to it."""

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import damage, faults, interrupted, kills, states, trials
from benchmarks.trials import SMALL, Figures
from memrl_jax.run import loop


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that nothing happened to."""
    with trials.compiled_once():
        out = tmp_path_factory.mktemp("runs") / "whole"
        trials.train(out, SMALL)
        yield out


def assert_reached(found: Figures, count: int, *ends: str) -> None:
    assert found.reached, found
    assert found.ends.total() == count and set(ends) <= set(found.ends)


def test_every_state_of_the_disk_is_gone_on_from(whole: Path, tmp_path: Path) -> None:
    found = states.states(tmp_path, whole, every=4)
    assert_reached(found, found.ends.total(), "same bits")
    assert found.ends.total() > 30


def test_damaged_checkpoints_are_refused_or_answered_by_the_one_before(
    whole: Path, tmp_path: Path
) -> None:
    draw = random.Random(1)
    found = faults.mutations(tmp_path, whole, "checkpoints", damage.of_checkpoints(draw, 30), draw)
    assert_reached(found, 30, "refused in one line", "answered by the checkpoint before")


def test_other_damaged_files_are_refused(whole: Path, tmp_path: Path) -> None:
    draw = random.Random(2)
    found = faults.mutations(tmp_path, whole, "other files", damage.of_others(draw, 30), draw)
    assert_reached(found, 30, "refused in one line")


def test_a_process_that_is_killed(whole: Path, tmp_path: Path) -> None:
    """SIGKILL while it trains; this process goes on with what it left."""
    with kills.process("train", SMALL.total_steps, tmp_path / "run") as child:
        assert kills.wait_for(child, "training")
        time.sleep(0.05)
        child.kill()
    assert trials.train(tmp_path / "run", SMALL)
    assert faults.numbers(tmp_path / "run") == faults.numbers(whole)


def test_a_sweep_that_is_killed(tmp_path: Path) -> None:
    """SIGKILL at a random moment; given again, the command leaves what it would have left."""
    command = interrupted.sweep("population", 640)
    whole = interrupted.undisturbed(tmp_path, command)
    found = interrupted.kills(tmp_path, command, whole, 1, random.Random(4), lambda _: None)
    assert found.reached and found.ends.total() >= 1, found


def test_of_two_writers_one_is_refused(whole: Path, tmp_path: Path) -> None:
    out, answers = tmp_path / "run", []
    both = threading.Barrier(2)

    def slow(_: loop.Progress) -> None:
        time.sleep(0.1)

    def write() -> None:
        both.wait()
        try:
            answers.append("finished" if trials.train(out, SMALL, slow) else "interrupted")
        except ValueError as error:
            answers.append(str(error))

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused, done = answers
    assert done == "finished"
    assert refused.startswith((f"run: {out} is being written by process ", f"out: {out} exists;"))
    assert trials.same(out, whole)
