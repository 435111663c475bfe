"""Several processes that train one run: who they are, and that nobody can tell from the numbers."""

import contextlib
import io
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from memrl_jax import cli, hosts, parallel
from memrl_jax.hosts import Place
from memrl_jax.run import history, processes, saved, sweep, sweep_training
from memrl_jax.run.program import Run, make_program
from memrl_jax.run.rounds import Rule
from tests.small import SMALL
from tests.test_cli import TINY, options

ROOT = Path(__file__).parents[1]
TASK = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"}
VARIABLES = {
    "JAX_COORDINATOR_ADDRESS": "a:1",
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "1",
}
THIRD = ["--coordinator", "b:2", "--processes=3", "--process", "2"]
# A point, which is written, after every step: so slow that a run can be killed on its way.
RUN = {"seeds": 3, "log_every": 2, "evaluate_every": 320, "evaluate_episodes": 4}
RUN |= {"checkpoint_every": 80}
SHARDED: dict[str, Any] = {
    "environment": "TMaze",
    "memory_args": {"features": 8},
    "encoder": (8,),
    "environments": 8,
    "data_parallel": 4,
    "evaluate_episodes": 6,
    "evaluate_every": 768,
}
PPO = {"rollout_length": 4, "minibatches": 2, "total_steps": 20 * 32}
R2D2 = {"rollout_length": 4, "window": 4, "burn_in": 4, "n_step": 2, "batch_size": 8}
R2D2 |= {"capacity": 256, "learning_starts": 128, "total_steps": 128 + 20 * 32}
WORDS = ["train", "drqn", *options(TINY | RUN)]
POPULATION = ["sweep", "drqn", *options(TINY | RUN | {"seeds": 1, "log_every": 20}), "--draws", "4"]
POPULATION += ["--vary", "learning_rate=log:1e-4..1e-2", "--evolve-every", "240"]


