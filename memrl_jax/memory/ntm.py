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
AT_FIRST = 10.0  # by how much the logit of the first slot, where heads begin, is above the others
TINY = 1e-16  # below it, squared lengths count less and less, and weights as nothing


class State(NamedTuple):
    """What is held, and how it was last addressed; [heads] are the read heads, then the write."""

    memory: Array  # [slots, width]
    controller: Any
    weights: Array  # [heads, slots]
    reads: Array  # [read_heads, width]
    begun: Array  # int32 [], 0 before an episode's first step: the start is learned


class Heads(NamedTuple):
    """Where heads want to read or write; every field [heads, ...], activated."""

    key: Array  # [width]
    strength: Array  # above 0
    gate: Array  # 0 to 1: how much content counts, against the last address
    shift: Array  # [2 shifts + 1], a distribution over moves of -shifts to shifts slots
    sharpness: Array  # above 1


def compare(memory: Array, key: Array) -> tuple[Array, Array]:
    """Return the products of slots and keys [heads, slots] and the slots' squared lengths."""
    return key @ memory.T, jnp.sum(memory * memory, axis=-1)


def aim(products: Array, lengths: Array, heads: Heads, before: Array) -> Array:
    """Return weights [heads, slots], each row with a sum of one, from what `compare` found.

    Graves et al. (2014), equations 5 to 9.
    """
    content = by_content(products, lengths, heads.key, heads.strength)
    gate = heads.gate[:, None]
    return sharpen(rotate(gate * content + (1 - gate) * before, heads.shift), heads.sharpness)


def by_content(products: Array, lengths: Array, key: Array, strength: Array) -> Array:
    """Return weights [heads, slots]: a softmax of strengths [heads] times cosines."""
    squared = lengths[None] * jnp.sum(key * key, axis=-1, keepdims=True)
    cosine = products * jax.lax.rsqrt(jnp.maximum(squared, TINY))
    return jax.nn.softmax(strength[:, None] * cosine)


def rotate(weights: Array, shift: Array) -> Array:
    """Move weights [heads, slots] around the circle of slots by a distribution over moves."""
    slots, shifts = weights.shape[-1], shift.shape[-1] // 2
    ends = weights[:, slots - shifts :], weights, weights[:, :shifts]
    circle = jnp.concatenate(ends, axis=-1)
    moved = jnp.zeros_like(weights)
    for i in range(2 * shifts + 1):
        moved += circle[:, 2 * shifts - i :][:, :slots] * shift[:, i, None]
    return moved


def sharpen(weights: Array, sharpness: Array) -> Array:
    """Raise weights [heads, slots] to a power and share out one again."""
    # As fast as the exponentials of a softmax, which powers are not.
    return jax.nn.softmax(sharpness[:, None] * jnp.log(weights + TINY))


def erased(memory: Array, weights: Array, erase: Array) -> list[Array]:
    """Return the memory as it is and after each write head [heads] has erased in turn."""
    stages = [memory]
    for w, e in zip(weights, erase, strict=True):
        stages.append(stages[-1] * (1 - jnp.outer(w, e)))
    return stages


def write(memory: Array, weights: Array, erase: Array, add: Array) -> Array:
    """Let all write heads erase, then all add: their `erase` and `add` are [heads, width].

    Graves et al. (2014), equations 3 and 4.
    """
    return erased(memory, weights, erase)[-1] + outers(weights, add)


def outers(weights: Array, vectors: Array) -> Array:
    """Return the sum of outer products of [heads, slots] and [heads, width]: [slots, width]."""
    products: Any = [jnp.outer(w, v) for w, v in zip(weights, vectors, strict=True)]
    return sum(products)


@jax.custom_vjp
def access(
    memory: Array, heads: Heads, erase: Array, add: Array, before: Array
) -> tuple[Array, Array, Array]:
    """Read, then write: the memory after it, weights [heads, slots] and reads [read_heads, width].

    The matrix is the bulk of the state, so the way back goes over it as few times as it can, and
    of what is as large as it, nothing else is kept. Differentiated backwards only.
    """
    return _access_forward(memory, heads, erase, add, before)[0]


