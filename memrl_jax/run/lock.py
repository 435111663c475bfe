"""One writer per folder: a lock that the operating system releases when its holder dies."""

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
    """Lock `folder` against other writers; its file `lock` names the process that holds the lock.

    The file stays, empty once the lock is released. Neither a fork nor a subprocess inherits the
    lock. If the system or the file system has no locks, `say` gets a warning and nothing is
    locked. Raises ValueError if another writer holds the lock, OSError if there can be no such
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
    if descriptor in _descriptors:  # not in a fork, which has closed it
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _holder(descriptor: int) -> str:
    """Return what the holder of the lock has written; waits up to 1 s for it."""
    for _ in range(100):
        if said := os.pread(descriptor, 100, 0).decode(errors="replace"):
            return " ".join(said.split())
        time.sleep(0.01)
    return "of unknown number"


def _forget() -> None:
    """Close, in a fork, the descriptors that it inherits from its parent."""
    while _descriptors:
        os.close(_descriptors.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
