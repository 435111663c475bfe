"""The neural Turing machine."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from memrl_jax import tree
from memrl_jax.checks import UNROLLED, at_least, known, positive, typed
from memrl_jax.memory.controller import CONTROLLERS, Controller, clipped, from_controlled
from memrl_jax.types import Array, Key, NeuralMemory

CONSTANT = 1e-6  # what every cell of the memory holds at an episode's start
AT_FIRST = 10.0  # added to the initial logit of the first slot, where heads begin
TINY = 1e-16  # floor of squared lengths in a cosine; added to weights before their logarithm


class State(NamedTuple):
    """The memory and how it was last addressed; [heads] are the read heads, then the write."""

    memory: Array  # [slots, width]
    controller: Any
    weights: Array  # [heads, slots]
    reads: Array  # [read_heads, width]
    begun: Array  # int32 [], 0 before an episode's first step, which uses learned values


class Addressing(NamedTuple):
    """Where heads are to read or write, after the activations; every field is [heads, ...]."""

    key: Array  # [width]
    strength: Array  # above 0
    gate: Array  # 0 to 1: use the last address (0) or content (1)
    shift: Array  # [2 shifts + 1], a distribution over moves of -shifts to shifts slots
    sharpness: Array  # above 1


def aim(memory: Array, heads: Addressing, before: Array) -> Array:
    """Return weights [heads, slots], each row with a sum of one.

    `before` are the last weights [heads, slots]. Graves et al. (2014), equations 5 to 9.
    """
    content = by_content(memory, heads.key, heads.strength)
    gate = heads.gate[:, None]
    return sharpen(rotate(gate * content + (1 - gate) * before, heads.shift), heads.sharpness)


def by_content(memory: Array, key: Array, strength: Array) -> Array:
    """Return weights [heads, slots]: a softmax of strengths [heads] times cosines."""
    lengths = jnp.sum(memory * memory, axis=-1)
    squared = lengths[None] * jnp.sum(key * key, axis=-1, keepdims=True)
    # One product a head: of a matrix and few vectors together, it would take three times as long.
    products = jnp.stack([memory @ k for k in key])
    cosine = products * jax.lax.rsqrt(jnp.maximum(squared, TINY))
    return jax.nn.softmax(strength[:, None] * cosine)


def rotate(weights: Array, shift: Array) -> Array:
    """Convolve weights [heads, slots] circularly with `shift` [heads, 2 shifts + 1]."""
    slots, shifts = weights.shape[-1], shift.shape[-1] // 2
    ends = weights[:, slots - shifts :], weights, weights[:, :shifts]
    circle = jnp.concatenate(ends, axis=-1)
    moved = jnp.zeros_like(weights)
    for i in range(2 * shifts + 1):
        moved += circle[:, 2 * shifts - i :][:, :slots] * shift[:, i, None]
    return moved


def sharpen(weights: Array, sharpness: Array) -> Array:
    """Raise weights [heads, slots] to the power `sharpness` [heads] and normalize them."""
    # As a softmax, because exponentials are faster than powers.
    return jax.nn.softmax(sharpness[:, None] * jnp.log(weights + TINY))


def write(memory: Array, weights: Array, erase: Array, add: Array) -> Array:
    """Return the memory [slots, width] after all write heads have erased and then added.

    They have weights [heads, slots]; `erase` and `add` are [heads, width]. Graves et al. (2014),
    equations 3 and 4.
    """
    for w, e in zip(weights, erase, strict=True):
        memory = memory * (1 - jnp.einsum("s,d->sd", w, e))
    for w, a in zip(weights, add, strict=True):
        memory = memory + jnp.einsum("s,d->sd", w, a)
    return memory


def access(
    memory: Array, heads: Addressing, erase: Array, add: Array, before: Array
) -> tuple[Array, Array, Array]:
    """Read, then write: return memory, weights [heads, slots] and reads [read_heads, width]."""
    weights = aim(memory, heads, before)
    reading = len(weights) - len(add)
    reads = weights[:reading] @ memory
    return write(memory, weights[reading:], erase, add), weights, reads


class _Cell(nn.Module):
    features: int
    read_heads: int
    write_heads: int
    slots: int
    width: int
    shifts: int
    controller: Controller

    def setup(self) -> None:
        count = self.read_heads + self.write_heads
        self.sizes = count * (self.width + 2 * self.shifts + 4), 2 * self.write_heads * self.width
        self.asks = nn.Dense(sum(self.sizes))
        self.out = nn.Dense(self.features)
        self.first_weights = self.param("first_weights", first_slot, (count, self.slots))
        normal, shape = nn.initializers.normal(0.5), (self.read_heads, self.width)
        self.first_reads = self.param("first_reads", normal, shape, jnp.float32)

    def encode(self, x: Array) -> tuple[Array, ...]:
        return self.controller.encode(x)

    def step(self, state: State, encoded: Any) -> tuple[State, Array]:
        learned = jax.nn.softmax(self.first_weights), jnp.tanh(self.first_reads)
        weights, reads = tree.where(state.begun == 1, (state.weights, state.reads), learned)
        controller, h = self.controller(state.controller, encoded, reads)
        h = clipped(h)
        memory, weights, reads = access(state.memory, *self.ask(h), weights)
        after = State(memory, controller, weights, reads, jnp.ones_like(state.begun))
        return after, jnp.concatenate([h, reads.reshape(-1)])

    def ask(self, h: Array) -> tuple[Addressing, Array, Array]:
        """Map the hidden layer [hidden] to where heads go, and what they erase and add."""
        aims, writes = jnp.split(self.asks(h), self.sizes[:1])
        ends = np.cumsum([self.width, 1, 1, 2 * self.shifts + 1])
        heads = jnp.split(aims.reshape(len(self.first_weights), -1), ends, axis=-1)
        erase, add = clipped(writes).reshape(2, self.write_heads, self.width)
        return addressing(*heads), nn.sigmoid(erase), jnp.tanh(add)

    def decode(self, hidden: Array) -> Array:
        return clipped(self.out(hidden))


def first_slot(key: Key, shape: tuple[int, int]) -> Array:
    """Draw logits [heads, slots] of the initial weights, which put all heads at the first slot.

    Heads that begin all over the memory first have to learn to gather.
    """
    return nn.initializers.normal(0.5)(key, shape, jnp.float32).at[:, 0].add(AT_FIRST)


def addressing(
    key: Array, strength: Array, gate: Array, shift: Array, sharpness: Array
) -> Addressing:
    """Make an `Addressing` from its raw fields [heads, ...] by applying their activations."""
    return Addressing(
        jnp.tanh(clipped(key)),
        nn.softplus(clipped(strength))[:, 0],
        nn.sigmoid(clipped(gate))[:, 0],
        nn.softmax(clipped(shift)),
        1 + nn.softplus(clipped(sharpness))[:, 0],
    )


@typed
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
    trains fastest (Collier & Beel 2018), and heads are at its first slot, until they learn to begin
    elsewhere. `controller` is "lstm" or "feedforward", of `hidden` units. Its hidden layer, what it
    asks of heads, and the output are clipped to -20 and 20. Keys and added vectors pass a tanh,
    erase vectors a sigmoid: the paper does not bound the first two. Raises ValueError for sizes
    below 1, `shifts` below 0, fewer than 2 `shifts` + 1 slots and an unknown `controller`.
    Graves et al. (2014), section 3.
    """
    positive("features", features)
    heads = positive("read_heads", read_heads) + positive("write_heads", write_heads)
    at_least("slots", slots, 2 * at_least("shifts", shifts, 0, UNROLLED) + 1)
    known("controller", controller, CONTROLLERS)
    control = Controller(controller, positive("hidden", hidden))
    sizes = features, read_heads, write_heads, slots, positive("width", width), shifts
    cell = _Cell(*sizes, control)

    def initial_state() -> State:
        memory = jnp.full((slots, width), CONSTANT, jnp.float32)
        weights = jnp.zeros((heads, slots), jnp.float32)
        reads = jnp.zeros((read_heads, width), jnp.float32)
        return State(memory, control.initial_state(), weights, reads, jnp.int32(0))

    def inspect(after: State) -> dict[str, Array]:
        read, written = after.weights[:read_heads], after.weights[read_heads:]
        return {"read": read, "write": written, "memory": after.memory}

    return from_controlled(cell, initial_state, inspect)