def _access_forward(memory: Array, heads: Heads, erase: Array, add: Array, before: Array) -> Any:
    found = compare(memory, heads.key)
    weights = aim(*found, heads, before)
    reading = len(weights) - len(add)
    reads = weights[:reading] @ memory
    after = write(memory, weights[reading:], erase, add)
    return (after, weights, reads), (memory, heads, erase, add, before, found)


def _access_backward(kept: Any, gradients: Any) -> Any:
    memory, heads, erase, add, before, found = kept
    of_memory, of_weights, of_reads = gradients
    weights, pull = jax.vjp(aim, *found, heads, before)
    reading = len(weights) - len(add)
    reads_at, writes_at = weights[:reading], weights[reading:]
    of_reads_at = of_reads @ memory.T
    of_writes_at, of_add = add @ of_memory.T, writes_at @ of_memory
    *stages, _ = erased(memory, writes_at, erase)
    of_erased, of_erase = [], []
    for w, e, stage in reversed(list(zip(writes_at, erase, stages, strict=True))):
        both = of_memory * stage
        of_erased.append(both @ e)
        of_erase.append(-w @ both)
        of_memory = of_memory * (1 - jnp.outer(w, e))
    of_writes_at = of_writes_at - jnp.stack(of_erased[::-1])
    of_weights = of_weights + jnp.concatenate([of_reads_at, of_writes_at])
    of_products, of_lengths, of_heads, of_before = pull(of_weights)
    of_memory = of_memory + outers(reads_at, of_reads) + outers(of_products, heads.key)
    of_memory = of_memory + 2 * of_lengths[:, None] * memory
    of_heads = of_heads._replace(key=of_heads.key + of_products @ memory)
    return of_memory, of_heads, jnp.stack(of_erase[::-1]), of_add, of_before


access.defvjp(_access_forward, _access_backward)


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

    def look(self, x: Array) -> tuple[Array, ...]:
        return self.controller.look(x)

    def turn(self, state: State, seen: Any) -> tuple[State, Array]:
        learned = jax.nn.softmax(self.first_weights), jnp.tanh(self.first_reads)
        weights, reads = tree.where(state.begun == 1, (state.weights, state.reads), learned)
        controller, h = self.controller(state.controller, seen, reads)
        h = clipped(h)
        memory, weights, reads = access(state.memory, *self.ask(h), weights)
        after = State(memory, controller, weights, reads, jnp.ones_like(state.begun))
        return after, jnp.concatenate([h, reads.reshape(-1)])

    def ask(self, h: Array) -> tuple[Heads, Array, Array]:
        """Ask the controller where all heads are to go, and what to erase and to add."""
        aims, writes = jnp.split(self.asks(h), self.sizes[:1])
        ends = np.cumsum([self.width, 1, 1, 2 * self.shifts + 1])
        heads = jnp.split(aims.reshape(len(self.first_weights), -1), ends, axis=-1)
        erase, add = clipped(writes).reshape(2, self.write_heads, self.width)
        return activated(*heads), nn.sigmoid(erase), jnp.tanh(add)

    def say(self, told: Array) -> Array:
        return clipped(self.out(told))


def first_slot(key: Key, shape: tuple[int, int]) -> Array:
    """Draw logits [heads, slots] of where heads begin: all at the first slot, from where they move.

    Heads that begin all over the memory have to be taught to gather first.
    """
    return nn.initializers.normal(0.5)(key, shape, jnp.float32).at[:, 0].add(AT_FIRST)


def activated(key: Array, strength: Array, gate: Array, shift: Array, sharpness: Array) -> Heads:
    """Turn what a controller says, [heads, ...] unbounded, into where its heads are to go."""
    return Heads(
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
    elsewhere. `controller` is "lstm" or "feedforward", of `hidden` units. What it says is kept
    within -20 and 20, and so is the output. Keys and what is added are a tanh, and erasing is a
    sigmoid: the paper does not bound the first two. Raises ValueError for sizes below 1, `shifts`
    below 0 and an unknown `controller`.
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
