"""The command line: what it does, and that every mistake is answered in one line."""

import ast
import contextlib
import dataclasses
import inspect
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import memrl_jax
from benchmarks import damage
from memrl_jax import cli, config, plot
from memrl_jax.agents import AGENTS, DQNConfig, ExplorationConfig, OptimizerConfig
from memrl_jax.commands import drawing, evaluating, listing, shown, training
from memrl_jax.config import is_part
from memrl_jax.environments import ENVIRONMENTS
from memrl_jax.kinds import hints
from memrl_jax.memory import MEMORIES
from memrl_jax.preset_configs import presets
from memrl_jax.replay import REPLAYS
from memrl_jax.run import checkpoint, history, preparing, saved
from memrl_jax.run.loop import Progress, Result
from memrl_jax.run.program import Run
from memrl_jax.settings import BodyConfig, LayersConfig, ReplayConfig

ROOT = Path(__file__).parents[1]
TINY: dict[str, Any] = {
    "environment": "TMaze",
    "memory_args": {"features": 8},
    "encoder": (8,),
    "environments": 2,
    "total_steps": 640,
    "capacity": 160,
    "batch_size": 4,
    "window": 4,
    "learning_starts": 80,
    "target_period": 5,
}
RUN: dict[str, Any] = {
    "seeds": 3,
    "evaluate_every": 320,
    "evaluate_episodes": 4,
    "checkpoint_every": 160,
}


class Answer(NamedTuple):
    """What the command line gave back."""

    code: int
    out: str
    err: str


Memrl = Callable[..., Answer]


@pytest.fixture
def memrl(capsys: pytest.CaptureFixture[str]) -> Memrl:
    """Run a command in this process."""

    def run(*words: Any) -> Answer:
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:  # after the help of a command
            code = int(stop.code or 0)
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished run and what was said about it."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert cli.main(["train", "drqn", *options(TINY | RUN), "--out", str(out)]) == 0
    return out, said.getvalue()


