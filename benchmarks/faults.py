"""What becomes of a run that is killed, whose files are damaged, or that two processes write.

    python -m benchmarks.faults [--quick]

A small run is killed (SIGKILL) at random moments and resumed until it ends; resumed from every
state that its folder has between two operations on files; resumed with damaged files; and written
by two processes at once. It must end bit-identical to an undisturbed run, or be refused in one
line.
"""

import json
import random
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import command, damage
from benchmarks.kills import kills, undisturbed, writers
from benchmarks.states import states
from benchmarks.trials import (
    SMALL,
    Figures,
    cached,
    compiled_once,
    nothing,
    same,
    train,
)
from memrl_jax.run import experiment, folder, history


def mutations(
    place: Path, whole: Path, what: str, damages: Iterator[damage.Damage], draw: random.Random
) -> Figures:
    """Damage the files of a finished run and resume it; count how that ends."""
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
    """Check that the error is one line and names a file; follow its advice on the one before."""
    if len(line.splitlines()) != 1 or str(out) not in line:
        return f"refused in other words: {line!r}"
    if "which is whole" not in line:
        return "refused in one line"
    newest = Path(line.partition(": ")[0])
    shutil.rmtree(newest) if newest.is_dir() else newest.unlink()
    experiment.resume(str(out), nothing, nothing)
    return "answered by the checkpoint before" if same(out, whole) else "other bits"


def numbers(out: Path) -> tuple[Any, ...]:
    """Return settings, metrics, leaves of the last checkpoint and logged steps, up to the end."""
    _, config, options = folder.read(str(out))
    end = SMALL.total_steps
    past = history.until(history.read(out / "metrics.npz"), end)
    newest = (out / f"checkpoints/{end:012d}.ckpt").read_bytes()
    log = (out / "progress.jsonl").read_text().splitlines()
    steps = [step for line in log if (step := json.loads(line)["timestep"]) <= end]
    leaves = newest.partition(damage.header(newest))[2][32:-32]
    return folder.settings(config, options, {}), history.digest(past), leaves, steps


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


def main() -> int:
    quick = command.quick(__doc__.partition("\n")[0])
    console = Console()
    with tempfile.TemporaryDirectory() as place, console.status("") as status:
        cached(Path(place) / "compiled")
        found = list(figures(Path(place), quick, status.update))
    return command.publish(found, f"faults{'-quick' * quick}", console)


if __name__ == "__main__":
    raise SystemExit(main())
