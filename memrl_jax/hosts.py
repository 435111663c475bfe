"""Several processes that train together: which of them this is, and how it joins the others.

Options tell it, or else environment variables, or else SLURM. Imports nothing of jax, for that may
only begin once a process knows its place.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

OPTIONS = {  # option -> the environment variable that stands for it
    "--coordinator": "JAX_COORDINATOR_ADDRESS",
    "--processes": "JAX_NUM_PROCESSES",
    "--process": "JAX_PROCESS_ID",
}
RESUMED = {"train": "RUN", "sweep": "SWEEP"}  # commands for several processes -> what is resumed
SLURM = "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"
MOST = 2**16  # processes
PATIENCE = 300  # seconds to wait for the others at first
HEARTBEAT = 40  # seconds of silence after which a process counts as lost
LOST = 2  # the exit code of a process that has lost another one


class Place(NamedTuple):
    """One of several processes."""

    process: int  # from 0
    processes: int
    coordinator: str | None  # HOST:PORT where process 0 listens; None leaves it to SLURM


def place(words: Sequence[str], environment: Mapping[str, str]) -> tuple[Place | None, list[str]]:
    """Return which process this is, None if it is the only one, and the words without options.

    Raises ValueError for options that are not whole or out of range.
    """
    given, rest = options(words, OPTIONS)
    if given.get("--processes") == "1" and given.keys() == {"--processes"}:
        return None, rest
    if not given:
        given = {k: environment[name] for k, name in OPTIONS.items() if name in environment}
    if given:
        return _whole(given), rest
    if all(name in environment for name in SLURM):
        tasks, task = (_number(name, environment[name], MOST) for name in SLURM)
        return (Place(task, tasks, None) if tasks > 1 else None), rest
    return None, rest


def options(words: Sequence[str], names: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """Return the values of the options with these names, and all other words.

    Raises ValueError for an option that is given twice or has no value.
    """
    given: dict[str, str] = {}
    rest: list[str] = []
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if name not in names:
            rest.append(word)
            continue
        if name in given:
            raise ValueError(f"{name}: given twice")
        given[name] = value if equals else next(left, "")
        if not given[name]:
            raise ValueError(f"{name}: no value is given")
    return given, rest


def _whole(given: Mapping[str, str]) -> Place:
    for name, variable in OPTIONS.items():
        if not given.get(name):
            there = ", ".join(f"{k} {x}" for k, x in given.items())
            raise ValueError(f"{name}: missing beside {there} (it is also read from {variable})")
    coordinator = given["--coordinator"]
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError(f"--coordinator: {coordinator!r} is not HOST:PORT")
    processes = _number("--processes", given["--processes"], MOST)
    if processes == 0:
        raise ValueError("--processes: 0 is below 1")
    process = _number("--process", given["--process"], MOST)
    if process >= processes:
        raise ValueError(f"--process: {process} is not below --processes {processes}")
    return Place(process, processes, coordinator)


def _number(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > most:
        raise ValueError(f"{name}: {text!r} is not a number from 0 to {most}")
    return int(text)


def join(here: Place) -> None:
    """Connect jax with the other processes; raises ValueError if they do not come.

    Whoever calls it has not used jax before.
    """
    import jax

    detect = {"cluster_detection_method": "slurm"}
    given = {
        "coordinator_address": here.coordinator,
        "num_processes": here.processes,
        "process_id": here.process,
        "cluster_detection_method": "deactivate",
    }
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            **(given if here.coordinator else detect),
            initialization_timeout=PATIENCE,
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except RuntimeError as error:
        raise ValueError(f"--coordinator: {here.coordinator}: {error}") from None


def leave() -> None:
    """Part from the other processes once all of them are done."""
    import jax

    jax.distributed.shutdown()


def supervised(here: Place, command: str) -> None:
    """Return in a child process; wait for it in this one, and end as it does.

    When a process is lost, jax ends the others at once, without a chance for Python to say so:
    their parents do. Signals are passed on, and a child does not outlive its parent.
    """
    watched, held = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(held)
        os.setpgid(0, 0)  # else a terminal would send Ctrl-C here, too
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "4"  # of what ends it, the parent tells
        threading.Thread(target=_outlive_not, args=(watched,), daemon=True).start()
        return
    os.close(watched)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: _pass_on(child, number))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, 2, 130):
        print(f"memrl: {lost(here, command)}", file=sys.stderr)
        code = LOST
    os._exit(code)


def lost(here: Place, command: str) -> str:
    """Say that another process is gone, and what to do."""
    who = f"process {here.process} of {here.processes}"
    again = f"memrl {command} --resume {RESUMED[command]}"
    return f"{who} ended, for another one was lost; go on with: {again}"


def is_lost(error: Exception) -> bool:
    """Tell whether what jax raised comes from the connection to other processes."""
    return any(name in str(error) for name in ("Gloo", "NCCL"))


def _pass_on(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def _outlive_not(watched: int) -> None:
    """End this process once the other end of a pipe is closed."""
    os.read(watched, 1)
    os._exit(LOST)