@pytest.fixture
def copy(trained: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the folder, to tamper with."""
    return Path(shutil.copytree(trained[0], tmp_path / "copy"))


def options(settings: Mapping[str, Any]) -> list[str]:
    """Write settings as a user would."""

    def words(value: Any) -> list[str]:
        if isinstance(value, Mapping):
            return [f"{name}={x}" for name, x in value.items()]
        return [str(x) for x in value] if isinstance(value, tuple) else [str(value)]

    return [x for k, v in settings.items() for x in (f"--{k.replace('_', '-')}", *words(v))]


def configure(settings: Mapping[str, Any]) -> config.Config:
    """Write the same settings in Python."""
    return presets["drqn"].replace(**settings)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_one_line(answer: Answer, *parts: Any) -> None:
    """Assert that a mistake was answered in one line that has these parts."""
    assert answer.code == 2, answer
    assert re.fullmatch("memrl: .+\n", answer.err), answer.err
    assert "Traceback" not in answer.err
    for part in parts:
        assert str(part) in answer.err


SETTINGS: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"environment": "Cartpole-v1"},
        ["environment: 'Cartpole-v1' is unknown", "did you mean 'CartPole-v1'?", "TMaze-active"],
    ),
    ({"memory": "gruu"}, ["memory: 'gruu' is unknown", "did you mean 'gru'?", "gru, lstm, mingru"]),
    ({"replay": "unifrom"}, ["replay: 'unifrom' is unknown", "did you mean 'uniform'?"]),
    ({"loss": "hubber"}, ["loss: 'hubber'", "did you mean 'huber'?", "squared, huber"]),
    ({"total_steps": 7}, ["total_steps: 7 ", "environments x rollout_length = 8"]),
    ({"total_steps": 0}, ["total_steps: 0 is below 1"]),
    ({"total_steps": 80}, ["total_steps: 80 leaves nothing", "80 timesteps of warm-up"]),
    ({"memory_args": {"foo": 1}}, ["memory_args: foo=1 is unknown", "features=64"]),
    ({"memory_args": {"feature": 8}}, ["feature=8", "did you mean 'features'?"]),
    ({"memory_args": {"features": 0}}, ["features: 0 is below 1"]),
    ({"memory_args": {"features": 1.5}}, ["memory_args: features=1.5 is not a whole number"]),
    ({"memory_args": {"features": "many"}}, ["memory_args: features='many' is not a whole number"]),
    ({"environment_args": {"foo": 1}}, ["'foo' is unknown", "corridor", "bonus"]),
    ({"environment_args": {"coridor": 1}}, ["'coridor'", "did you mean 'corridor'?"]),
    ({"environment_args": {"corridor": 0}}, ["corridor: 0 is below 1"]),
    ({"environment_args": {"bonus": "big"}}, ["bonus='big' is not a number"]),
    ({"environments": 0}, ["environments: 0 is below 1"]),
    ({"rollout_length": -4}, ["rollout_length: -4 is below 1"]),
    ({"encoder": (8, 0)}, ["encoder: 0 is below 1"]),
    ({"head": (-1,)}, ["head: -1 is below 1"]),
    ({"capacity": 161}, ["capacity: 161 ", "environments x rollout_length = 8"]),
    ({"capacity": 0}, ["capacity: 0 is below 1"]),
    ({"capacity": 8}, ["window: 4 actions", "capacity / environments = 4"]),
    ({"window": 80}, ["window: 80 actions", "capacity / environments = 80"]),
    ({"window": 0}, ["window: 0 is below 1"]),
    ({"n_step": 5}, ["n_step: 5 ", "window = 4"]),
    ({"n_step": 0}, ["n_step: 0 is below 1"]),
    ({"td_lambda": 2.0}, ["td_lambda: 2.0 is not between 0 and 1"]),
    ({"td_lambda": 0.5, "n_step": 2}, ["td_lambda: 0.5 ", "n_step = 2"]),
    ({"discount": float("nan")}, ["discount: nan is not a number"]),
    ({"discount": 1.5}, ["discount: 1.5 is not between 0 and 1"]),
    ({"learning_rate": -1.0}, ["learning_rate: -1.0 is not between 0 and 1e+30"]),
    ({"max_gradient_norm": -1.0}, ["max_gradient_norm: -1.0 is not between 1e-30 and 1e+30"]),
    ({"epsilon_start": 2.0}, ["epsilon_start: 2.0 is not between 0 and 1"]),
    ({"epsilon_end": -0.1}, ["epsilon_end: -0.1 is not between 0 and 1"]),
    ({"target_rate": 1.5}, ["target_rate: 1.5 is not between 0 and 1"]),
    ({"target_period": 0}, ["target_period: 0 is below 1"]),
    ({"batch_size": 0}, ["batch_size: 0 is below 1"]),
    ({"updates": 0}, ["updates: 0 is below 1"]),
    ({"learning_starts": -1}, ["learning_starts: -1 is below 0"]),
    ({"decay_updates": 0.5}, ["decay_updates: 0.5 is not between 1 and 2.14748e+09"]),
    ({"adam_epsilon": -1.0}, ["adam_epsilon: -1.0 is not between 1e-30 and 1e+30"]),
    ({"replay": "priority"}, ["replay: 'priority'", "did you mean 'prioritized'?", "uniform"]),
    ({"priority_exponent": 1.5}, ["priority_exponent: 1.5 is not between 0 and 1"]),
    ({"priority_mix": -0.5}, ["priority_mix: -0.5 is not between 0 and 1"]),
    ({"importance_start": 2.0}, ["importance_start: 2.0 is not between 0 and 1"]),
    ({"importance_end": -1.0}, ["importance_end: -1.0 is not between 0 and 1"]),
    ({"importance_updates": 0.0}, ["importance_updates: 0.0 is not between 1 and 2.14748e+09"]),
    ({"burn_in": -1}, ["burn_in: -1 is below 0"]),
    ({"burn_in": 76}, ["window: 4 actions", "burn_in = 76", "capacity / environments = 80"]),
    ({"rescaling": 2.0}, ["rescaling: 2.0 is not between 0 and 1"]),
    ({"epsilon_spread": -7.0}, ["epsilon_spread: -7.0 is not between 0 and 1e+30"]),
    ({"persistence": 1.5}, ["persistence: 1.5 is not between 0 and 1"]),
    ({"restart": 0}, ["restart: 0 is below 1"]),
    ({"restart": 5, "restart_hold": -1}, ["restart_hold: -1 is below 0"]),
    ({"restart_hold": 5}, ["restart_hold: 5 ", "restart = None"]),
    ({"frames": 0}, ["frames: 0 is below 1"]),
    ({"frames": 77}, ["window: 4 actions", "frames = 77", "capacity / environments = 80"]),
    ({"memory_args": {"horizon": 2}}, ["horizon: 2 is below 3"]),
    (
        {"environment": "Pendulum-v1"},
        ["agent: dqn takes one Discrete action, not Continuous", "high=2.0"],
    ),
]


@pytest.mark.parametrize("settings, parts", SETTINGS, ids=lambda x: str(x)[:40])
def test_settings_out_of_range(
    memrl: Memrl, tmp_path: Path, settings: dict[str, Any], parts: list[str]
) -> None:
    """The command line says what Python says."""
    given = TINY | settings
    answer = memrl("train", "drqn", *options(given), "--out", tmp_path / "new")
    assert_one_line(answer, *parts)
    assert answer.out == "" and list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError) as error:
        memrl_jax.make_train(configure(given))
    assert answer.err == f"memrl: {error.value}\n"


@pytest.mark.parametrize(
    "words, parts",
    [
        (
            "trian",
            [
                "command: 'trian'",
                "did you mean 'train'?",
                "train, sweep, evaluate, watch, plot, report, list, doctor, completion",
            ],
        ),
        ("--hlep", ["command: '--hlep' is unknown"]),
        ("train drnq", ["preset: 'drnq'", "did you mean 'drqn'?", "dqn, drqn"]),
        ("train drqn --sedes 3", ["--sedes, 3", "did you mean --seeds?"]),
        ("train drqn --sedes 3 --bath-size 4", ["did you mean", "--seeds", "--batch-size"]),
        ("train drqn extra", ["extra"]),
        ("train drqn --seeds", ["--seeds"]),
        ("train drqn --seeds abc", ["--seeds", "'abc'"]),
        ("train drqn --seeds 1.5", ["--seeds", "'1.5'"]),
        ("train drqn --seeds 0", ["seeds: 0 is below 1"]),
        ("train drqn --seed -1", ["seed: -1 is below 0"]),
        (
            "train drqn --seed 99999999999999999999",
            ["seed: 99999999999999999999 is above 4294967295"],
        ),
        ("train drqn --log-every 0", ["log_every: 0 is below 1"]),
        ("train drqn --evaluate-every -1", ["evaluate_every: -1 is below 1"]),
        ("train drqn --evaluate-episodes 0", ["evaluate_episodes: 0 is below 1"]),
        ("train drqn --checkpoint-every 0", ["checkpoint_every: 0 is below 1"]),
        ("train drqn --target-return nan", ["target_return: nan is not a number"]),
        (
            "train drqn --rollout-length 1 --stored-state",
            ["stored_state: True needs rollout_length"],
        ),
        ("train drqn --max-gigabytes -1", ["max_gigabytes: -1.0 is not between 0 and inf"]),
        ("train drqn --max-gigabytes 0.01", ["max_gigabytes: 8 seeds need 1", "than 0.01 GB"]),
        ("train drqn --learning-rate fast", ["--learning-rate", "'fast'"]),
        ("train drqn --td-lambda x", ["--td-lambda", "'x'"]),
        ("train drqn --encoder a", ["--encoder", "'a'"]),
        ("train drqn --memory-args features", ["--memory-args", "'features' is not name=value"]),
        ("train drqn --memory-args =8", ["--memory-args", "'=8' is not name=value"]),
        ("train --resume", ["--resume"]),
        ("train --resume nowhere", ["run: nowhere is not a run folder"]),
        ("train --resume nowhere --seeds 3", ["seeds: cannot change on resume"]),
        ("evaluate", ["runs: name at least one"]),
        ("evaluate nowhere", ["run: nowhere is not a run folder"]),
        ("evaluate nowhere --episodes x", ["--episodes", "'x'"]),
        ("watch", ["RUN"]),
        ("watch nowhere", ["run: nowhere is not a run folder"]),
        ("watch nowhere --out film.mp4", ["out: 'film.mp4' does not end in .gif"]),
        ("watch nowhere --out none/film.gif", ["out: there is no folder 'none'"]),
        ("plot", ["runs: "]),
        ("plot nowhere", ["run: nowhere is not a run folder"]),
        ("plot nowhere --out curves.jpg", ["out: 'curves.jpg'", ".png"]),
        ("list everything", ["everything"]),
    ],
)
def test_words_that_are_wrong(
    memrl: Memrl,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    parts: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = memrl(*words.split())
    assert_one_line(answer, *parts)
    assert answer.out == "" and list(tmp_path.iterdir()) == []


def test_mistakes_are_plain_text_in_a_terminal(
    memrl: Memrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert_one_line(memrl("train", "drqn", "--sedes", 3), "--sedes, 3; did you mean --seeds?\n")


@pytest.mark.parametrize(
    "words, parts",
    [
        ("evaluate {run} --episodes 0", ["episodes: 0 is below 1"]),
        ("evaluate {run} --seed -1", ["seed: -1 is below 0"]),
        ("watch {run} --seed 3", ["seed: 3 is not between 0 and 2"]),
        ("watch {run} --seed -1", ["seed: -1 is below 0"]),
        ("watch {run} --episodes 0", ["episodes: 0 is below 1"]),
        (
            "plot {run} --what retrun",
            ["what: 'retrun' is unknown", "did you mean 'return'?", "evaluation_return"],
        ),
        ("plot {run} --what step", ["what: 'step' is unknown"]),
        ("plot {run} --out {run}/none/curves.png", ["out: there is no folder '{run}/none'"]),
        ("plot {run}/config.json", ["run: {run}/config.json", "Not a directory"]),
        ("train drqn --out {run}", ["out: {run} exists", "--resume {run}"]),
        ("train drqn --out {run}/config.json", ["out: {run}/config.json exists and is no folder"]),
        ("train --resume {run} --total-steps 320", ["total_steps: 320 is below 640"]),
        ("train --evaluate-every 0 --resume {run}", ["evaluate_every: 0 is below 1"]),
        (
            "train --resume={run} --learning-rate 1",
            ["learning_rate: cannot change on resume (what can: total_steps, "],
        ),
        ("train drqn --out {run}/config.json/x", ["out: {run}/config.json/x", "Not a directory"]),
    ],
)
def test_words_that_are_wrong_for_a_run(
    memrl: Memrl, copy: Path, words: str, parts: list[str]
) -> None:
    before = contents(copy)
    answer = memrl(*words.format(run=copy).split())
    assert_one_line(answer, *(part.format(run=copy) for part in parts))
    assert answer.out == "" and contents(copy) == before


def rewrite(*where: str, value: Any) -> Callable[[Path], None]:
    """Return what sets one entry of a run's config.json."""

    def tamper(run: Path) -> None:
        given = json.loads((run / "config.json").read_text())
        entry = given
        for name in where[:-1]:
            entry = entry[name]
        entry[where[-1]] = value
        (run / "config.json").write_text(json.dumps(given))

    return tamper


def replace(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Return what changes the bytes of a file."""

    def tamper(run: Path) -> None:
        (run / name).write_bytes(change((run / name).read_bytes()))

    return tamper


def flip(place: float) -> Callable[[bytes], bytes]:
    """Return what changes one bit of the byte at a fraction of the length."""

    def change(data: bytes) -> bytes:
        i = int(place * len(data))
        return data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]

    return change


CONFIG, LAST = "config.json", "checkpoints/000000000640.ckpt"
DAMAGE: dict[str, tuple[str, Callable[[Path], None], list[str]]] = {
    "config truncated": (
        "train --resume",
        replace(CONFIG, lambda data: data[:-9]),
        ["config.json cannot be read"],
    ),
    "config binary": (
        "evaluate",
        replace(CONFIG, lambda data: b"\x80\xff"),
        ["config.json cannot be read"],
    ),
    "config of another kind": (
        "plot",
        replace(CONFIG, lambda data: b"[1]"),
        ["config.json cannot be read"],
    ),
    "config without its agent": (
        "evaluate",
        replace(CONFIG, lambda data: b'{"config": {}, "run": {}}'),
        ["config: agent is missing"],
    ),
    "config of an unknown agent": (
        "evaluate",
        rewrite("config", "agent", "name", value="dqm"),
        ["agent: 'dqm' is unknown", "did you mean 'dqn'?"],
    ),
    "config with an unknown setting": (
        "evaluate",
        rewrite("config", "enviroment", value="TMaze"),
        ["config: 'enviroment' is unknown", "did you mean 'environment'?"],
    ),
    "config with a number for a list": (
        "evaluate",
        rewrite("config", "agent", "body", "encoder", value=8),
        ["config: agent: body: encoder=8 is not a sequence"],
    ),
    "config with a text for a number": (
        "evaluate",
        rewrite("config", "agent", "td_lambda", value="half"),
        ["config: agent: td_lambda='half' is not a number or None"],
    ),
    "config with a text for a switch": (
        "train --resume",
        rewrite("config", "agent", "body", "previous_action", value="no"),
        ["config: agent: body: previous_action='no' is not True or False"],
    ),
    "run options of another kind": (
        "train --resume",
        rewrite("run", value=5),
        ["config.json cannot be read"],
    ),
    "unknown run option": (
        "train --resume",
        rewrite("run", "log_evry", value=3),
        ["config.json: 'log_evry' is unknown", "did you mean 'log_every'?"],
    ),
    "run option out of range": (
        "train --resume",
        rewrite("run", "seeds", value="three"),
        ["seeds: 'three' is not a whole number"],
    ),
    "checkpoint truncated": (
        "train --resume",
        replace(LAST, lambda data: data[:-100]),
        [LAST, "truncated, expected", "found"],
    ),
    "checkpoint empty": (
        "evaluate",
        replace(LAST, lambda data: b""),
        [LAST, "not a memrl_jax checkpoint"],
    ),
    "checkpoint foreign": (
        "train --resume",
        replace(LAST, lambda data: b"PK\x03\x04" + data),
        [LAST, "not a memrl_jax checkpoint"],
    ),
    "checkpoint with a byte changed": (
        "train --resume",
        replace(LAST, flip(0.9)),
        [LAST, "checksum mismatch", "leaves"],
    ),
    "checkpoint with a byte of the header changed": (
        "evaluate",
        replace(LAST, flip(0.01)),
        [LAST, "checksum mismatch", "header"],
    ),
    "checkpoint of another shape": (
        "train --resume",
        rewrite("config", "agent", "body", "memory_args", "features", value=16),
        [LAST, "memory_args is {'features': 8} in the file, {'features': 16} in config.json"],
    ),
    "checkpoint of another memory": (
        "evaluate",
        rewrite("config", "agent", "body", "memory", value="lstm"),
        [LAST, "memory is 'gru' in the file, 'lstm' in config.json"],
    ),
    "no checkpoint": (
        "evaluate",
        lambda run: shutil.rmtree(run / "checkpoints"),
        ["run: ", "has no checkpoint"],
    ),
    "metrics truncated": (
        "plot",
        replace("metrics.npz", lambda data: data[:100]),
        ["metrics: ", "metrics.npz cannot be read"],
    ),
    "metrics with a byte changed": (
        "plot",
        replace("metrics.npz", flip(0.5)),
        ["metrics: ", "metrics.npz cannot be read"],
    ),
    "metrics foreign": (
        "train --resume",
        replace("metrics.npz", lambda data: b"hello"),
        ["metrics: ", "metrics.npz cannot be read"],
    ),
    "no metrics": (
        "plot",
        lambda run: (run / "metrics.npz").unlink(),
        ["run: ", "has no metrics yet"],
    ),
    "log foreign": (
        "train --resume",
        replace("progress.jsonl", lambda data: b"hello\n" + data),
        ["run: ", "progress.jsonl cannot be read"],
    ),
}


@pytest.mark.parametrize("command, damage, parts", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_runs(
    memrl: Memrl, copy: Path, command: str, damage: Callable[[Path], None], parts: list[str]
) -> None:
    damage(copy)
    before = contents(copy)
    assert_one_line(memrl(*command.split(), copy), *parts)
    assert contents(copy) == before


def test_a_loss_that_is_not_finite(memrl: Memrl, copy: Path) -> None:
    (copy / LAST).unlink()
    place = copy / "checkpoints/000000000480.ckpt"
    _, settings, run = saved.read(str(copy))
    carry = checkpoint.load(place, preparing.make_program(settings, run).shapes)
    for x in jax.tree.leaves(carry.train.agent.learner.params):
        x[1] = np.nan
    checkpoint.save(place, carry, checkpoint.about(place))
    answer = memrl("train", "--resume", copy)
    assert_one_line(answer, "loss: nan at step ", "of seed 1, timestep 488", "checkpoint")
    assert [path.name for path in (copy / "checkpoints").iterdir()] == [place.name]


def test_train(trained: tuple[Path, str]) -> None:
    out, said = trained
    _, settings, run = saved.read(str(out))
    assert settings == configure(TINY)
    assert run == Run(out=str(out), log_every=7, **RUN)
    assert re.search(r"kB of agent and .* for 3 seeds\n", said)
    assert re.search(r"\ncompiled in \d+ s\n", said)
    for part in ("640 / 640 timesteps, 608 steps", "steps/s", "last evaluation: IQM over seeds"):
        assert part in said
    assert "75 %" in said and re.search(r"│ tiny +│ 3 +│", said)
    assert said.endswith(f"finished: {out}\n")


def test_resume_of_a_finished_run(memrl: Memrl, copy: Path) -> None:
    before = contents(copy)
    answer = memrl("train", "--resume", copy)
    assert answer.code == 0 and answer.err == ""
    assert answer.out.endswith(f"finished: {copy}\n")
    assert contents(copy) == before


def test_resume_for_longer(memrl: Memrl, copy: Path) -> None:
    answer = memrl("train", "--total-steps", 720, "--resume", copy, "--evaluate-every", 80)
    assert answer.code == 0 and answer.err == ""
    assert "720 / 720 timesteps" in answer.out and answer.out.endswith(f"finished: {copy}\n")
    given = json.loads((copy / "config.json").read_text())
    changed = {"total_steps": [640, 720], "evaluate_every": [320, 80]}
    assert given["history"] == [{"timestep": 640, "changed": changed}]
    assert (given["config"]["total_steps"], given["run"]["evaluate_every"]) == (720, 80)


def test_an_interrupted_run_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("runs") / ("a [long] name " * 10)
    assert training.follow(lambda say, report: Result(path, {}, finished=False)) == 130
    assert f"memrl train --resume {path}\n" in capsys.readouterr().out


def test_output_that_nothing_reads_ends_no_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in `memrl ... | head -1`: what was begun is finished, and that is said once."""
    done = []

    def trained(arguments: list[str]) -> int:
        for step in range(3):
            print("step", step, flush=True)
            Console().print("step", step)
            done.append(step)
        return 0

    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(listing, "list_names", trained)
    with open(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert cli.main(["list"]) == 0
    assert done == [0, 1, 2]
    assert capsys.readouterr().err == "memrl: nothing reads the output any more; going on\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_letters_that_a_terminal_lacks_are_escaped(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    monkeypatch.setattr(listing, "list_names", lambda arguments: print("finished: 学") or 0)
    assert cli.main(["list"]) == 0
    assert written.getvalue() == "finished: 学\n".encode(encoding, "backslashreplace")


def test_a_message_of_several_lines_is_one(memrl: Memrl, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(arguments: list[str]) -> int:
        raise ValueError("x: FrozenDict({\n    a: 1,\n}) is wrong\n")

    monkeypatch.setattr(listing, "list_names", fails)
    assert_one_line(memrl("list"), "memrl: x: FrozenDict({ a: 1, }) is wrong\n")


def test_ctrl_c_elsewhere(memrl: Memrl, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(listing, "list_names", interrupted)
    assert memrl("list") == (130, "", "memrl: interrupted\n")


@pytest.mark.parametrize("terminal", [False, True])
def test_progress(terminal: bool) -> None:
    wide = 140 if terminal else 40
    console = Console(file=io.StringIO(), force_terminal=terminal, width=wide)
    with shown.progress_bar(console) as report:
        console.print("compiling takes a while")
        for steps in range(0, 1000, 20):
            report(Progress(steps, steps, 1000, 5432.1, float("nan"), None))
        report(Progress(900, 1000, 1000, 5432.1, 0.5, 0.25))
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    for part in ("a while\n", "1,000 / 1,000 timesteps, 900 steps", "5,432 steps/s"):
        assert part in said
    assert "return 0.5, greedy 0.25" in said
    assert "nan" not in said
    if terminal:
        plain = re.sub(r"\x1b\[[\d;?]*\w", "", said)
        assert re.search(r"compiling .* 0:00:00 .*return -", plain)
    else:
        assert len(said.splitlines()) == 1 + 1 + 10
        assert "\ncompiled in 0 s\n" in said and said.count("return -\n") == 9


def test_tables_say_how_many_seeds_there_were_and_what_intervals_are_worth() -> None:
    console = Console(file=io.StringIO(), width=100)
    rows = {"a [red] $b$": {"return": np.array([0.25, 0.75, 0.5])}, "c": {"return": np.ones(1)}}
    console.print(shown.table(rows, "evaluation"))
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert re.search(r"│ a \[red\] \$b\$ │ 3 +│ 0.5 \[0.25, 0.75\] +│", said)
    assert re.search(r"│ c +│ 1 +│ 1 +│", said)  # one seed has no interval
    assert "covers about 75 % with 3 seeds" in re.sub(r"\s+", " ", said)


NUMBER = r"-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]"


def test_evaluate(memrl: Memrl, copy: Path) -> None:
    before = contents(copy)
    answer = memrl("evaluate", copy, "--episodes", 5)
    assert answer.code == 0 and answer.err == ""
    said = re.sub(r"\s+", " ", answer.out)
    assert "copy: greedy episodes" in said
    assert "95 % bootstrap interval over 5 episodes, too narrow for so few" in said
    assert "IQM: 95 % bootstrap interval; covers about 75 % with 3 seeds" in said
    for row in ("0", "1", "2", "IQM of 3 seeds"):
        assert re.search(rf"│ {row} +│ {NUMBER} +│ {NUMBER} +│", answer.out), row
    assert contents(copy) == before


def test_runs_of_one_config_are_evaluated_as_one(memrl: Memrl, jobs: list[Path]) -> None:
    answer = memrl("evaluate", *jobs, "--episodes", 1)
    assert answer.code == 0 and answer.err == ""
    said = re.sub(r"\s+", " ", answer.out)
    assert "tiny: greedy episodes" in said and "a seed: 1 episode, no interval" in said
    assert "IQM: 95 % bootstrap interval; covers about 92 % with 6 seeds" in said
    rows = re.findall(r"│ tiny-(\d), (\d) +│ -?[\d.]+ +│ \d+ +│", answer.out)
    assert rows == [(job, seed) for job in "01" for seed in "012"]
    assert re.search(rf"│ IQM of 6 seeds of 2 runs +│ {NUMBER} +│", answer.out)


def test_watch(memrl: Memrl, copy: Path, tmp_path: Path) -> None:
    before, out = contents(copy), tmp_path / "film.gif"
    answer = memrl("watch", copy, "--seed", 2, "--episodes", 2, "--out", out)
    assert answer.code == 0 and answer.err == ""
    *lines, last = answer.out.splitlines()
    said = [re.fullmatch(r"episode (\d): (\d+) steps, return -?[\d.]+", line) for line in lines]
    assert last == str(out) and [match and match[1] for match in said] == ["0", "1"]
    with Image.open(out) as film:
        frames = film.n_frames  # type: ignore[attr-defined]
    assert frames == sum(int(match[2]) for match in said if match)
    assert contents(copy) == before and sorted(tmp_path.iterdir()) == [copy, out]


@pytest.mark.parametrize("what", ["evaluation_return", "loss"])
def test_plot(memrl: Memrl, jobs: list[Path], tmp_path: Path, what: str) -> None:
    out = tmp_path / "curves.png"
    answer = memrl("plot", *jobs, "--what", what, "--out", out)
    assert answer == (0, f"{out}\n", "")
    assert out.read_bytes().startswith(b"\x89PNG\r\n")
    assert sorted(path for path in tmp_path.iterdir() if path not in jobs) == [out]


@pytest.fixture
def jobs(trained: tuple[Path, str], tmp_path: Path) -> list[Path]:
    """Two runs of one config that began from other seeds."""
    paths = [Path(shutil.copytree(trained[0], tmp_path / f"tiny-{i}")) for i in range(2)]
    rewrite("run", "seed", value=1)(paths[1])
    for path in (paths[1] / "checkpoints").iterdir():
        said = json.loads(damage.header(path.read_bytes()))
        said["about"]["settings"]["seed"] = 1
        path.write_bytes(damage.with_header(path.read_bytes(), json.dumps(said).encode()))
    return paths


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `memrl plot` has drawn last: the series, and the words around them."""
    last: dict[str, Any] = {}
    draw = lambda series, path, **words: last.update(series=series, **words)  # noqa: E731
    monkeypatch.setattr(plot, "curves", draw)
    return last


def test_runs_of_one_config_are_one_curve(
    memrl: Memrl, jobs: list[Path], drawn: dict[str, Any]
) -> None:
    assert memrl("plot", *jobs).code == 0
    ((name, (steps, values)),) = drawn["series"].items()
    assert name == "tiny, 2 runs"
    assert steps.tolist() == [304, 608] and values.shape == (6, 2)
    assert drawn["ylabel"] == "return of greedy episodes"
    assert drawn["title"] == "TMaze: return of greedy episodes, 6 seeds of 2 runs"
    assert memrl("plot", *jobs, "--separate", "--what", "loss").code == 0
    assert list(drawn["series"]) == ["tiny-0", "tiny-1"]
    assert drawn["title"] == "TMaze: loss, 3 seeds"


def test_runs_of_other_configs_are_told_apart(
    memrl: Memrl, jobs: list[Path], tmp_path: Path, drawn: dict[str, Any]
) -> None:
    other = [Path(shutil.copytree(path, tmp_path / "other" / path.name)) for path in jobs]
    for path in other:
        rewrite("config", "agent", "optimizer", "learning_rate", value=0.5)(path)
    assert memrl("plot", *jobs, *other).code == 0
    assert list(drawn["series"]) == ["tiny, 2 runs", "other/tiny, 2 runs"]
    (tmp_path / "a").mkdir()
    alike = [path.rename(tmp_path / "a" / f"tiny-{i + 7}") for i, path in enumerate(other)]
    jobs = [path.rename(tmp_path / "a" / path.name) for path in jobs]
    assert memrl("plot", *jobs, *alike).code == 0
    names = ["tiny (learning_rate=0.001), 2 runs", "tiny (learning_rate=0.5), 2 runs"]
    assert list(drawn["series"]) == names


@pytest.mark.parametrize("command", ["plot", "evaluate"])
def test_seeds_count_once(memrl: Memrl, jobs: list[Path], command: str) -> None:
    first, second = jobs
    assert_one_line(memrl(command, first, second, first), f"runs: {first} is named twice")
    rewrite("run", "seed", value=0)(second)
    said = f"runs: {first} and {second} are of one config and have the same seeds"
    assert_one_line(memrl(command, *jobs), said)


def test_a_curve_needs_the_same_steps(memrl: Memrl, jobs: list[Path], tmp_path: Path) -> None:
    short = history.until(history.read(jobs[1] / "metrics.npz"), 320)
    np.savez(jobs[1] / "metrics.npz", **short)  # type: ignore[arg-type]
    said = f"{jobs[0]} (2 up to timestep 640) and {jobs[1]} (1 up to timestep 320) are of one"
    out = tmp_path / "curves.png"
    assert_one_line(memrl("plot", *jobs, "--out", out), said, "--separate")
    assert memrl("plot", *jobs, "--out", out, "--separate").code == 0


def test_list(memrl: Memrl) -> None:
    answer = memrl("list")
    assert answer.code == 0 and answer.err == ""
    listed = re.split(r"[\s,]+", answer.out)
    for registry in (ENVIRONMENTS, MEMORIES, REPLAYS, AGENTS, presets):
        assert set(registry) <= set(listed)
    assert all(len(line) <= 80 for line in answer.out.splitlines())


@pytest.mark.parametrize("words", ["", "-h", "--help"])
def test_help(memrl: Memrl, words: str) -> None:
    answer = memrl(*words.split())
    assert answer == (0, cli.HELP, "")


@pytest.mark.parametrize("words", ["train", "train --help", "train -h"])
def test_help_names_the_presets(memrl: Memrl, words: str) -> None:
    answer = memrl(*words.split())
    assert answer.code == 0 and answer.err == ""
    assert f"presets: {', '.join(presets)}" in answer.out


@pytest.mark.parametrize(
    "command, cls",
    [("evaluate", evaluating.Evaluate), ("watch", drawing.Watch), ("plot", drawing.Plot)],
)
def test_help_of_a_command(memrl: Memrl, command: str, cls: type) -> None:
    answer = memrl(command, "--help")
    assert answer.code == 0 and answer.err == ""
    said = squeezed(answer.out)
    for name, text in documented(cls).items():
        assert squeezed(text) in said, name


PARTS = [BodyConfig, LayersConfig, ReplayConfig, OptimizerConfig, ExplorationConfig]


TOLD = {"taken"}  # is not given


@pytest.mark.parametrize("cls", [config.Config, DQNConfig, *PARTS, Run])
def test_help_lists_every_setting(memrl: Memrl, cls: type) -> None:
    answer = memrl("train", "drqn", "--help")
    assert answer.code == 0 and answer.err == ""
    texts = documented(cls)
    assert list(texts) == [f.name for f in dataclasses.fields(cls)]
    for name, text in texts.items():
        if name in TOLD:
            assert f"--{name}" not in answer.out
            continue
        if not is_part(hints(cls)[name]):  # settings of a part are listed one by one
            option = {"imports": "import"}.get(name, name.replace("_", "-"))
            assert re.search(rf"\n\W+--{option}[ ,]", answer.out), name
        assert squeezed(text) in squeezed(answer.out), name


def documented(cls: type) -> dict[str, str]:
    """Return the fields of a class with the text that stands below each in its source."""
    (tree,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(tree, ast.ClassDef)
    texts = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            assert isinstance(text, ast.Expr), field.target.id
            texts[field.target.id] = ast.literal_eval(text.value)
    return texts


def squeezed(text: str) -> str:
    """Leave out blanks and the frame, so that wrapping does not matter."""
    return re.sub(r"[\s│]+", "", text)


def test_help_comes_at_once() -> None:
    program = "import sys; from memrl_jax import cli; cli.main(['--help']); print(*sys.modules)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.startswith(cli.HELP)
    assert not {"jax", "numpy", "tyro"} & set(done.stdout.split())
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_jax_may_have_started() -> None:
    """The number of devices can then no longer be chosen."""
    program = "import jax; jax.devices(); from memrl_jax.cli import main; main(['list'])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "CartPole-v1" in done.stdout and done.stderr == ""


def test_a_platform_that_is_none() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "memrl_jax.cli", "list"],
        env=os.environ | {"JAX_PLATFORMS": "foo"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch("memrl: JAX_PLATFORMS: 'foo' cannot be used .+\n", done.stderr)


def test_exit_status_of_the_program() -> None:
    command = [sys.executable, "-m", "memrl_jax.cli", "train", "drqn", "--seeds", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "memrl: seeds: 0 is below 1\n")
