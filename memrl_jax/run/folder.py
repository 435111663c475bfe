"""The folder of a run: made atomically, written by one process at a time, checked when read."""

import json
import math
import os
import platform
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memrl_jax import __version__
from memrl_jax.config import Config, flat, from_json, to_json
from memrl_jax.run import files, history, lock, table
from memrl_jax.run.history import History
from memrl_jax.run.lanes import Varied

CHANGEABLE = (  # settings on which no number of the training depends: a resume may change them
    "total_steps",
    "log_every",
    "evaluate_every",
    "evaluate_episodes",
    "checkpoint_every",
    "target_return",
    "max_gigabytes",
    "track",
)

Say = Callable[[str], None]


def check_changeable(name: str) -> None:
    """Raise ValueError unless a resume may change the setting `name`."""
    if name not in CHANGEABLE:
        raise ValueError(f"{name}: cannot change on resume (what can: {', '.join(CHANGEABLE)})")


@contextmanager
def created(
    path: str,
    config: Config,
    options: Mapping[str, Any],
    varied: Varied,
    say: Say,
    more: Callable[[Path], None],
) -> Iterator[Path]:
    """Make a new run folder atomically, and lock it while the `with` block runs.

    `more` writes into it what else it begins with. If the block raises before a checkpoint is
    saved, the folder is removed. Raises ValueError if it cannot be made or there is something at
    `path` already.
    """

    def fill(new: Path) -> None:
        (new / "checkpoints").mkdir()
        write(new / "versions.json", json.dumps(versions(), indent=2))
        describe(new, config, options, varied, [])
        more(new)

    with made(path, fill, say) as final:
        try:
            yield final
        except BaseException:
            if not any((final / "checkpoints").glob("*.ckpt")):
                shutil.rmtree(final, ignore_errors=True)
            raise


@contextmanager
def made(path: str, fill: Callable[[Path], None], say: Say) -> Iterator[Path]:
    """Make a new folder atomically, with what `fill` writes into it, and lock it.

    Raises ValueError if it cannot be made or there is something at `path` already.
    """
    final = Path(path)
    with ExitStack() as stack:
        try:
            check_free(path)
            final.parent.mkdir(parents=True, exist_ok=True)
            _remove_stale(final)
            new = files.temporary(final)
            stack.callback(shutil.rmtree, new, ignore_errors=True)
            new.mkdir()
            stack.enter_context(lock.held(new, say))
            fill(new)
            _rename(new, final)
        except OSError as error:
            raise ValueError(f"out: {path} cannot be made ({files.reason(error)})") from None
        yield final


def _rename(new: Path, final: Path) -> None:
    try:
        os.rename(new, final)
    except OSError:
        check_free(str(final))  # another process was quicker
        raise
    files.sync(final.parent)


def check_free(path: str) -> None:
    """Raise ValueError, which says what to do, if there is anything at `path`."""
    there = Path(path)
    try:
        mode = os.lstat(there).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ValueError(f"out: {path} cannot be made ({files.reason(error)})") from None
    if any((there / name).exists() for name in ("config.json", "sweep.json")):
        raise ValueError(f"out: {path} exists; continue it with --resume {path}")
    if not stat.S_ISDIR(mode):
        raise ValueError(f"out: {path} exists and is no folder; name a folder to make")
    if any(there.iterdir()):
        raise ValueError(f"out: {path} exists and is not a run; name a folder to make")
    raise ValueError(f"out: {path} exists and is empty; remove it, or name a folder to make")


def _remove_stale(final: Path) -> None:
    """Remove the temporary folders of processes that were killed while making `final`."""

    def unsure(line: str) -> None:
        raise ValueError(line)

    for path in final.parent.iterdir():
        if files.is_temporary(path, of=final.name) and path.is_dir():
            with suppress(ValueError), lock.held(path, say=unsure):
                shutil.rmtree(path)


@contextmanager
def held(path: str, say: Say) -> Iterator[Path]:
    """Lock the folder of a run, and remove the temporary files of processes that were killed.

    Raises ValueError if it is not a run or another process is writing it.
    """
    folder, _, _ = read(path)
    with lock.held(folder, say):
        for leftover in (*folder.iterdir(), *folder.glob("*/*")):
            if files.is_temporary(leftover) and leftover.is_file():
                leftover.unlink()
        yield folder


def read(path: str) -> tuple[Path, Config, dict[str, Any]]:
    """Return the folder, config and options of a run; raises ValueError if it is not one."""
    folder = Path(path)
    try:
        given = files.parse(files.read(folder / "config.json"))
        config, options = given["config"], dict(given["run"])
    except FileNotFoundError:
        raise ValueError(f"run: {path} is not a run folder (no config.json in it)") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _unreadable(folder / "config.json", error) from None
    _check_version(folder)
    with of_config(folder):
        return folder, from_json(json.dumps(config)), options


