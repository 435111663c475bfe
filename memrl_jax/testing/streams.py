"""Random experience that a replay memory is given, and what it should hold of it."""

import math
from collections import deque
from typing import Any, NamedTuple

import jax
import numpy as np

from memrl_jax.types import Sample, Segment, TimeStep

BITS = 14  # of an environment's number (2) and a time (12)
TIMES = 2 ** (BITS - 2)


class Case(NamedTuple):
    """Sizes of a replay memory, and the dtype of observations: one, or a tree of all."""

    segments: int
    period: int
    length: int
    stride: int
    environments: int
    dtype: str | None = None

    @property
    def stored(self) -> bool:
        """Whether windows begin with a stored memory, rather than with a fresh one."""
        return self.stride == self.period > 1


def encode(environment: Any, time: Any, dtype: str) -> Any:
    """Write an environment's number and a time [...] in zeros and ones [..., BITS] of any dtype."""
    number = np.asarray(environment * TIMES + time)
    return (number[..., None] >> np.arange(BITS) & 1).astype(dtype)


def first(sample: Sample) -> Any:
    """Return the environment and the time at which each window begins, [N] and [N]."""
    code = np.asarray(jax.tree.leaves(sample.segment.timestep.observation)[0])[0]
    return divmod((code != 0) @ 2 ** np.arange(BITS), TIMES)


def noise(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    """Draw random bits [*shape]: floats of all kinds, NaN with payloads among them."""
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.frombuffer(rng.bytes(size), dtype).reshape(shape)


def stream(case: Case, seed: int, steps: int) -> tuple[TimeStep, Any, Any]:
    """Make timesteps [`steps` + 1, B], and the extras and memories of every step."""
    rng, batch = np.random.default_rng(seed), (steps + 1, case.environments)
    time, environment = np.indices(batch)
    observation: Any = encode(environment, time, case.dtype or "float32")
    if case.dtype is None:
        shapes = {"uint8": (3,), "bool": (2, 3), "int8": (), "int32": (2,), "float16": (1, 3)}
        others = {dtype: noise(rng, (*batch, *shape), dtype) for dtype, shape in shapes.items()}
        observation = {"a": observation, "others": others}
    timestep = TimeStep(
        observation,
        action=noise(rng, batch, "int32"),
        reward=noise(rng, batch, "float32"),
        discount=noise(rng, batch, "float32"),
        start=noise(rng, batch, "bool"),
        last=noise(rng, batch, "bool"),
    )
    extras = {"log_prob": noise(rng, batch, "float32"), "mask": noise(rng, (*batch, 3), "bool")}
    memory = (noise(rng, (*batch, 2), "float32"), noise(rng, batch, "int8"))
    return timestep, extras, memory


def example(case: Case) -> Segment:
    """Return a segment [B, ...] without a time axis."""
    timestep, extras, memory = jax.tree.map(lambda x: x[0], stream(case, 0, 0))
    return Segment(memory, timestep, timestep.action, extras)


def segments(case: Case, seed: int, count: int) -> list[Segment]:
    """Cut a stream into segments [period + 1, B], which share a timestep where they meet."""
    timestep, extras, memory = stream(case, seed, count * case.period)

    def cut(begin: int) -> Segment:
        end = begin + case.period
        return Segment(
            memory=jax.tree.map(lambda x: x[begin], memory),
            timestep=jax.tree.map(lambda x: x[begin : end + 1], timestep),
            action=timestep.action[begin + 1 : end + 1],
            extras=jax.tree.map(lambda x: x[begin:end], extras),
        )

    return [cut(k * case.period) for k in range(count)]


class Oracle:
    """All that a replay memory may know: per time one row, per segment one memory."""

    def __init__(self, case: Case) -> None:
        """Begin with nothing."""
        self.case, self.time = case, 0
        self.rows: deque = deque(maxlen=case.segments * case.period)
        self.memories: deque = deque(maxlen=case.segments)

    def add(self, segment: Segment) -> None:
        """Append a segment [period + 1, B]; the oldest one goes."""
        self.memories.append((self.time, segment.memory))
        for t in range(self.case.period):
            row = (segment.timestep, segment.action, segment.extras)
            self.rows.append((self.time, jax.tree.map(lambda x, t=t: x[t], row)))
            self.time += 1

    def starts(self) -> list[int]:
        """Return the times from which `length` + 1 rows are held."""
        held = {time for time, _ in self.rows}
        needed = range(self.case.length + 1)
        return [t for t in held if t % self.case.stride == 0 and all(t + i in held for i in needed)]

    def windows(self, environment: np.ndarray, start: np.ndarray) -> Segment:
        """Return the windows [length + 1, N] that begin at these times [N]."""
        stacked = jax.tree.map(lambda *x: np.stack(x), *(row for _, row in self.rows))
        where = start - self.rows[0][0] + np.arange(self.case.length + 1)[:, None]
        timestep, action, extras = jax.tree.map(lambda x: x[where, environment], stacked)
        _, newest = self.memories[-1]
        memory = jax.tree.map(lambda x: np.zeros((len(start), *x.shape[1:]), x.dtype), newest)
        if self.case.stored:
            times = [time for time, _ in self.memories]
            stacked = jax.tree.map(lambda *x: np.stack(x), *(m for _, m in self.memories))
            where = np.searchsorted(times, start)
            memory = jax.tree.map(lambda x: x[where, environment], stacked)
        else:
            timestep.start[0] = True
        action, extras = jax.tree.map(lambda x: x[:-1], (action, extras))
        return Segment(memory, timestep, action, extras)
