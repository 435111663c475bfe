"""What becomes of sweeps, searches and reports whose process is killed.

    python -m benchmarks.interrupted [--quick]

Small ones are killed (SIGKILL) at random moments, from their start to their end, and given again
until they end. They must leave what an undisturbed one leaves, bit by bit.
"""

import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from benchmarks import command, trials
from benchmarks.trials import Figures

SMALL = "--environment TMaze --environments 2 --rollout-length 4 --encoder 8 --batch-size 4"
SMALL += " --capacity 160 --learning-starts 80 --seeds 2 --evaluate-episodes 4"
SMALL += " --log-every 200 --evaluate-every 500 --checkpoint-every 250"
RATES = "--vary learning_rate=log:1e-4..1e-2"
KINDS = {  # words of `memrl sweep dqn`
    "sweep": "--vary learning_rate=1e-3,3e-3 batch_size=4,8",
    "halving": "--vary learning_rate=1e-4,1e-3,3e-3 batch_size=4,8 --halve 2",
    "population": f"{RATES} --draws 4 --evolve-every 500",
    "search": f"{RATES} --search tpe --trials 8 --trials-at-once 2",
}


class Command(NamedTuple):
    """What is killed: a command of memrl that makes a file or a folder."""

    name: str
    words: Callable[[Path], list[str]]  # to make it, or to go on


def sweep(name: str, steps: int = 2000) -> Command:
    def words(out: Path) -> list[str]:
        if (out / "sweep.json").exists():
            return ["sweep", "--resume", str(out)]
        given = [*KINDS[name].split(), *SMALL.split(), "--total-steps", str(steps)]
        return ["sweep", "dqn", *given, "--out", str(out)]

    return Command(name, words)


def report(run: Path) -> Command:
    return Command("report.html", lambda out: ["report", str(run), "--out", str(out)])


def undisturbed(place: Path, what: Command) -> tuple[Path, float]:
    """Give a command that is not killed; return its folder and the seconds it took."""
    out = _new(place, what)
    began = time.perf_counter()
    if (end := given(what.words(out))) != "finished":
        raise RuntimeError(f"{what.name}: {end}")
    return out.parent, time.perf_counter() - began


def kills(
    place: Path,
    what: Command,
    whole: tuple[Path, float],
    count: int,
    draw: random.Random,
    say: Callable[[str], None],
) -> Figures:
    """Kill a command at random moments, and give it again until it ends; over and over."""
    like, seconds = whole
    ends: Counter[str] = Counter()
    killed = 0
    while killed < count:
        out, end = _new(place, what), None
        while end is None:
            end = given(what.words(out), draw.uniform(0, seconds) if killed < count else None)
            killed += end is None
            say(f"{what.name}: {killed} kills")
        bits = "same bits" if trials.same(out.parent, like) else "other bits"
        ends[bits if end == "finished" else end] += 1
    return Figures(f"{killed} kills of a {what.name}", ("same bits",), ends)


def _new(place: Path, what: Command) -> Path:
    """Return where a command may write, alone in a folder."""
    return Path(tempfile.mkdtemp(dir=place)) / what.name


def given(words: list[str], seconds: float | None = None) -> str | None:
    """Give memrl a command; return how it ended, None if it was killed after so many seconds."""
    whole = [sys.executable, "-m", "memrl_jax.cli", *words]
    try:
        done = subprocess.run(whole, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:  # by SIGKILL
        return None
    return "finished" if done.returncode == 0 else " ".join(done.stderr.split())[-200:]


def figures(place: Path, count: int, say: Callable[[str], None]) -> Iterator[Figures]:
    """Kill every kind of command `count` times, in folders within `place`."""
    draw = random.Random(0)
    run = place / "run"
    trials.train(run, trials.SMALL)
    kinds = [sweep(name) for name in KINDS if name != "search" or find_spec("optuna")]
    for what in [report(run), *kinds]:
        undisturbed(place, what)  # it compiles
        yield kills(place, what, undisturbed(place, what), count, draw, say)


def main() -> int:
    quick = command.quick(__doc__.partition("\n")[0])
    console, name = Console(), f"interrupted{'-quick' * quick}"
    with tempfile.TemporaryDirectory() as place, console.status("") as status:
        trials.cached(Path(place) / "compiled")
        found = []
        for x in figures(Path(place), 2 if quick else 10, status.update):
            found.append(x)
            command.keep(found, name)  # it takes long
    return command.publish(found, name, console)


if __name__ == "__main__":
    sys.exit(main())
