"""Files that are whole or not there at all, and that can be read without waiting for ever."""

import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

SUFFIX = r"\.[0-9a-f]{16}\.tmp"  # of everything that is still being written
DEPTH = 32  # of lists and objects in JSON


@contextmanager
def replacing(path: Path) -> Iterator[BufferedWriter]:
    """Open a file that takes the place of `path` once it is safely on disk, or never.

    Until then it is `temporary(path)`, which only a killed process leaves behind. Raises OSError,
    which names the file, if writing fails.
    """
    new = temporary(path)
    try:
        with naming(path), new.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
    sync(path.parent)


def temporary(path: Path) -> Path:
    """Return a new name beside `path` for what will take its place."""
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")


def append(path: Path, line: str) -> None:
    """Add a line to a file and wait until it is on disk; raises OSError, which names the file."""
    new = not path.exists()
    with naming(path), open(path, "ab") as file:
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync(path.parent)


def sync(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut; only POSIX can open a folder for that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let errors that do not say which file they are about name `path`: a full disk, say."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def opened(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file for reading; a FIFO or a device, which may never answer, is an OSError."""

    def at_once(path: str, flags: int) -> int:
        return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))

    file = open(path, "rb", opener=at_once)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return file


def read(path: Path) -> bytes:
    """Return what is in a file; raises OSError."""
    with opened(path) as file:
        return file.read()


def parse(text: bytes) -> Any:
    """Read UTF-8 JSON; raises ValueError for anything else, and if it is nested too deeply."""
    try:
        value = json.loads(text.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return _shallow(value, DEPTH)


def _shallow(value: Any, depth: int) -> Any:
    if depth == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _shallow(part, depth - 1)
    return value


def reason(error: Exception) -> str:
    """Say in one line what an error that came of a file is about, less the name of the file."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split()) or type(error).__name__


def is_temporary(path: Path, of: str | None = None) -> bool:
    """Return whether `path` was being written by a process that is dead now, in place of `of`."""
    return re.fullmatch((".+" if of is None else re.escape(of)) + SUFFIX, path.name) is not None
