"""A ring of timesteps in time order, `[B, rows]`, each stored once, and windows cut from it.

A segment of T actions writes its first T timesteps; its last one is the first of the next
segment and is written with it. The action at t is stored in the timestep at t + 1 only. All
fields of a timestep are packed into one record of 32-bit words: one array is written and gathered
from, which XLA updates in place inside loops (several arrays of capacity size were copied whole
in every iteration). Of an observation that is a stack of frames only the newest is kept; the
others are in the rows before.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax import draws, tree
from memrl_jax import frames as stacks
from memrl_jax.checks import INT32, divides, positive
from memrl_jax.types import Array, Sample, Segment, State, TimeStep

DIVIDED = 2**16  # bytes from which on a second thread is worth its while
MOST = 2**30 - 1  # timesteps in a ring; int32 holds twice as many


class Row(NamedTuple):
    """The fields that are packed into a record."""

    timestep: TimeStep
    extras: Any


class Ring(NamedTuple):
    """The state of a ring."""

    record: Array  # [B, segments * period, words] uint32
    fields: Row  # [0, ...] empty arrays: dtypes and shapes of what a record holds
    memory: State  # [segments, B, ...] before each segment, or [0, B, ...] if none is stored
    added: Array  # [] int32 segments so far; at `turn` it wraps back to `segments`


class Windows(NamedTuple):
    """The static shape of a ring and of the windows drawn from it."""

    segments: int
    period: int
    length: int
    stride: int
    frames: int

    @property
    def rows(self) -> int:
        """Timesteps kept per environment."""
        return self.segments * self.period

    @property
    def turn(self) -> int:
        """The value of `added` that wraps back to `segments`, with the same remainder."""
        return INT32 // self.segments * self.segments

    @property
    def stored(self) -> bool:
        """Whether windows begin with a stored memory, rather than with a fresh one."""
        return self.stride == self.period > 1

    @property
    def warmup(self) -> int:
        """Segments to add before a window fits."""
        return math.ceil((self.first + self.length + 1) / self.period)

    @property
    def first(self) -> int:
        """Rows from the oldest one to the first start whose frames are all held."""
        return math.ceil((self.frames - 1) / self.stride) * self.stride


def windows(segments: int, period: int, length: int, stride: int, frames: int) -> Windows:
    """Check the sizes and return them; raises ValueError for windows the ring could never hold."""
    sizes = {"segments": segments, "period": period, "length": length, "frames": frames}
    for field, value in sizes.items():
        positive(field, value)
    if positive("stride", stride) > 1:
        divides("period", period, "stride", stride)
    shape = Windows(segments, period, length, stride, frames)
    if shape.rows > MOST:
        raise ValueError(
            f"segments: {segments} of period = {period} are {shape.rows} timesteps, above {MOST}"
        )
    needed = shape.first + length + 1
    if needed > shape.rows:
        before = f" and {shape.first} before them for frames = {frames}" if frames > 1 else ""
        raise ValueError(
            f"length: a window of {length} actions has {length + 1} timesteps{before}, "
            f"but the ring holds segments x period = {segments} x {period} = {shape.rows}"
        )
    return shape


def init(shape: Windows, example: Segment) -> Ring:
    """Make an empty ring for segments like `example` [B, ...], which has no time axis.

    Raises ValueError if it would hold too many timesteps to count.
    """
    batch = example.timestep.reward.shape[0]
    if shape.rows * batch > MOST:
        raise ValueError(
            f"segments: {shape.segments} of period = {shape.period} in each of {batch} "
            f"environments are {shape.rows * batch} timesteps, above {MOST}"
        )
    row = _row(shape, example.timestep, example.extras)
    fields = jax.tree.map(lambda x: jnp.zeros((0, *x.shape[1:]), x.dtype), row)
    words = pack(jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), row)).size
    stored = shape.segments if shape.stored else 0
    memory = jax.tree.map(lambda x: jnp.zeros((stored, *x.shape), x.dtype), example.memory)
    record = jnp.zeros((batch, shape.rows, words), jnp.uint32)
    return Ring(record, fields, memory, jnp.int32(0))


def add(shape: Windows, ring: Ring, segment: Segment) -> Ring:
    """Write a segment of `period` actions, [period + 1, B] timesteps, over the oldest one.

    Raises ValueError for another length, and for shapes and dtypes unlike the example's.
    """
    actions = len(segment.timestep.reward) - 1
    if actions != shape.period:
        raise ValueError(
            f"period: the ring takes segments of {shape.period} actions, this one has {actions}"
        )
    slot = ring.added % shape.segments
    timestep = jax.tree.map(lambda x: x[:-1], segment.timestep)
    row = _row(shape, timestep, segment.extras)
    jax.tree_util.tree_map_with_path(
        partial(_check, shape.period, len(ring.record)), row, ring.fields
    )
    rows = jax.vmap(jax.vmap(pack), in_axes=1)(row)
    zero = jnp.int32(0)
    record = jax.lax.dynamic_update_slice(ring.record, rows, (zero, slot * shape.period, zero))
    memory = ring.memory
    if shape.stored:
        memory = jax.tree.map(lambda xs, x: xs.at[slot].set(x), ring.memory, segment.memory)
    added = ring.added + 1
    added = jnp.where(added == shape.turn, shape.segments, added)
    return ring._replace(record=record, memory=memory, added=added)


def _row(shape: Windows, timestep: TimeStep, extras: Any) -> Row:
    for x in jax.tree.leaves(timestep.observation):
        part = x.shape[timestep.reward.ndim :]
        if shape.frames > 1 and (not part or part[-1] % shape.frames):
            raise ValueError(f"frames: {[*part]} is no stack of {shape.frames} along its last axis")
    newest = stacks.newest(timestep.observation, shape.frames)
    return Row(timestep._replace(observation=newest), extras)


def _check(period: int, batch: int, path: Any, x: Array, like: Array) -> None:
    # Otherwise bits of another dtype would silently be read back as nonsense.
    kept = (period, batch, *like.shape[1:])
    if (x.shape, x.dtype) != (kept, like.dtype):
        field = jax.tree_util.keystr(path, simple=True, separator=".")
        raise ValueError(
            f"{field}: {x.dtype}{[*x.shape]} does not fit the ring's {like.dtype}{[*kept]}"
        )


def starts(shape: Windows, ring: Ring) -> tuple[Array, Array]:
    """Return where the first whole window begins, and how many do, `stride` rows apart: [] each."""
    oldest, held = _held(shape, ring)
    count = (held - shape.first - shape.length - 1) // shape.stride + 1
    return (oldest + shape.first) % shape.rows, jnp.maximum(0, count)


def can_sample(shape: Windows, ring: Ring) -> Array:
    """Tell whether any window is whole, [] bool."""
    return starts(shape, ring)[1] > 0


def unchanged(shape: Windows, ring: Ring, row: Array, added: Array) -> Array:
    """Tell whether `row` [N] is as it was when `added` [N] segments had been added: bool [N]."""
    adds = ring.added - added
    adds = jnp.where(adds < 0, adds + shape.turn - shape.segments, adds)
    since_written = (ring.added - 1 - row // shape.period) % shape.segments
    return since_written >= adds


def changed(shape: Windows, ring: Ring) -> tuple[Array, Array]:
    """Return the rows [n] of all starts that the last `add` changed, and which are whole now [n].

    That `add` removed the windows that began in the rows it overwrote, or had frames there, and
    completed those that lacked its rows.
    """
    oldest, held = _held(shape, ring)
    head = (oldest + held) % shape.rows
    taken = jnp.arange(-shape.period, shape.first, shape.stride)
    back = (shape.length + shape.period) // shape.stride * shape.stride
    completed = jnp.arange(-back, shape.period - back, shape.stride)
    row = (head + jnp.concatenate([taken, completed])) % shape.rows
    age = (row - oldest) % shape.rows
    return row, (age >= shape.first) & (age + shape.length < held)


def _held(shape: Windows, ring: Ring) -> tuple[Array, Array]:
    """Return the oldest row and how many are held."""
    held = jnp.minimum(ring.added, shape.segments) * shape.period
    oldest = jnp.where(ring.added < shape.segments, 0, ring.added % shape.segments * shape.period)
    return oldest, held


def gather(shape: Windows, ring: Ring, start: Array, environment: Array) -> Segment:
    """Return the windows, [length + 1, N], that begin at `start` [N] of `environment` [N]."""
    before = shape.frames - 1
    row = (start - before)[None] % shape.rows + jnp.arange(before + shape.length + 1)[:, None]
    # A window wraps around at most once, and subtracting is cheaper than a remainder.
    row = jnp.where(row < shape.rows, row, row - shape.rows)
    words = ring.record.shape[-1]
    record = tree.take(ring.record.reshape(-1, words), environment[None] * shape.rows + row)
    record = _undivided(record, ring.added)
    timestep, extras = jax.vmap(jax.vmap(unpack(ring.fields)))(record)
    if shape.frames > 1:
        stack = stacks.stack(timestep.observation, timestep.start, shape.frames)
        timestep = timestep._replace(observation=stack)
        timestep, extras = jax.tree.map(lambda x: x[before:], (timestep, extras))
    if shape.stored:
        place = (start // shape.period, environment)
        memory = jax.tree.map(lambda x: tree.take(x, place), ring.memory)
    else:
        n = start.shape
        memory = jax.tree.map(lambda x: jnp.zeros((*n, *x.shape[2:]), x.dtype), ring.memory)
        timestep = timestep._replace(start=timestep.start.at[0].set(True))
    extras = jax.tree.map(lambda x: x[:-1], extras)
    return Segment(memory, timestep, tree.at(timestep.action, slice(1, None)), extras)


@jax.custom_batching.custom_vmap
def _undivided(record: Array, added: Array) -> Array:
    """Return `record` [T, N, W]; on a CPU, have one thread compute it if it is small.

    XLA hands a half of what reads a large array to another thread, however little of it is read,
    and an iteration of DQN then takes a tenth more time. What is written into a larger array, at a
    place that the compiler does not know, it leaves whole.
    """
    if jax.default_backend() != "cpu" or tree.nbytes(record) > DIVIDED:
        return record
    zero = jnp.int32(0)
    room = jnp.zeros((len(record) + 1, *record.shape[1:]), record.dtype)
    place = (added < 0).astype(jnp.int32), zero, zero  # `added` is never below 0
    return jax.lax.dynamic_update_slice(room, record, place)[:-1]


@_undivided.def_vmap
def _undivided_each(size: int, batched: Any, record: Array, added: Array) -> tuple[Array, bool]:
    return record, batched[0]


def pack(row: Any) -> Array:
    """Bit-cast the leaves of one row into words [W] uint32: whole words, then bytes, padded."""
    words: list[Array] = []
    small: list[Array] = []
    for x in jax.tree.leaves(row):
        x = x.astype(jnp.uint8) if x.dtype == bool else x
        wide = x.dtype.itemsize >= 4
        cast = jax.lax.bitcast_convert_type(x, jnp.uint32 if wide else jnp.uint8)
        (words if wide else small).append(cast.reshape(-1))
    if small:
        small.append(jnp.zeros(-sum(x.size for x in small) % 4, jnp.uint8))
        tail = jnp.concatenate(small).reshape(-1, 4)
        words.append(jax.lax.bitcast_convert_type(tail, jnp.uint32))
    return jnp.concatenate(words)


def unpack(fields: Any) -> Callable[[Array], Any]:
    """Return the inverse of `pack` for rows of these `fields` [0, ...]."""
    leaves, treedef = jax.tree.flatten(fields)
    wide = [math.prod(x.shape[1:]) * x.dtype.itemsize // 4 for x in leaves if x.dtype.itemsize >= 4]

    def row(record: Array) -> Any:
        words = record[: sum(wide)]
        small = jax.lax.bitcast_convert_type(record[sum(wide) :], jnp.uint8).reshape(-1)
        out = []
        for like in leaves:
            size = math.prod(like.shape[1:]) * like.dtype.itemsize
            if like.dtype.itemsize >= 4:
                piece, words = words[: size // 4], words[size // 4 :]
            else:
                piece, small = small[:size], small[size:]
            out.append(_as(piece, like.shape[1:], like.dtype))
        return jax.tree.unflatten(treedef, out)

    return row


def _as(piece: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    if jnp.issubdtype(dtype, jnp.bool_):
        return piece.reshape(shape).astype(bool)
    ratio = dtype.itemsize // piece.dtype.itemsize
    shape = (*shape, ratio) if ratio > 1 else shape
    return jax.lax.bitcast_convert_type(piece.reshape(shape), dtype)


def sample(shape: Windows, ring: Ring, batch_size: int, key: Array) -> Sample:
    """Draw `batch_size` windows uniformly, with replacement, from all that are whole.

    The segment has [length + 1, batch_size] timesteps. If no window is whole, weights are 0.
    """
    first, count = starts(shape, ring)
    environments = len(ring.record)
    index = draws.randint(key, (batch_size,), 0, count * environments)
    start = (first + index // environments * shape.stride) % shape.rows
    segment = gather(shape, ring, start, index % environments)
    weight = jnp.where(count > 0, jnp.ones(batch_size, jnp.float32), 0.0)
    return Sample(segment, index, weight)
