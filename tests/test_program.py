"""A run before its first step: what it needs, and that it is compiled once."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax import environments, tree
from memrl_jax.run import limits
from memrl_jax.run.ahead import CompiledFunction, awaited
from memrl_jax.run.limits import FreeMemory
from memrl_jax.run.program import Run, make_program
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Environment, Spec, TimeStep
from tests.small import SMALL

RUN = Run(seeds=2, evaluate_episodes=2)
LARGE = 1_000_000_000


def with_agent(**settings: Any) -> Any:
    return SMALL.replace(**settings)


def test_a_replay_memory_beyond_the_machine_is_refused() -> None:
    with pytest.raises(MemoryError) as refused:
        make_program(with_agent(capacity=1_000_000_000), RUN)
    said = str(refused.value)
    assert re.search(
        r"^not enough memory: 2 seeds need .+ GB \(.+\) with capacity 1000000000", said
    )
    assert re.search(r"but .+ GB are (available|left) ", said) and "\n" not in said


@pytest.mark.parametrize(
    "config, run, named",
    [
        (with_agent(batch_size=LARGE), RUN, "training with batch_size 1000000000"),
        (SMALL, Run(seeds=2, evaluate_episodes=LARGE), "evaluate_episodes 1000000000"),
    ],
)
def test_what_no_compiler_can_do_without_is_refused_before_compiling(
    config: Any, run: Run, named: str
) -> None:
    with pytest.raises(MemoryError, match=f"^not enough memory: .*{named} needs at least .* but"):
        make_program(config, run).trace()


def pictures(size: int = 84) -> Environment:
    """Grey frames with four channels, and nothing else."""

    def see(time: jax.Array, action: jax.Array) -> TimeStep:
        image = jnp.full((size, size, 4), time, jnp.uint8)
        start, last = time == 0, time == 5
        return TimeStep(image, action, jnp.float32(0), 1 - last.astype(jnp.float32), start, last)

    def reset(key: Any) -> tuple[jax.Array, TimeStep]:
        return jnp.int32(0), see(jnp.int32(0), jnp.int32(0))

    def step(key: Any, time: jax.Array, action: jax.Array) -> tuple[jax.Array, TimeStep]:
        time = jnp.where(time == 5, 0, time + 1)
        return time, see(time, jnp.where(time == 0, 0, action))

    space = Continuous((size, size, 4), jnp.uint8, 0, 255)
    return Environment(reset, step, Spec(space, Discrete(2)), 5)


def test_the_compiler_says_what_a_step_on_images_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far more than is held between steps, and `max_gigabytes` is about that, too."""
    monkeypatch.setitem(environments.ENVIRONMENTS, "Pictures", pictures)
    config = with_agent(batch_size=16, window=1)
    config = config.replace(environment="Pictures", memory="none", memory_args={})
    held = tree.nbytes(make_program(config, Run(seeds=1)).shapes)
    program = make_program(config, Run(seeds=1, max_gigabytes=1.5 * held / 1e9))
    batch = 16 * 84 * 84 * 4 * 4  # as floats
    assert program.chunk.nbytes > held + batch
    said = "max_gigabytes: a step of training with batch_size 16 needs"
    with pytest.raises(ValueError, match=rf"^{said} .+, more than .+ GB$"):
        program.compile()
    assert program.chunk.jitted._cache_size() == 0


def ahead(room: float = np.inf) -> CompiledFunction:
    def multiply(x: jax.Array) -> jax.Array:
        return x @ x

    shape = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    return CompiledFunction(
        jax.jit(multiply), (shape,), "it needs", FreeMemory(room, "are left"), 1
    )


def test_a_function_is_compiled_once_and_that_is_what_runs() -> None:
    function, x = ahead(), jnp.ones((64, 64))
    np.testing.assert_array_equal(function(x), 64 * x)
    executable = function.executable
    function(x)
    assert function.executable is executable and function.jitted._cache_size() == 0
    assert function.nbytes >= 2 * 4 * 64**2


@pytest.mark.parametrize("room, certain", [(10_000.0, " at least 16.4 kB"), (20_000.0, " 3")])
def test_memory_is_looked_at_before_and_after_compiling(room: float, certain: str) -> None:
    with pytest.raises(MemoryError, match=f"it needs{certain}.*, but {room / 1000:g} kB are left"):
        _ = ahead(room).executable


def test_one_who_waits_hears_signals() -> None:
    going_on = threading.Event()
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            awaited(lambda: going_on.wait(60))
    finally:
        signal.signal(signal.SIGINT, before)
        going_on.set()


def test_the_main_thread_only_waits_while_a_function_is_traced_and_compiled() -> None:
    threads = []

    def traced(x: jax.Array) -> jax.Array:
        threads.append(threading.current_thread())
        return x

    free = FreeMemory(np.inf, "are left")
    _ = CompiledFunction(jax.jit(traced), (np.float32(1),), "it needs", free, 1).executable
    assert len(threads) == 1 and threads[0] is not threading.main_thread()


def test_errors_of_what_is_awaited_are_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        awaited(lambda: 1 / 0)


BEGIN = """
import resource, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may ignore it
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from memrl_jax.cli import main
sys.exit(main())
"""


@contextmanager
def command(out: Path, *options: str, limit: int = -1) -> Iterator[subprocess.Popen[str]]:
    """Begin `memrl train` as a process of its own, which does not outlive the test."""
    run = ("train", "drqn", "--environment", "TMaze", "--seeds", "2", "--out", str(out))
    with subprocess.Popen(
        [sys.executable, "-c", BEGIN, str(limit), *run, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux's")
def test_a_limit_on_the_process_is_told_in_one_line(tmp_path: Path) -> None:
    with command(tmp_path / "run", "--capacity", "200000000", limit=5 * 10**9) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert re.search(r"^memrl: not enough memory: .* process's limit \(ulimit -v\)\n$", err)
    assert not (tmp_path / "run").exists()


def test_ctrl_c_while_compiling_ends_at_once(tmp_path: Path) -> None:
    with command(tmp_path / "run") as process:
        assert process.stdout is not None
        assert "of agent" in process.stdout.readline()  # said before compiling
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "memrl: interrupted\n")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_control_groups_are_seen(monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """The nearest limit is that of a group around this one; what is cached can be taken."""
    files = {
        "/proc/self/cgroup": ("0::/a/b\n", "4:memory:/a/b\n5:cpu:/\n")[version == 1],
        "/sys/fs/cgroup/a/memory.max": "9000\n",
        "/sys/fs/cgroup/a/memory.current": "5000\n",
        "/sys/fs/cgroup/a/memory.stat": "anon 4000\ninactive_file 1000\n",
        "/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9000\n",
        "/sys/fs/cgroup/memory/a/memory.usage_in_bytes": "5000\n",
        "/sys/fs/cgroup/memory/a/memory.stat": "total_inactive_file 1000\n",
    }
    monkeypatch.setattr(limits, "_read", lambda path: files.get(str(path), ""))
    assert limits.room(1).where == "are left of the control group's limit"
    assert limits.room(1).nbytes == 5000
