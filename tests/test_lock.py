"""A lock keeps other processes out, and dies with its own."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from memrl_jax.run import lock

HOLD = """
import os, subprocess, sys, time
from pathlib import Path
from memrl_jax.run import lock

def fork():
    told, tell = os.pipe()
    child = os.fork()
    if child:
        os.read(told, 1)
    else:
        os.write(tell, b"1")
        time.sleep(60)
    return child

with lock.held(Path(sys.argv[1]), print):
    {inherit}
    print("held", flush=True)
    time.sleep(60)
"""


def refuse(line: str) -> None:
    raise AssertionError(line)


def test_the_holder_is_named_and_the_file_is_empty_once_it_has_gone(tmp_path):
    with pytest.raises(RuntimeError), lock.held(tmp_path, refuse):
        assert (tmp_path / "lock").read_text().startswith(f"{os.getpid()} on ")
        with (
            pytest.raises(ValueError, match=f"^run: {tmp_path} is .* by process {os.getpid()} on"),
            lock.held(tmp_path, refuse),
        ):
            pass
        assert (tmp_path / "lock").read_text().startswith(f"{os.getpid()} on ")
        raise RuntimeError
    assert (tmp_path / "lock").read_text() == ""
    with lock.held(tmp_path, refuse):
        pass


@pytest.mark.parametrize(
    "inherit",
    [
        "pass",
        "child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True)",
        "child = fork(); print(child, flush=True)",
    ],
    ids=["alone", "with a program", "with a fork"],
)
def test_a_dead_process_holds_nothing(tmp_path: Path, inherit: str) -> None:
    command = [sys.executable, "-c", HOLD.format(inherit=inherit), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        said = iter(holder.stdout.readline, "")
        children = [int(line) for line in iter(lambda: next(said).strip(), "held")]
        with (
            pytest.raises(ValueError, match=f"by process {holder.pid} on"),
            lock.held(tmp_path, refuse),
        ):
            pass
        holder.kill()
        holder.wait()
        with lock.held(tmp_path, refuse):  # though the children live
            for child in children:
                os.kill(child, signal.SIGKILL)


def test_a_system_without_locks_is_said(tmp_path, monkeypatch):
    def unable(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    lines: list[str] = []
    monkeypatch.setattr(lock.fcntl, "flock", unable)
    with lock.held(tmp_path, lines.append):
        pass
    monkeypatch.setattr(lock, "fcntl", None)
    with lock.held(tmp_path, lines.append):
        pass
    assert len(lines) == 2
    assert lines[0].startswith(f"{tmp_path} cannot be locked (No locks available): see to it that")
    assert lines[1].startswith(f"{tmp_path} cannot be locked on this system: see to it that")


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(OSError, match="Not a regular file"), lock.held(tmp_path, refuse):
        pass
