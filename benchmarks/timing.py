"""Timing of programs in turns, so that other load on the machine affects all of them alike."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax.run.limits import planned_bytes


class Program(NamedTuple):
    """A program that is timed; each call goes on from where the last one ended."""

    name: str
    capacity: int  # timesteps in the replay memory of a seed
    seeds: int
    compile_seconds: float | None
    advance: Callable[[int], None]  # iterations of every seed; returns once they are done
    steps: Callable[[], int]  # environment steps so far, over all seeds
    variant: str = ""  # of several variants, the fastest counts
    nbytes: int | None = None  # that the compiler plans for
    unit: int = 1  # iterations in one of `advance`


class Timing(NamedTuple):
    """What an iteration of all seeds together took, in every turn."""

    name: str
    capacity: int
    seeds: int
    compile_seconds: float | None
    microseconds: np.ndarray  # [turns]
    steps: np.ndarray  # [turns] environment steps; 0 for a piece of training
    variant: str = ""
    nbytes: int | None = None

    @property
    def steps_per_second(self) -> np.ndarray:
        """Environment steps per second of all seeds together, in every turn."""
        return self.steps / self.microseconds * 1e6


def compiled(
    case: tuple[str, int, int], jitted: Any, carry: Any, steps: Callable[[Any], int] = lambda _: 0
) -> Program:
    """Compile `jitted`: carry, iterations -> carry. `case` is name, capacity and seeds.

    `steps` reads the environment steps so far from the carry.
    """
    began = time.perf_counter()
    program = jitted.lower(carry, jnp.int32(1)).compile()
    compile_seconds = time.perf_counter() - began

    def advance(iterations: int) -> None:
        nonlocal carry
        carry = jax.block_until_ready(program(carry, jnp.int32(iterations)))

    nbytes = planned_bytes(program)
    return Program(*case, compile_seconds, advance, lambda: steps(carry), nbytes=nbytes)


def begun_anew(
    case: tuple[str, int, int], train: Callable[[Any], Any], iterations: int, steps: int
) -> Program:
    """Compile a whole training: it begins anew in every call, from another key.

    A call has so many `iterations` and environment `steps` of a seed; several seeds are vmapped.
    An iteration is thus timed with its share of what comes before and after them all.
    """
    seeds = case[2]
    keys = iter(jax.random.split(jax.random.key(0), (10_000, seeds)))
    jitted = jax.jit(jax.vmap(train) if seeds > 1 else lambda keys: train(keys[0]))
    began = time.perf_counter()
    program = jitted.lower(next(keys)).compile()
    compile_seconds = time.perf_counter() - began
    done = 0

    def advance(calls: int) -> None:
        nonlocal done
        for _ in range(calls):
            jax.block_until_ready(program(next(keys)))
            done += steps * seeds

    nbytes = planned_bytes(program)
    return Program(*case, compile_seconds, advance, lambda: done, "", nbytes, iterations)


def loop(step: Callable[[Any], Any]) -> Any:
    """Return a jitted loop, carry, iterations -> carry, over `step`; the carry is donated."""

    def steps(carry: Any, iterations: Any) -> Any:
        return jax.lax.fori_loop(0, iterations, lambda _, carry: step(carry), carry)

    return jax.jit(steps, donate_argnums=0)


def interleave(programs: Sequence[Program], seconds: float, turns: int) -> list[Timing]:
    """Time every program for about `seconds`, one after another, `turns` times over."""
    lengths = [_iterations(program, seconds) for program in programs]
    took = np.empty((2, len(programs), turns))
    for turn in range(turns):
        # Back and forth: a drift of the machine's speed favours neither the first nor the last.
        for i in range(len(programs))[:: -1 if turn % 2 else 1]:
            before = programs[i].steps()
            microseconds = _time(programs[i], lengths[i]) * 1e6
            took[:, i, turn] = microseconds, programs[i].steps() - before
        took[:, :, turn] /= [n * program.unit for n, program in zip(lengths, programs, strict=True)]
    return [
        Timing(
            p.name,
            p.capacity,
            p.seeds,
            p.compile_seconds,
            microseconds,
            steps,
            p.variant,
            p.nbytes,
        )
        for p, microseconds, steps in zip(programs, *took, strict=True)
    ]


def fastest(timings: Sequence[Timing]) -> list[Timing]:
    """Keep the fastest variant of every case."""
    best: dict[tuple[str, int, int], Timing] = {}
    for timing in timings:
        other = best.setdefault(timing[:3], timing)
        if np.median(timing.microseconds) < np.median(other.microseconds):
            best[timing[:3]] = timing
    return list(best.values())


def _iterations(program: Program, seconds: float) -> int:
    """Return how many iterations take about `seconds`, or ten times the overhead of a call.

    As `memrl train` does, because copying large replay memories in and out takes time.
    """
    program.advance(1)
    fixed = _time(program, 0)
    seconds = max(seconds, 10 * fixed)
    iterations = 1
    for _ in range(8):
        took = _time(program, iterations)
        if took > 0.7 * seconds:
            break
        each = max(took - fixed, 0.1 * took) / iterations
        # Programs count them in 32 bits.
        iterations = min(math.ceil((seconds - fixed) / each), 2**31 - 1)
    return iterations


def _time(program: Program, iterations: int) -> float:
    began = time.perf_counter()
    program.advance(iterations)
    return time.perf_counter() - began


def ratio(x: np.ndarray, y: np.ndarray) -> float:
    """Return the median of x / y within turns: only those saw the machine in one state."""
    return float(np.median(x / y))
