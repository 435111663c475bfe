"""The folder of a run: made atomically, written by one process at a time, checked when read."""

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from memrl_jax.config import Config, flat, from_json, to_json
from memrl_jax.run import files, lock, software
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
        files.write(new / "versions.json", json.dumps(software.versions(), indent=2))
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
        raise files.unreadable(folder / "config.json", error) from None
    software.check(folder)
    with of_config(folder):
        return folder, from_json(json.dumps(config)), options


@contextmanager
def of_config(folder: Path) -> Iterator[None]:
    """Begin the message of a ValueError with the path of the run's `config.json`."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"run: {folder / 'config.json'}: {error}") from None


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
    files.write(folder / "config.json", json.dumps(given, indent=2))


def changes(folder: Path) -> list[Any]:
    """Return what was changed since a run began, one entry per resume; raises ValueError."""
    path = folder / "config.json"
    try:
        return list(files.parse(files.read(path))["history"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise files.unreadable(path, error) from None


def varied(folder: Path) -> Varied:
    """Return the floats that vary, [P] each, if a folder has several runs in one; else none."""
    path = folder / "config.json"
    try:
        given = files.parse(files.read(path)).get("varied", {})
        return {str(name): [float(x) for x in values] for name, values in given.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise files.unreadable(path, error) from None


def settings(config: Config, options: Mapping[str, Any], varied: Varied) -> dict[str, Any]:
    """Return, as JSON types, the settings on which the numbers of the training depend."""
    given = flat(config) | dict(options) | {name: list(x) for name, x in varied.items()}
    return {name: x for name, x in given.items() if name not in (*CHANGEABLE, "out")}