@contextmanager
def of_config(folder: Path) -> Iterator[None]:
    """Begin the message of a ValueError with the path of the run's `config.json`."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"run: {folder / 'config.json'}: {error}") from None


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"run: {path} cannot be read ({files.reason(error)})")


def describe(
    folder: Path,
    config: Config,
    options: Mapping[str, Any],
    varied: Varied,
    changes: Sequence[Any],
) -> None:
    """Write `config.json`: config and options of a run, and what was changed since it began.

    And, of several runs in one, which floats of the config vary and how.
    """
    given = {"config": json.loads(to_json(config)), "run": dict(options), "history": changes}
    given |= {"varied": {name: list(x) for name, x in varied.items()}} if varied else {}
    write(folder / "config.json", json.dumps(given, indent=2))


def changes(folder: Path) -> list[Any]:
    """Return what was changed since a run began, one entry per resume; raises ValueError."""
    path = folder / "config.json"
    try:
        return list(files.parse(files.read(path))["history"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _unreadable(path, error) from None


def varied(folder: Path) -> Varied:
    """Return the floats that vary, [P] each, if a folder has several runs in one; else none."""
    path = folder / "config.json"
    try:
        given = files.parse(files.read(path)).get("varied", {})
        return {str(name): [float(x) for x in values] for name, values in given.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from None


def settings(config: Config, options: Mapping[str, Any], varied: Varied) -> dict[str, Any]:
    """Return, as JSON types, the settings on which the numbers of the training depend."""
    given = flat(config) | dict(options) | {name: list(x) for name, x in varied.items()}
    return {name: x for name, x in given.items() if name not in (*CHANGEABLE, "out")}


def write(path: Path, text: str | bytes) -> None:
    """Replace the contents of a file by `text`, atomically."""
    with files.replacing(path) as file:
        file.write(text.encode() if isinstance(text, str) else text)


def log(folder: Path, timestep: int, past: History) -> None:
    """Rewrite `metrics.npz`, and append the latest point to `metrics.csv` and `progress.jsonl`.

    The first holds all metrics, the second is a table of them, the third has means over seeds.
    """
    _measured(folder, past)
    table.extend(folder / "metrics.csv", past)
    files.append(folder / "progress.jsonl", _line(timestep, past))


def record(folder: Path, past: History) -> None:
    """Write all metrics of a run that is trained already, as `log` would have, point by point."""
    _measured(folder, past)
    table.write(folder / "metrics.csv", past)
    times = past.get("timestep", np.zeros(0, int)).tolist()
    lines = [_line(t, history.until(past, t)) for t in times]
    write(folder / "progress.jsonl", "".join(f"{line}\n" for line in lines))


def _measured(folder: Path, past: History) -> None:
    with files.replacing(folder / "metrics.npz") as file:
        # In C order, so that the same numbers are the same bytes.
        np.savez(file, **{k: np.ascontiguousarray(x) for k, x in past.items()})  # type: ignore


def _line(timestep: int, past: History) -> str:
    line: dict[str, Any] = {"timestep": timestep, "step": float(past["step"][-1])}
    line["time"] = round(time.time(), 3)
    for name, value in history.at(past, timestep).items():
        mean = float(value.mean())
        line |= {name: mean} if math.isfinite(mean) else {}  # e.g. before an episode has ended
    return json.dumps(line)


def cut_log(folder: Path, past: History, timestep: int) -> None:
    """Remove from `progress.jsonl` what was logged after the last checkpoint, at `timestep`.

    `metrics.csv` is written anew from `past`. Raises ValueError if the lines before that are not
    those of its points.
    """
    path = folder / "progress.jsonl"
    try:
        lines = files.read(path).splitlines(keepends=True) if path.exists() else []
        steps = [files.parse(line)["timestep"] for line in lines if line.endswith(b"\n")]
        points = list(past.get("timestep", []))
        same = steps[: len(points)] == points and all(x > timestep for x in steps[len(points) :])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from None
    if not same:
        raise ValueError(f"run: {path} has other timesteps than metrics.npz up to {timestep}")
    if len(points) < len(lines):
        write(path, b"".join(lines[: len(points)]))
    table.write(folder / "metrics.csv", past)


def versions() -> dict[str, str]:
    """Return what a run's numbers depend on besides its config: software and devices."""
    names = ("jax", "jaxlib", "flax", "optax", "gymnax", "gymnasium", "numpy")
    device = jax.devices()[0]
    return {
        "memrl_jax": __version__,
        **{name: metadata.version(name) for name in names},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "devices": f"{jax.device_count()} x {device.device_kind}",
    }


def _check_version(folder: Path) -> None:
    """Raise ValueError for a run whose major or minor version differs: its files may differ too."""
    if not (folder / "versions.json").exists():
        return  # whoever needs it raises
    then = str(written_with(folder).get("memrl_jax"))
    if then.rpartition(".")[0] != __version__.rpartition(".")[0]:
        said = f"was written by memrl_jax {then}, whose runs {__version__} does not read"
        raise ValueError(f"run: {folder} {said}")


def written_with(folder: Path) -> dict[str, Any]:
    """Return the versions that a run began with; raises ValueError if they cannot be read."""
    path = folder / "versions.json"
    try:
        return dict(files.parse(files.read(path)))
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(path, error) from None


def other_versions(folder: Path) -> list[str]:
    """Return a text for each version that differs from when a run began; raises ValueError."""
    then = written_with(folder)
    return [f"{k} {then.get(k)!s} -> {x}" for k, x in versions().items() if then.get(k) != x]
