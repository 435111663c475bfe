"""Files that are written atomically and read without blocking."""

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

SUFFIX = r"\.[0-9a-f]{16}\.tmp"  # of the names of files that are still being written
DEPTH = 32  # to which lists and objects may be nested in JSON


@contextmanager
def replacing(path: Path) -> Iterator[BufferedWriter]:
    """Open a file that replaces `path` atomically once it is safely on disk.

    Until then its name is `temporary(path)`; only a killed process leaves such a file behind.
    Raises OSError, which names the file, if writing fails.
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


def write(path: Path, text: str | bytes) -> None:
    """Replace the contents of a file by `text`, atomically."""
    with replacing(path) as file:
        file.write(text.encode() if isinstance(text, str) else text)


def temporary(path: Path) -> Path:
    """Return a new name, in the same folder, for a file that will replace `path`."""
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
    """Add `path` to an OSError that names no file, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def opened(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file for reading; raises OSError for a FIFO or a device, which might block."""

    def at_once(path: str, flags: int) -> int:
        return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))

    file = open(path, "rb", opener=at_once)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return file


def read(path: Path) -> bytes:
    """Return the contents of a file; raises OSError."""
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
    """Describe an error about a file in one line, without the name of the file."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split()) or type(error).__name__


def is_temporary(path: Path, of: str | None = None) -> bool:
    """Tell whether `path` has a temporary name: of the file name `of`, or of any."""
    return re.fullmatch((".+" if of is None else re.escape(of)) + SUFFIX, path.name) is not None


def unreadable(path: Path, error: Exception) -> ValueError:
    """Return the error that says that a file of a run cannot be read, and why."""
    return ValueError(f"run: {path} cannot be read ({reason(error)})")
