"""What is released: built, checked, and installed into empty environments.

`python -m benchmarks.release [PYTHON ...]` makes a wheel and an sdist, and installs the wheel for
every interpreter (by default those of Python 3.11 to 3.13 on the path), once with the oldest and
once with the newest versions of the dependencies that pyproject.toml allows. In each environment an
agent is trained, evaluated and drawn.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
MINORS = 11, 12, 13  # of Python 3
TOLD = "jax", "flax", "optax", "gymnax", "tyro", "numpy"
TRAIN = (
    "--environment TMaze --environments 2 --encoder 8 --memory-args features=8 --total-steps 640"
)
TRAIN += " --window 4 --batch-size 4 --capacity 160 --learning-starts 80"
TRIES = [
    ["memrl", "doctor"],
    ["memrl", "train", "drqn", *TRAIN.split(), "--out", "run"],
    ["memrl", "evaluate", "run", "--episodes", "2"],
    ["memrl", "plot", "run", "--out", "curves.png"],
    ["python", "-c", "from memrl_jax import testing; testing.check_memory('gru', features=4)"],
]


class Built(NamedTuple):
    """The two files of a release."""

    wheel: Path
    sdist: Path


def build(out: Path, isolated: bool = True) -> Built:
    """Build both files, without isolation by what is installed here; raises if twine complains."""
    how = [] if isolated else ["--no-isolation"]
    _run([sys.executable, "-m", "build", *how, "--outdir", str(out), str(ROOT)], out)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    _run([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)], out)
    return Built(wheel, sdist)


def contents(built: Built) -> tuple[set[str], set[str]]:
    """Return the paths of all files in the wheel and in the sdist."""
    with tarfile.open(built.sdist) as archive:
        members = [x.name.partition("/")[2] for x in archive.getmembers() if x.isfile()]
    return set(zipfile.ZipFile(built.wheel).namelist()), set(members)


def interpreters() -> list[str]:
    """Return the interpreters on the path, one for each version of Python that works."""
    names = [f"python3.{minor}" for minor in MINORS]
    found = [path for name in names if (path := shutil.which(name))]
    return [
        x for x in found if subprocess.run([x, "--version"], capture_output=True).returncode == 0
    ]


def oldest() -> list[str]:
    """Return the lowest versions that pyproject.toml allows, each as NAME==VERSION."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = (re.match(r"([\w-]+)>=([\d.]+)", x) for x in project["dependencies"])
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


def install(python: str, wheel: Path, place: Path, more: Sequence[str] = ()) -> Path:
    """Install a wheel into a new environment, with `more` words for pip; return its programs."""
    _run([python, "-m", "venv", "--without-pip", str(place)], place.parent)
    pip = [sys.executable, "-m", "pip", "--python", str(place), "install", "--quiet"]
    _run([*pip, "--disable-pip-version-check", str(wheel), *more], place.parent)
    return place / "bin"


def tried(python: str, wheel: Path, pins: Sequence[str]) -> dict[str, str]:
    """Install a wheel into an empty environment and use it; return the versions of TOLD."""
    with tempfile.TemporaryDirectory() as folder:
        programs = install(python, wheel, Path(folder) / "environment", pins)
        for program, *words in TRIES:
            _run([str(programs / program), *words], Path(folder))
        code = f"from importlib import metadata as m; print(*map(m.version, {TOLD}))"
        said = _run([str(programs / "python"), "-c", code], Path(folder))
        return dict(zip(TOLD, said.split(), strict=True))


def _run(words: Sequence[str], folder: Path) -> str:
    """Run a program and return what it says; raises RuntimeError with that if it fails."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = [*done.stdout.splitlines()[-5:], *done.stderr.splitlines()[-5:]]
        raise RuntimeError("\n".join(["fails: " + " ".join(words), *last]))
    return done.stdout


def outcomes(pythons: Sequence[str], wheel: Path) -> Iterator[tuple[str, ...]]:
    """Yield a row for every interpreter with the oldest and the newest dependencies."""
    for python in pythons:
        version = _run([python, "--version"], ROOT).split()[1]
        for name, pins in (("oldest", oldest()), ("newest", [])):
            began = time.perf_counter()
            try:
                versions, outcome = tried(python, wheel, pins), "works"
            except RuntimeError as error:
                versions, outcome = dict.fromkeys(TOLD, ""), str(error)
            seconds = f"{time.perf_counter() - began:.0f}"
            yield version, name, *versions.values(), seconds, outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("python", nargs="*", default=interpreters())
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        built = build(Path(folder))
        console.print(
            f"{built.wheel.name} and {built.sdist.name}: built, and twine has no complaint"
        )
        table = Table("python", "dependencies", *TOLD, "seconds", "outcome")
        for row in outcomes(parser.parse_args().python, built.wheel):
            print(*row, flush=True)
            table.add_row(*row[:-1], row[-1].partition(":")[0])
    console.print(table)
    return 0 if all(x == "works" for x in table.columns[-1].cells) else 1


if __name__ == "__main__":
    sys.exit(main())
