"""The neural Turing machine."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from memrl_jax.checks import at_least, positive
from memrl_jax.memory.base import from_step
from memrl_jax.memory.controller import Controller, clipped
from memrl_jax.types import Array, Key, NeuralMemory

CONSTANT = 1e-6  # what every cell of the memory holds at an episode's start
TINY = 1e-16  # squared lengths, below which directions count less and less


class State(NamedTuple):
    """What is held, and how it was last addressed; [heads] are the read heads, then the write."""

    memory: Array  # [slots, width]
    weights: Array  # [heads, slots]
    reads: Array  # [read_heads, width]
    controller: Any
    begun: Array  # int32 [], 0 before an episode's first step: the start is learned


class Heads(NamedTuple):
    """Where heads want to read or write; every field [heads, ...], activated."""

    key: Array  # [width]
    strength: Array  # above 0
    gate: Array  # 0 to 1: how much content counts, against the last address
    shift: Array  # [2 shifts + 1], a distribution over moves of -shifts to shifts slots
    sharpness: Array  # above 1


def address(memory: Array, heads: Heads, before: Array) -> Array:
    """Return weights [heads, slots], each row with a sum of one.

    Graves et al. (2014), equations 5 to 9.
    """
    content = by_content(memory, heads.key, heads.strength)
    gate = heads.gate[:, None]
    return sharpen(rotate(gate * content + (1 - gate) * before, heads.shift), heads.sharpness)


def by_content(memory: Array, key: Array, strength: Array) -> Array:
    """Return a softmax over slots of the cosine of each with the key, times the strength."""
    lengths = jnp.sum(memory**2, axis=-1) * jnp.sum(key**2, axis=-1, keepdims=True)
    cosine = key @ memory.T * jax.lax.rsqrt(jnp.maximum(lengths, TINY))
    return jax.nn.softmax(strength[:, None] * cosine)


def rotate(weights: Array, shift: Array) -> Array:
    """Move weights [heads, slots] around the circle of slots by a distribution over moves."""
    shifts = shift.shape[-1] // 2
    moved = [jnp.roll(weights, move, axis=-1) for move in range(-shifts, shifts + 1)]
    return sum(part * shift[:, i, None] for i, part in enumerate(moved))  # type: ignore[return-value]


def sharpen(weights: Array, sharpness: Array) -> Array:
    """Raise weights [heads, slots] to a power and share out one again."""
    powers = weights ** sharpness[:, None]
    return powers / (jnp.sum(powers, axis=-1, keepdims=True) + TINY)


def write(memory: Array, weights: Array, erase: Array, add: Array) -> Array:
    """Let all write heads [heads] erase, then all add: their `erase` and `add` are [heads, width].

    Graves et al. (2014), equations 3 and 4.
    """
    for w, e in zip(weights, erase, strict=True):
        memory = memory * (1 - w[:, None] * e)
    return memory + weights.T @ add


class _Cell(nn.Module):
    features: int
    read_heads: int
    write_heads: int
    slots: int
    width: int
    shifts: int
    controller: Controller

    @nn.compact
    def __call__(self, state: State, x: Array) -> tuple[State, Array]:
        state = self.begin(state)
        seen = jnp.concatenate([x, state.reads.reshape(-1)])
        controller, h = self.controller(state.controller, seen)
        h = clipped(h)
        weights = address(state.memory, self.heads(h), state.weights)
        reads = weights[: self.read_heads] @ state.memory
        memory = self.write(state.memory, weights[self.read_heads :], h)
        y = clipped(nn.Dense(self.features, name="out")(jnp.concatenate([h, reads.reshape(-1)])))
        return State(memory, weights, reads, controller, jnp.ones_like(state.begun)), y

    def begin(self, state: State) -> State:
        """Put what is learned of an episode's start in the place of zeros."""
        heads = self.read_heads + self.write_heads
        learned = nn.initializers.normal(0.5)
        weights = self.param("first_weights", learned, (heads, self.slots), jnp.float32)
        reads = self.param("first_reads", learned, (self.read_heads, self.width), jnp.float32)
        return state._replace(
            weights=jnp.where(state.begun, state.weights, jax.nn.softmax(weights)),
            reads=jnp.where(state.begun, state.reads, jnp.tanh(reads)),
        )

    def heads(self, h: Array) -> Heads:
        """Ask the controller where all heads are to go."""
        heads = self.read_heads + self.write_heads
        sizes = [self.width, 1, 1, 2 * self.shifts + 1, 1]
        raw = nn.Dense(heads * sum(sizes), name="heads")(h).reshape(heads, -1)
        return activated(*jnp.split(raw, np.cumsum(sizes)[:-1], axis=-1))

    def write(self, memory: Array, weights: Array, h: Array) -> Array:
        """Ask the controller what to write, and write it."""
        raw = nn.Dense(2 * self.write_heads * self.width, name="write")(h)
        erase, add = clipped(raw).reshape(2, self.write_heads, self.width)
        return write(memory, weights, nn.sigmoid(erase), jnp.tanh(add))


def activated(key: Array, strength: Array, gate: Array, shift: Array, sharpness: Array) -> Heads:
    """Turn what a controller says, [heads, ...] unbounded, into where its heads are to go."""
    return Heads(
        jnp.tanh(clipped(key)),
        nn.softplus(clipped(strength))[:, 0],
        nn.sigmoid(clipped(gate))[:, 0],
        nn.softmax(clipped(shift)),
        1 + nn.softplus(clipped(sharpness))[:, 0],
    )


def ntm(
    features: int = 64,
    slots: int = 128,
    width: int = 20,
    read_heads: int = 1,
    write_heads: int = 1,
    hidden: int = 100,
    controller: str = "lstm",
    shifts: int = 1,
) -> NeuralMemory:
    """Neural Turing machine: heads read and write a matrix [slots, width]; output [features].

    Heads find slots by content and by moving up to `shifts` slots from where they were; reads see
    the matrix as it was before this step's write. At an episode's start it is constant, which
    trains fastest (Collier & Beel 2018), and where heads then are, is learned. `controller` is
    "lstm" or "feedforward", of `hidden` units. What it says is kept within -20 and 20, and so is
    the output. Raises ValueError for sizes below 1, `shifts` below 0 and an unknown `controller`.
    Graves et al. (2014), section 3.
    """
    positive("features", features)
    heads = positive("read_heads", read_heads) + positive("write_heads", write_heads)
    at_least("slots", slots, 2 * at_least("shifts", shifts, 0) + 1)
    control = Controller(controller, positive("hidden", hidden))
    start = control.initial_state()
    sizes = features, read_heads, write_heads, slots, positive("width", width), shifts
    cell = _Cell(*sizes, control)

    def init(key: Key, x: Array) -> Any:
        return cell.init(key, initial_state(), x)

    def initial_state() -> State:
        memory = jnp.full((slots, width), CONSTANT, jnp.float32)
        weights = jnp.zeros((heads, slots), jnp.float32)
        reads = jnp.zeros((read_heads, width), jnp.float32)
        return State(memory, weights, reads, start, jnp.int32(0))

    def step(params: Any, state: State, x: Array) -> Any:
        return cell.apply(params, state, x)

    def inspect(params: Any, state: State, x: Array) -> dict[str, Array]:
        after, _ = step(params, state, x)
        read, written = after.weights[:read_heads], after.weights[read_heads:]
        return {"read": read, "write": written, "memory": after.memory}

    return from_step(init, initial_state, step, inspect)