@pytest.mark.parametrize(
    "words, environment, expected",
    [
        (["train"], {}, None),
        (["train"], TASK, Place(2, 4, None)),
        (["train"], TASK | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        (["train", "--processes", "1"], TASK, None),
        (["train"], TASK | VARIABLES, Place(1, 2, "a:1")),
        (["train", *THIRD], TASK | VARIABLES, Place(2, 3, "b:2")),
    ],
)
def test_options_come_before_variables_and_both_before_slurm(
    words: list[str], environment: dict[str, str], expected: Place | None
) -> None:
    assert hosts.place([*words, "--seeds", "4"], environment) == (
        expected,
        ["train", "--seeds", "4"],
    )


@pytest.mark.parametrize(
    "words, said",
    [
        ("--process 0", "--coordinator: missing beside --process 0"),
        ("--coordinator a:1 --process 0", "--processes: missing beside --coordinator a:1, --proc"),
        ("--coordinator a --processes 2 --process 0", "--coordinator: 'a' is not HOST:PORT"),
        ("--coordinator a:b --processes 2 --process 0", "--coordinator: 'a:b' is not HOST:PORT"),
        ("--coordinator a:1 --processes 2 --process 2", "--process: 2 is not below --processes 2"),
        ("--coordinator a:1 --processes 0 --process 0", "--processes: 0 is below 1"),
        ("--coordinator a:1 --processes x --process 0", "--processes: 'x' is not a number"),
        ("--coordinator a:1 --processes 2 --process", "--process: no value is given"),
        ("--process 0 --process 0", "--process: given twice"),
    ],
)
def test_what_is_not_a_place_is_refused(words: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        hosts.place(words.split(), {})


@pytest.mark.parametrize("share, taken", [("0", "false"), ("0.4", "true")])
def test_what_a_gpu_is_asked_for_is_told_before_jax_starts(
    share: str, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    preallocate, fraction = "XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION"
    for name in (preallocate, fraction):
        monkeypatch.setenv(name, "as before")
    assert cli.set_gpu_memory(["train", "--gpu-memory", share, "dqn"]) == ["train", "dqn"]
    assert os.environ[preallocate] == taken
    assert os.environ[fraction] == ("0.4" if taken == "true" else "as before")
    with pytest.raises(ValueError, match=r"^--gpu-memory: '40' is not a share from 0 to 1"):
        cli.set_gpu_memory(["--gpu-memory=40"])


def silent(*_: Any) -> None:
    """Say nothing."""


class Pair:
    """Two processes with two devices each, over the loopback address."""

    def __init__(self, *words: Any) -> None:
        """Start them."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
        command = [sys.executable, "-m", "memrl_jax.cli", *map(str, words)]
        command += ["--coordinator", address, "--processes", "2", "--process"]
        self.processes = [
            subprocess.Popen(
                [*command, str(i)],
                cwd=ROOT,
                env=os.environ | {"XLA_FLAGS": flags},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(2)
        ]

    def ended(self, seconds: float = 300) -> list[tuple[int, str, str]]:
        """Wait for both; return code, stdout and stderr of each."""
        told = [process.communicate(timeout=seconds) for process in self.processes]
        return [(x.returncode, *words) for x, words in zip(self.processes, told, strict=True)]

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def pair(*words: Any) -> Iterator[Pair]:
    started = Pair(*words)
    try:
        yield started
    finally:
        started.stop()


def alone(*words: Any) -> int:
    """Run a command in this process; return its exit code."""
    with contextlib.redirect_stdout(io.StringIO()):
        return cli.main([str(word) for word in words])


def assert_same(one: Path, other: Path) -> None:
    """Compare metrics and trained agents, with their replay memories, bit for bit."""
    ours, theirs = (history.read(x / "metrics.npz") for x in (one, other))
    assert history.digest(ours) == history.digest(theirs)
    agents = (saved.trained(str(x))[2] for x in (one, other))
    jax.tree.map(np.testing.assert_array_equal, *agents)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run that one process trains."""
    out = tmp_path_factory.mktemp("runs") / "alone"
    assert alone(*WORDS, "--out", out) == 0
    return out


def last_saved(out: Path) -> int:
    """Return the timestep of the last checkpoint, 0 without one."""
    return max((int(x.stem) for x in out.glob("checkpoints/*.ckpt")), default=0)


def wait_for(out: Path, timestep: int, seconds: float = 300) -> None:
    """Wait for a checkpoint of a timestep or a later one."""
    deadline = time.monotonic() + seconds
    while last_saved(out) < timestep:
        assert time.monotonic() < deadline, f"{out} has no checkpoint of {timestep}"
        time.sleep(0.02)


def test_seeds_over_processes_are_those_of_one_and_go_on_after_a_loss(
    whole: Path, tmp_path: Path
) -> None:
    """One process is killed, then the other, and in the end a single one goes on."""
    out = tmp_path / "run"
    words = [*WORDS, "--out", out]
    for lost, timestep in ((1, 160), (0, 320)):
        with pair(*words) as both:
            wait_for(out, timestep)
            both.processes[lost].kill()
            code, _, error = both.ended(60)[1 - lost]
        assert (code, error) == (2, f"memrl: {hosts.lost(Place(1 - lost, 2, None), 'train')}\n")
        words = ["train", "--resume", out]
    assert last_saved(out) < 640
    assert_parts_belong_together(out, tmp_path / "broken")
    assert alone(*words) == 0
    assert_same(out, whole)


def test_a_population_over_processes_is_that_of_one_and_goes_on_after_a_loss(
    tmp_path: Path,
) -> None:
    """One process is killed in the second generation; both go on."""
    out, other = tmp_path / "two", tmp_path / "one"
    with pair(*POPULATION, "--out", out) as both:
        wait_for(out / "groups/01-000", 240)
        both.processes[1].kill()
        code, _, error = both.ended(60)[0]
    assert (code, error) == (2, f"memrl: {hosts.lost(Place(0, 2, None), 'sweep')}\n")
    assert not (out / "sweep.csv").exists()
    with pair("sweep", "--resume", out) as both:
        (code, said, error), second = both.ended()
    assert (code, error) == (0, "") and f"finished: {out}" in said, error
    assert (second[0], second[2]) == (0, "")
    assert alone(*POPULATION, "--out", other) == 0
    for name in ("rounds.json", "sweep.csv"):
        assert (out / name).read_text() == (other / name).read_text()
    for point in range(4):
        assert_close(*(place / f"points/{point:03d}" for place in (out, other)))


def test_halving_may_leave_too_little_for_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule, run = Rule(halve=2), Run(seeds=1, out=str(tmp_path / "x"))
    halved = sweep.planned(SMALL, run, [{"discount": 0.9}, {"discount": 0.8}], rule)
    of_first = SimpleNamespace(devices=np.array([SimpleNamespace(process_index=0)]), size=1)
    monkeypatch.setattr(parallel, "mesh", lambda *_: of_first)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "check_same", silent)
    said = "halve: 2 may leave 1 x 1 lanes on 1 devices, too few for 2 processes"
    with pytest.raises(ValueError, match=f"^{said}$"):
        sweep_training.start(halved, silent, silent)


def test_a_process_without_a_device_that_computes_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "mesh", lambda *_: SimpleNamespace(local_devices=(), size=1))
    said = "processes: 1 are too many: 1 seeds in 1 shards are on 1 devices"
    with pytest.raises(ValueError, match=f"^{said}$"):
        make_program(SMALL, Run(seeds=1))


def assert_parts_belong_together(out: Path, broken: Path) -> None:
    """A part of another checkpoint is refused, and so is a checkpoint without one of its parts."""
    shutil.copytree(out, broken)
    before, part = sorted(broken.glob("checkpoints/*.1.part"))[-2:]
    shutil.copy(before, part)
    with pytest.raises(ValueError, match=rf"{part.name}: is not of the checkpoint .*; remove it"):
        saved.trained(str(broken))
    part.unlink()
    with pytest.raises(ValueError, match=rf"{part.name}: No such file or directory; remove it"):
        saved.trained(str(broken))


def test_all_processes_stop_when_one_is_asked_to(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    stopped_and_resumed(WORDS, out, 100, monkeypatch)
    assert_same(out, whole)


def stopped_and_resumed(
    words: list[str], out: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train until it was looked `after` times whether somebody asked for a stop; then go on."""
    calls = itertools.count()

    def largest(x: float) -> float:
        asked = isinstance(x, bool) and next(calls) > after
        return True if asked else x

    with monkeypatch.context() as patch:
        patch.setattr(processes, "largest", largest)
        assert alone(*words, "--out", out) == 130
    assert 0 < last_saved(out) < 640
    assert alone("train", "--resume", out) == 0


@pytest.mark.parametrize("preset, settings", [("recurrent-ppo", PPO), ("r2d2", R2D2)])
def test_shards_over_processes_are_those_of_one(
    preset: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to rounding, after 20 updates: gradients are summed in another order.

    One process that was stopped on its way, with a replay memory, ends with the bits of one that
    was not.
    """
    words = ["train", preset, *options(settings | SHARDED), "--seeds", "1"]
    out, other = tmp_path / "run", tmp_path / "alone"
    with pair(*words, "--out", out) as both:
        (code, said, error), second = both.ended()
    assert (code, error) == (0, "") and f"finished: {out}" in said, error
    assert (second[0], second[2]) == (0, "")
    assert alone(*words, "--out", other) == 0
    if preset == "r2d2":
        stopped = tmp_path / "stopped"
        stopped_and_resumed([*words, "--checkpoint-every", "64"], stopped, 8, monkeypatch)
        assert_same(stopped, other)
    assert_close(out, other)


def assert_close(one: Path, other: Path) -> None:
    """Compare metrics and what was learned, up to rounding: compilers are told to be quick here."""
    ours, theirs = (history.read(x / "metrics.npz") for x in (one, other))
    assert ours.keys() == theirs.keys()
    for name, x in ours.items():
        np.testing.assert_allclose(x, theirs[name], rtol=1e-4, atol=1e-5, err_msg=name)
    agents = (saved.trained(str(x))[2].learner for x in (one, other))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *agents)
