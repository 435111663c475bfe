"""One writer a folder: a lock of the operating system, which the death of its holder frees."""

import errno
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_descriptors: set[int] = set()  # of the locks that this process holds


@contextmanager
def held(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Keep other writers out of `folder`: its file `lock` says which process is in there.

    The file stays, and is empty once nobody is. Neither a fork nor a program that is started
    inherits the lock. Where the system or the file system has none, `say` is told so and nobody
    is kept out. Raises ValueError if another writer is in there, OSError if there can be no such
    file.
    """
    if fcntl is None:
        say(f"{folder} cannot be locked on this system: see to it that nobody else writes it")
        yield
        return
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
    _descriptors.add(descriptor)
    try:
        _take(descriptor, folder, say)
        _write(descriptor, f"{os.getpid()} on {socket.gethostname()}")
        try:
            yield
        finally:
            _write(descriptor, "")
    finally:
        if descriptor in _descriptors:
            _descriptors.remove(descriptor)
            os.close(descriptor)


def _take(descriptor: int, folder: Path, say: Callable[[str], None]) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(folder / "lock"))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"run: {folder} is being written by process {_holder(descriptor)}"
        ) from None
    except OSError as error:
        say(f"{folder} cannot be locked ({error.strerror}): see to it that nobody else writes it")


def _write(descriptor: int, text: str) -> None:
    if descriptor in _descriptors:  # a fork has let go of it
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _holder(descriptor: int) -> str:
    """Return what the process with the lock has written, which it may be about to do."""
    for _ in range(100):
        if said := os.pread(descriptor, 100, 0).decode(errors="replace"):
            return " ".join(said.split())
        time.sleep(0.01)
    return "of unknown number"


def _forget() -> None:
    """Let go, in a fork, of what its parent holds."""
    while _descriptors:
        os.close(_descriptors.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
