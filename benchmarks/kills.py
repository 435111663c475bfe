"""Runs in child processes, which are killed, or which both train the same run.

`python -m benchmarks.kills train STEPS RUN ...` is a child to be killed; one with `obey` trains the
runs named on its standard input.
"""

import itertools
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import memrl_jax
from benchmarks.trials import LONG, SMALL, Figures, compiled_once, same, train

RUNS = 4  # in a process that is killed
ONE_REFUSED = "one refused, the other's files whole"


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
        killed += len(ended) < len(running)
        ends.update(x if x != "finished" else _bits(out, whole.out) for out, x in ended.items())
        more = new if killed < count else ()
        running = [x for x in running if x not in ended] + list(itertools.islice(more, len(ended)))
        say(f"{killed} kills")
    return Figures(f"{killed} kills of a process with {RUNS} runs", ("same bits",), ends)


def _bits(out: Path, like: Path) -> str:
    return "same bits" if same(out, like) else "other bits"


def _train(runs: list[Path], whole: Undisturbed, draw: random.Random | None) -> dict[Path, str]:
    """Train runs in one process, killed if `draw` is given; return how those ended that did."""
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
    command = [sys.executable, "-m", "benchmarks.kills", *map(str, words)]
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
            event.wait()  # so that the next can use what this one has compiled
        told("training")
        for thread in threads:
            thread.join()


def writers(place: Path, whole: Undisturbed, count: int, draw: random.Random) -> Figures:
    """Start or resume the same run in two processes at about the same time."""
    early = place / "early"
    with process("train", LONG.total_steps, early) as child:
        wait_for(child, "training")
        time.sleep(whole.seconds / 4)
    ends: Counter[str] = Counter()
    with process("obey") as first, process("obey") as second:
        for child in (first, second):  # compile before anything is timed
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
    """Train the run named on each line of the input, and print how it ended."""
    with compiled_once():
        for line in sys.stdin:
            try:
                told("finished" if train(Path(line.strip()), LONG) else "interrupted")
            except Exception as error:
                told(str(error).replace("\n", " / "))


if __name__ == "__main__":
    if sys.argv[1] == "train":
        steps, *runs = sys.argv[2:]
        child_train(SMALL.replace(total_steps=int(steps)), [Path(out) for out in runs])
    else:
        child_obey()
