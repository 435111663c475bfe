"""What becomes of a run that is killed, whose files are damaged, or that two processes write.

    python -m benchmarks.faults [--quick]

A small run is killed (SIGKILL) at random moments and resumed until it ends; begun again from every
state that its folder has between two operations on files; resumed with damaged files; and written
by two processes at once. It must end with the bits of a run that nothing happened to, or be
refused in one line.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

import memrl_jax
from benchmarks import damage, report
from memrl_jax import experiment, folder, history
from memrl_jax.program import Program, Run

RESULTS = Path(__file__).parent / "results"
RUNS = 4  # in a process that is killed
AGENT = {"batch_size": 4, "capacity": 160, "learning_starts": 80}
SMALL = memrl_jax.presets["dqn"].replace(
    environment="TMaze",
    environments=2,
    rollout_length=4,
    encoder=(8,),
    head=(),
    total_steps=640,
    agent=memrl_jax.presets["dqn"].agent.replace(**AGENT),
)
LONG = SMALL.replace(total_steps=16_000)  # seconds, for processes that are killed or disturbed
SPACINGS = {"log_every": 80, "evaluate_every": 160, "checkpoint_every": 240}
RUN = Run(seeds=2, evaluate_episodes=4, **SPACINGS)  # type: ignore[arg-type]
ONE_REFUSED = "one refused, the other's files whole"
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


def train(out: Path, config: memrl_jax.Config, report: experiment.Report = nothing) -> bool:
    """Start a run, or go on with it; return whether it has finished."""
    if (out / "config.json").exists():
        return experiment.resume(str(out), nothing, report).finished
    run = Run(**{**vars(RUN), "out": str(out)})
    return experiment.start(config, run, nothing, report).finished


def content(root: Path) -> Tree:
    paths = sorted(root.rglob("*"))
    return {str(x.relative_to(root)): x.read_bytes() if x.is_file() else None for x in paths}


def same(out: Path, like: Path) -> bool:
    """Return whether no bit differs: checkpoints, metrics, config, log but for its times."""
    return _timeless(out) == _timeless(like)


def _timeless(out: Path) -> dict[str, Any]:
    files: dict[str, Any] = content(out)
    config = json.loads(files["config.json"])
    config["run"].pop("out")
    lines = [json.loads(line) | {"time": 0} for line in files["progress.jsonl"].splitlines()]
    return files | {"config.json": config, "progress.jsonl": lines}


@contextmanager
def compiled_once() -> Iterator[None]:
    """Share compiled functions between the runs of this process."""
    original = experiment.make_program

    @cache
    def made(config: memrl_jax.Config, run: Run) -> Program:
        return original(config, run)

    def make_program(config: memrl_jax.Config, run: Run) -> Program:
        return made(config, Run(**{**vars(run), "out": ""}))._replace(run=run)

    experiment.make_program = make_program
    try:
        yield
    finally:
        experiment.make_program = original


# Kills: processes of their own.


class Undisturbed(NamedTuple):
    """A long run that nothing happens to."""

    out: Path
    startup: float  # seconds before it trains
    seconds: float  # that it trains


def undisturbed(out: Path) -> Undisturbed:
    began = time.perf_counter()
    with process("train", LONG.total_steps, out) as child:
        wait_for(child, "training")
        training = time.perf_counter()
        wait_for(child, f"finished {out}")
    return Undisturbed(out, training - began, time.perf_counter() - training)


def kills(
    place: Path, whole: Undisturbed, count: int, draw: random.Random, say: Callable[[str], None]
) -> Figures:
    """Kill processes that train several runs each; resume these until they end."""
    new = (place / f"killed-{number}" for number in itertools.count())
    ends: Counter[str] = Counter()
    running = list(itertools.islice(new, RUNS))
    killed = 0
    while running:
        ended = _train(running, whole, draw if killed < count else None)
        killed += len(running) - len(ended)
        ends.update(x if x != "finished" else _bits(out, whole.out) for out, x in ended.items())
        more = new if killed < count else ()
        running = [x for x in running if x not in ended] + list(itertools.islice(more, len(ended)))
        say(f"{killed} kills")
    return Figures(f"{killed} kills", ("same bits",), ends)


def _bits(out: Path, like: Path) -> str:
    return "same bits" if same(out, like) else "other bits"


def _train(runs: list[Path], whole: Undisturbed, draw: random.Random | None) -> dict[Path, str]:
    """Train runs in one process, and kill that if told to; return how those ended that did."""
    with process("train", LONG.total_steps, *runs) as child:
        if draw and draw.random() < 0.2:
            time.sleep(draw.uniform(0, whole.startup))
        elif draw and wait_for(child, "training"):
            time.sleep(draw.uniform(0, whole.seconds))
        if draw:
            child.kill()
        assert child.stdout is not None
        lines = [line.split(maxsplit=1) for line in child.stdout if " " in line]
    return {Path(path.strip()): end for end, path in lines}


@contextmanager
def process(*words: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a command of this file in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.faults", *map(str, words)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def wait_for(child: subprocess.Popen[str], word: str) -> bool:
    assert child.stdout is not None
    return any(line.strip() == word for line in iter(child.stdout.readline, ""))


def told(line: str) -> None:
    print(line, flush=True)


def child_train(config: memrl_jax.Config, runs: list[Path]) -> None:
    """Train runs side by side, saying when the last begins and when each ends."""
    began = [threading.Event() for _ in runs]

    def run(out: Path, began: threading.Event) -> None:
        try:
            if train(out, config, lambda _: began.set()):
                told(f"finished {out}")
        except Exception as error:
            told(f"{type(error).__name__}:{error}".replace(" ", "_") + f" {out}")
        began.set()

    with compiled_once():
        threads = [threading.Thread(target=run, args=x) for x in zip(runs, began, strict=True)]
        for thread, event in zip(threads, began, strict=True):
            thread.start()
            event.wait()  # what it has compiled serves the next
        told("training")
        for thread in threads:
            thread.join()


# Writers: two processes that are told to train the same run.


def writers(place: Path, whole: Undisturbed, count: int, draw: random.Random) -> Figures:
    """Start or resume the same run in two processes at about the same time."""
    early = place / "early"
    with process("train", LONG.total_steps, early) as child:
        wait_for(child, "training")
        time.sleep(whole.seconds / 4)
    ends: Counter[str] = Counter()
    with process("obey") as first, process("obey") as second:
        for child in (first, second):  # compiled before anything is timed
            _tell(child, place / f"warm-{child.pid}")
            _answer(child)
        for i in range(count):
            out = place / f"twice-{i}"
            if i % 2:
                shutil.copytree(early, out)
            _tell(first, out)
            time.sleep(draw.uniform(0, 0.2))
            _tell(second, out)
            answers = {_answer(child): child.pid for child in (first, second)}
            ends[_judge(answers, out, whole.out)] += 1
    return Figures(f"{count} times two writers", (ONE_REFUSED,), ends)


def _judge(answers: Mapping[str, int], out: Path, whole: Path) -> str:
    done, *refused = sorted(answers)
    busy = f"run: {out} is being written by process {answers[done]} on "
    known = busy, f"out: {out} exists; continue it with --resume {out}"
    if done != "finished" or len(refused) != 1 or not refused[0].startswith(known):
        return f"other answers: {sorted(answers)}"
    return ONE_REFUSED if same(out, whole) else "other bits"


def _tell(child: subprocess.Popen[str], out: Path) -> None:
    assert child.stdin is not None
    child.stdin.write(f"{out}\n")
    child.stdin.flush()


def _answer(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def child_obey() -> None:
    """Train what is named on a line of the input, and say how it went."""
    with compiled_once():
        for line in sys.stdin:
            try:
                told("finished" if train(Path(line.strip()), LONG) else "interrupted")
            except Exception as error:
                told(str(error).replace("\n", " / "))


# States: everything that a disk can hold between two operations on files.


def states(place: Path, whole: Path, every: int = 1) -> Figures:
    """Go on from every state that the folder of a run, and of its resume, was in."""
    begun = recorded(place / "begun", lambda out: train(out, SMALL))
    measured = [x for x in begun if "run/metrics.npz" in x]
    restore(measured[len(measured) // 2], place / "resumed")
    resumed = recorded(place / "resumed", lambda out: train(out, SMALL))
    cut = [x for seen in (begun, resumed) for pair in itertools.pairwise(seen) for x in torn(*pair)]
    seen = [*begun, *resumed, *cut][::every]
    ends: Counter[str] = Counter()
    for state in seen:
        again = place / "again"
        restore(state, again)
        ends[_gone_on(again, whole)] += 1
        shutil.rmtree(again)
    return Figures(f"{len(seen)} states between operations on files", ("same bits",), ends)


def _gone_on(root: Path, whole: Path) -> str:
    try:
        finished = train(root / "run", SMALL)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if [x.name for x in root.iterdir()] != ["run"]:
        return "something left beside the run"
    return "same bits" if finished and same(root / "run", whole) else "other bits"


def recorded(root: Path, train: Callable[[Path], Any]) -> list[Tree]:
    """Return what `root` holds before and after every operation on files of a run in it."""
    root.mkdir(exist_ok=True)
    seen = [content(root)]

    def note() -> None:
        if (now := content(root)) != seen[-1]:
            seen.append(now)

    def noting(operation: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any, **options: Any) -> Any:
            note()
            try:
                return operation(*given, **options)
            finally:
                note()

        return noted

    names = ("mkdir", "rename", "replace", "unlink", "fsync", "ftruncate", "pwrite")
    before = {name: getattr(os, name) for name in names}
    for name in names:
        setattr(os, name, noting(before[name]))
    try:
        train(root / "run")
    finally:
        for name in names:
            setattr(os, name, before[name])
    return seen


def torn(before: Tree, after: Tree) -> list[Tree]:
    """Return `after` with a file that has grown, not been renamed, since `before` cut short."""
    out = []
    for name, data in after.items():
        old = before.get(name) or b""
        renamed = data in before.values()
        if data is not None and not renamed and len(data) > len(old) and data.startswith(old):
            out += [after | {name: data[:end]} for end in {(len(old) + len(data)) // 2, len(old)}]
    return out


def restore(state: Tree, root: Path) -> None:
    root.mkdir()
    for name, data in state.items():
        if data is None:
            (root / name).mkdir(parents=True)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)


# Mutations: damaged files.


def mutations(
    place: Path, whole: Path, what: str, damages: Iterator[damage.Damage], draw: random.Random
) -> Figures:
    """Resume a run that had finished, its files damaged, within seconds."""
    good = ("refused in one line", "answered by the checkpoint before", "harmless: same numbers")
    ends: Counter[str] = Counter()
    for number, spoil in enumerate(damages):
        out = place / f"{what}-{number}"
        shutil.copytree(whole, out)
        spoil(draw, out)
        ends[_resumed(out, whole)] += 1
        shutil.rmtree(out)
    return Figures(f"{ends.total()} mutations of {what}", good, ends)


def _resumed(out: Path, whole: Path) -> str:
    try:
        with limit(60):
            experiment.resume(str(out), nothing, nothing)
    except (ValueError, OSError) as error:
        return _refused(out, whole, str(error))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "harmless: same numbers" if numbers(out) == numbers(whole) else "other numbers"


def _refused(out: Path, whole: Path, line: str) -> str:
    """Check that the line is one and names a file; do what it says of the checkpoint before."""
    if len(line.splitlines()) != 1 or str(out) not in line:
        return f"refused in other words: {line!r}"
    if "which is whole" not in line:
        return "refused in one line"
    newest = Path(line.partition(": ")[0])
    shutil.rmtree(newest) if newest.is_dir() else newest.unlink()
    experiment.resume(str(out), nothing, nothing)
    return "answered by the checkpoint before" if same(out, whole) else "other bits"


def numbers(out: Path) -> tuple[Any, ...]:
    """Return what a run has learned and measured, and what it was told to do, up to its end."""
    _, config, options = folder.read(str(out))
    end = SMALL.total_steps
    past = history.until(history.read(out / "metrics.npz"), end)
    newest = (out / f"checkpoints/{end:012d}.ckpt").read_bytes()
    log = (out / "progress.jsonl").read_text().splitlines()
    steps = [step for line in log if (step := json.loads(line)["step"]) <= end]
    leaves = newest.partition(damage.header(newest))[2][32:-32]
    return folder.settings(config, options), history.digest(past), leaves, steps


@contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Raise an error after so many seconds."""

    def late(*_: Any) -> None:
        raise RuntimeError(f"no answer in {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# All of it.


def figures(place: Path, quick: bool, say: Callable[[str], None]) -> Iterator[Figures]:
    """Try everything, in folders within `place`; the quickest first."""
    draw = random.Random(0)
    with compiled_once():
        small = place / "small"
        train(small, SMALL)
        say("states")
        yield states(place, small)
        say("mutations")
        checkpoints = damage.of_checkpoints(draw, 40 if quick else 300)
        yield mutations(place, small, "checkpoints", checkpoints, draw)
        others = damage.of_others(draw, 20 if quick else 100)
        yield mutations(place, small, "other files", others, draw)
    whole = undisturbed(place / "long")
    say("two writers")
    yield writers(place, whole, 2 if quick else 20, draw)
    yield kills(place, whole, 5 if quick else 100, draw, say)


def cached(place: Path) -> None:
    """Let the processes that are started share what they compile."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(place)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few of each, in a minute")
    quick = parser.parse_args().quick
    console = Console()
    with tempfile.TemporaryDirectory() as place, console.status("") as status:
        cached(Path(place) / "compiled")
        found = list(figures(Path(place), quick, status.update))
    table = Table("trials", "ended", "to reach: all", "")
    for x in found:
        ends = "\n".join(f"{count} {end}" for end, count in x.ends.items())
        table.add_row(x.name, ends, "\n".join(x.good), "reached" if x.reached else "not reached")
    console.print(table)
    ended = {x.name: {"ends": x.ends, "reached": x.reached} for x in found}
    path = RESULTS / f"faults{'-quick' * quick}.json"
    report.save(path, {"machine": report.machine(()), "trials": ended})
    console.print(f"figures: {path}")
    return 0 if all(x.reached for x in found) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        steps, *runs = sys.argv[2:]
        child_train(SMALL.replace(total_steps=int(steps)), [Path(out) for out in runs])
    elif sys.argv[1:2] == ["obey"]:
        child_obey()
    else:
        sys.exit(main())
