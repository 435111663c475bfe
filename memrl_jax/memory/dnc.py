"""The differentiable neural computer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from memrl_jax.checks import UNROLLED, known, positive, typed
from memrl_jax.memory.controller import CONTROLLERS, Controller, clipped, from_controlled
from memrl_jax.types import Array, NeuralMemory

EPSILON = 1e-6  # in cosines and in allocation, as in the authors' code


class Access(NamedTuple):
    """The memory, and how it is being used; writers are W, readers R."""

    memory: Array  # [slots, width]
    usage: Array  # [slots], 0 free to 1 in use
    write_weights: Array  # [W, slots]
    read_weights: Array  # [R, slots]
    link: Array  # [W, slots, slots], how much row i was written right after column j
    precedence: Array  # [W, slots], how much a slot was the last one written


class State(NamedTuple):
    """What is held, what was read of it, and what the controller carries."""

    access: Access
    reads: Array  # [R, width]
    controller: Any


class Interface(NamedTuple):
    """What the controller asks for, activated."""

    write_vectors: Array  # [W, width]
    erase: Array  # [W, width], 0 to 1
    free: Array  # [R], 0 to 1: whether what was last read there may be overwritten
    allocation: Array  # [W], 0 to 1: a free slot, against one found by content
    write: Array  # [W], 0 to 1: whether to write at all
    write_keys: Array  # [W, width]
    write_strengths: Array  # [W], above 0
    read_keys: Array  # [R, width]
    read_strengths: Array  # [R], above 0
    mode: Array  # [R, 2 W + 1], a distribution: backward, forward, content


def access(state: Access, asked: Interface) -> tuple[Access, Array]:
    """Write, then read: the next state and what was read [R, width].

    Graves et al. (2016), Methods.
    """
    usage = used(state.usage, state.write_weights, state.read_weights, asked.free)
    write_weights = addresses_to_write(state.memory, usage, asked)
    memory = write(state.memory, write_weights, asked.erase, asked.write_vectors)
    link, precedence = linked(state.link, state.precedence, write_weights)
    read_weights = addresses_to_read(memory, link, state.read_weights, asked)
    after = Access(memory, usage, write_weights, read_weights, link, precedence)
    return after, read_weights @ memory


def used(usage: Array, write_weights: Array, read_weights: Array, free: Array) -> Array:
    """Return the usage [slots] that the last step's writes and freed reads leave.

    No gradient flows into where was written.
    """
    written = 1 - jnp.prod(1 - jax.lax.stop_gradient(write_weights), axis=0)
    kept = jnp.prod(1 - free[:, None] * read_weights, axis=0)
    return (usage + (1 - usage) * written) * kept


def allocation(usage: Array) -> Array:
    """Return weights [slots] for the least used slots; among equals the first comes first."""
    usage = EPSILON + (1 - EPSILON) * usage
    # As for their authors, slots are equals that one minus their usage does not tell apart.
    order = jnp.argsort(-(1 - usage), stable=True)
    ranked = usage[order]
    before = jnp.concatenate([jnp.ones_like(ranked[:1]), jnp.cumprod(ranked[:-1])])
    return jnp.zeros_like(usage).at[order].set((1 - ranked) * before)


def allocations(usage: Array, gates: Array) -> Array:
    """Return weights [W, slots], each writer taking what those before it leave free."""
    found = []
    for gate in gates:
        found.append(allocation(usage))
        usage = usage + (1 - usage) * gate * found[-1]
    return jnp.stack(found)


def by_content(memory: Array, keys: Array, strengths: Array) -> Array:
    """Return weights [heads, slots] by the cosine of slots [slots, width] and keys."""
    lengths = jnp.outer(_length(keys), _length(memory))
    return jax.nn.softmax(strengths[:, None] * (keys @ memory.T) / (lengths + EPSILON))


def _length(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(x * x, axis=-1) + EPSILON)


def addresses_to_write(memory: Array, usage: Array, asked: Interface) -> Array:
    """Return weights [W, slots]: free slots or known contents, or neither."""
    content = by_content(memory, asked.write_keys, asked.write_strengths)
    free = allocations(usage, asked.allocation * asked.write)
    gate = asked.allocation[:, None]
    return asked.write[:, None] * (gate * free + (1 - gate) * content)


def write(memory: Array, weights: Array, erase: Array, add: Array) -> Array:
    """Return the memory [slots, width] after all W writers have erased and then added.

    Writers have weights [W, slots]; `erase` and `add` are [W, width].
    """
    kept = jnp.prod(1 - weights[:, :, None] * erase[:, None, :], axis=0)
    return memory * kept + weights.T @ add


def linked(link: Array, precedence: Array, write_weights: Array) -> tuple[Array, Array]:
    """Return the links [W, slots, slots] after a write, and which slots it leaves as the last."""
    to, since = write_weights[:, :, None], write_weights[:, None, :]
    link = (1 - to - since) * link + to * precedence[:, None, :]
    link = link * (1 - jnp.eye(link.shape[-1], dtype=link.dtype))[None]
    total = jnp.sum(write_weights, axis=-1, keepdims=True)
    return link, (1 - total) * precedence + write_weights


def along(link: Array, read_weights: Array) -> tuple[Array, Array]:
    """Return where reads lead against and along the order of writes, both [R, W, slots]."""
    backward = jnp.einsum("rj,wji->rwi", read_weights, link)
    forward = jnp.einsum("rj,wij->rwi", read_weights, link)
    return backward, forward


def addresses_to_read(memory: Array, link: Array, before: Array, asked: Interface) -> Array:
    """Return weights [R, slots]: a mixture of both directions and of content."""
    content = by_content(memory, asked.read_keys, asked.read_strengths)
    ways = jnp.concatenate([*along(link, before), content[:, None]], axis=1)
    return jnp.einsum("rm,rms->rs", asked.mode, ways)


class _Cell(nn.Module):
    features: int
    writers: int
    readers: int
    width: int
    controller: Controller

    def setup(self) -> None:
        self.interface = nn.Dense(sum(int(np.prod(shape)) for shape in self.shapes()))
        self.out = nn.Dense(self.features)

    def shapes(self) -> list[tuple[int, ...]]:
        """Return those of the fields of an `Interface`."""
        writers, readers, width = self.writers, self.readers, self.width
        shapes = [(writers, width), (writers, width), (readers,), (writers,), (writers,)]
        shapes += [(writers, width), (writers,), (readers, width), (readers,)]
        return [*shapes, (readers, 2 * writers + 1)]

    def look(self, x: Array) -> tuple[Array, ...]:
        return self.controller.look(x)

    def turn(self, state: State, seen: Any) -> tuple[State, Array]:
        controller, h = self.controller(state.controller, seen, state.reads)
        h = clipped(h)
        # Of what is as large as the links, only they are kept for the way back.
        after, reads = jax.checkpoint(access)(state.access, self.ask(h))
        return State(after, reads, controller), jnp.concatenate([h, reads.reshape(-1)])

    def ask(self, h: Array) -> Interface:
        """Ask the controller what to do with the memory."""
        shapes = self.shapes()
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        raw = jnp.split(self.interface(h), ends[:-1])
        return activated(*(part.reshape(s) for part, s in zip(raw, shapes, strict=True)))

    def say(self, told: Array) -> Array:
        return clipped(self.out(told))


def activated(*raw: Array) -> Interface:
    """Turn what a controller says, the fields of an `Interface` unbounded, into what it asks."""
    asked = Interface(*raw)
    gates = ("erase", "free", "allocation", "write")
    strengths = ("write_strengths", "read_strengths")
    return asked._replace(
        **{name: nn.sigmoid(getattr(asked, name)) for name in gates},
        **{name: nn.softplus(getattr(asked, name)) for name in strengths},
        mode=nn.softmax(asked.mode),
    )


@typed
def dnc(
    features: int = 64,
    slots: int = 16,
    width: int = 16,
    read_heads: int = 4,
    write_heads: int = 1,
    hidden: int = 64,
    controller: str = "lstm",
) -> NeuralMemory:
    """Differentiable neural computer: a matrix [slots, width] and its history; output [features].

    A writer finds slots by content, or takes those that are least used; a reader finds them by
    content, or goes on in the order in which they were written, or back. Several writers share
    out the free slots and have links [slots, slots] of their own. The memory is empty at an
    episode's start. `controller` is "lstm" or "feedforward", of `hidden` units. Raises ValueError
    for sizes below 1 and an unknown `controller`.
    Graves et al. (2016), Methods. As in the authors' code, and not in the paper: strengths are a
    softplus (not oneplus, which is 1 more), there may be several writers, no gradient flows from
    usage into where was written, and what the controller says and the output are kept within -20
    and 20.
    """
    positive("features", features)
    positive("slots", slots)
    heads = positive("write_heads", write_heads, UNROLLED), positive("read_heads", read_heads)
    known("controller", controller, CONTROLLERS)
    control = Controller(controller, positive("hidden", hidden))
    cell = _Cell(features, *heads, positive("width", width), control)

    def initial_state() -> State:
        def zeros(*shape: int) -> Array:
            return jnp.zeros(shape, jnp.float32)

        nothing = Access(
            memory=zeros(slots, width),
            usage=zeros(slots),
            write_weights=zeros(write_heads, slots),
            read_weights=zeros(read_heads, slots),
            link=zeros(write_heads, slots, slots),
            precedence=zeros(write_heads, slots),
        )
        return State(nothing, zeros(read_heads, width), control.initial_state())

    def inspect(after: State) -> dict[str, Array]:
        held = after.access
        return {"read": held.read_weights, "write": held.write_weights, "memory": held.memory}

    return from_controlled(cell, initial_state, inspect)
