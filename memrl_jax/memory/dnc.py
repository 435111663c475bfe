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
    """The memory and how it is used; W write heads, R read heads."""

    memory: Array  # [slots, width]
    usage: Array  # [slots], 0 (free) to 1 (in use)
    write_weights: Array  # [W, slots]
    read_weights: Array  # [R, slots]
    link: Array  # [W, slots, slots], how much slot i was written right after slot j
    precedence: Array  # [W, slots], how much a slot was the last one written


class State(NamedTuple):
    """The memory, the last reads and the state of the controller."""

    access: Access
    reads: Array  # [R, width]
    controller: Any


class Interface(NamedTuple):
    """What the controller asks of the memory, after the activations."""

    write_vectors: Array  # [W, width]
    erase: Array  # [W, width], 0 to 1
    free: Array  # [R], 0 to 1: whether the slots that the head read last become free
    allocation: Array  # [W], 0 to 1: write to a free slot (1) or to one found by content (0)
    write: Array  # [W], 0 to 1: whether to write at all
    write_keys: Array  # [W, width]
    write_strengths: Array  # [W], above 0
    read_keys: Array  # [R, width]
    read_strengths: Array  # [R], above 0
    mode: Array  # [R, 2 W + 1], a distribution over backward, forward, content


def access(state: Access, asked: Interface) -> tuple[Access, Array]:
    """Write, then read: return the next state and the reads [R, width].

    Graves et al. (2016), Methods.
    """
    usage = used(state.usage, state.write_weights, state.read_weights, asked.free)
    write_weights = addresses_to_write(state.memory, usage, asked)
    memory = write(state.memory, write_weights, asked.erase, asked.write_vectors)
    link, precedence, ways = follow(state.link, state.precedence, write_weights, state.read_weights)
    read_weights = addresses_to_read(memory, ways, asked)
    after = Access(memory, usage, write_weights, read_weights, link, precedence)
    return after, read_weights @ memory


def used(usage: Array, write_weights: Array, read_weights: Array, free: Array) -> Array:
    """Return the usage [slots] after the last step's writes, less what `free` [R] has freed.

    No gradient flows into `write_weights` [W, slots].
    """
    written = 1 - jnp.prod(1 - jax.lax.stop_gradient(write_weights), axis=0)
    filled = usage + (1 - usage) * written
    # One product, so that the usage is computed once and not for every pair in `allocation`.
    return jnp.prod(jnp.stack([filled, *(1 - free[:, None] * read_weights)]), axis=0)


def allocation(usage: Array) -> Array:
    """Return weights [slots] on the least used slots; of equally used ones, the first is taken."""
    usage = EPSILON + (1 - EPSILON) * usage
    # As in the authors' code, compared by 1 - usage, whose rounding makes more slots equal. Their
    # products are sums of logarithms, for which no slot has to be moved.
    free, slot = 1 - usage, jnp.arange(len(usage))
    freer = free[None] > free[:, None]
    earlier = (free[None] == free[:, None]) & (slot[None] < slot[:, None])
    before = (freer | earlier).astype(usage.dtype)  # [slots, slots], row: those before a slot
    return free * jnp.exp(before @ jnp.log(usage))


def allocations(usage: Array, gates: Array) -> Array:
    """Return weights [W, slots]; each head takes what those before it leave, by their gates [W]."""
    found = []
    for gate in gates:
        found.append(allocation(usage))
        usage = usage + (1 - usage) * gate * found[-1]
    return jnp.stack(found)


def by_content(memory: Array, keys: Array, strengths: Array) -> Array:
    """Return weights [heads, slots], a softmax of strengths [heads] times cosines.

    The cosines are those of keys [heads, width] and memory [slots, width].
    """
    lengths = jnp.outer(_length(memory), _length(keys))
    # The memory comes first: a product with its transpose would copy it.
    cosines = memory @ keys.T / (lengths + EPSILON)
    return jax.nn.softmax(strengths[:, None] * cosines.T)


def _length(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(x * x, axis=-1) + EPSILON)


def addresses_to_write(memory: Array, usage: Array, asked: Interface) -> Array:
    """Return weights [W, slots] on free slots, on slots found by content, or on none."""
    content = by_content(memory, asked.write_keys, asked.write_strengths)
    free = allocations(usage, asked.allocation * asked.write)
    gate = asked.allocation[:, None]
    return asked.write[:, None] * (gate * free + (1 - gate) * content)


def write(memory: Array, weights: Array, erase: Array, add: Array) -> Array:
    """Return the memory [slots, width] after all W write heads have erased and then added.

    `weights` are [W, slots]; `erase` and `add` are [W, width].
    """
    kept = jnp.prod(1 - jnp.einsum("ws,wd->wsd", weights, erase), axis=0)
    return memory * kept + weights.T @ add


def linked(link: Array, precedence: Array, write_weights: Array) -> tuple[Array, Array]:
    """Return the links [W, slots, slots] and the precedence [W, slots] after a write."""
    new = write_weights[:, :, None] * precedence[:, None, :]
    link = _not_itself(_lasting(write_weights) * link + new)
    total = jnp.sum(write_weights, axis=-1, keepdims=True)
    return link, (1 - total) * precedence + write_weights


def _lasting(write_weights: Array) -> Array:
    """Return what part of every link [W, slots, slots] outlasts a write."""
    return 1 - write_weights[:, :, None] - write_weights[:, None, :]


def _not_itself(link: Array) -> Array:
    return jnp.where(np.eye(link.shape[-1], dtype=bool)[None], 0, link)


def along(link: Array, read_weights: Array) -> tuple[Array, Array]:
    """Return reads moved backward and forward in the order of writes, both [R, W, slots]."""
    backward = jnp.einsum("rj,wji->rwi", read_weights, link)
    # The links come first: a product with their transpose would copy them.
    forward = jnp.einsum("wij,rj->wir", link, read_weights)
    return backward, forward.transpose(2, 0, 1)


@jax.custom_vjp
def follow(
    link: Array, precedence: Array, write_weights: Array, read_weights: Array
) -> tuple[Array, Array, tuple[Array, Array]]:
    """Return the links and precedence after a write, as `linked`, and reads `along` the new links.

    They are of links [W, slots, slots], precedence and write weights [W, slots], and read weights
    [R, slots]: of these shapes, and two of [R, W, slots].
    The gradient is written by hand, as products of matrices: derived from this code, it takes the
    whole memory twice as long.
    """
    after, precedence = linked(link, precedence, write_weights)
    return after, precedence, along(after, read_weights)


def _follow(*before: Array) -> Any:
    return follow(*before), before


def _of_follow(before: Any, grads: Any) -> tuple[Array, ...]:
    link, precedence, write_weights, read_weights = before
    of_link, of_precedence, (of_backward, of_forward) = grads
    after, _ = linked(link, precedence, write_weights)
    moved = jnp.einsum("wij,rwj->wir", after, of_backward).transpose(2, 0, 1)
    of_reads = jnp.sum(moved + jnp.einsum("rwj,wji->rwi", of_forward, after), axis=1)
    read = jnp.broadcast_to(read_weights[:, None], of_forward.shape)
    pairs = jnp.concatenate([of_forward, read]), jnp.concatenate([read, of_backward])
    of_link = _not_itself(of_link + jnp.einsum("rwi,rwj->wij", *pairs))
    # Sums along both axes, as products, with ones that are not known to be ones when compiled.
    lost, ones = of_link * link, jnp.exp(0 * write_weights)
    of_writes = jnp.einsum("wij,wj->wi", of_link, precedence) + of_precedence
    of_writes -= jnp.einsum("wij,wj->wi", lost, ones) + jnp.einsum("wi,wij->wj", ones, lost)
    of_writes -= jnp.sum(of_precedence * precedence, axis=-1, keepdims=True)
    of_before = jnp.einsum("wi,wij->wj", write_weights, of_link)
    of_before += (1 - jnp.sum(write_weights, axis=-1, keepdims=True)) * of_precedence
    return _lasting(write_weights) * of_link, of_before, of_writes, of_reads


follow.defvjp(_follow, _of_follow)


def addresses_to_read(memory: Array, ways: tuple[Array, Array], asked: Interface) -> Array:
    """Return weights [R, slots]: a mixture of `ways`, backward and forward, and of content."""
    content = by_content(memory, asked.read_keys, asked.read_strengths)
    found = jnp.concatenate([*ways, content[:, None]], axis=1)
    return jnp.einsum("rm,rms->rs", asked.mode, found)


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
        """Return the shapes of the fields of an `Interface`."""
        writers, readers, width = self.writers, self.readers, self.width
        shapes = [(writers, width), (writers, width), (readers,), (writers,), (writers,)]
        shapes += [(writers, width), (writers,), (readers, width), (readers,)]
        return [*shapes, (readers, 2 * writers + 1)]

    def encode(self, x: Array) -> tuple[Array, ...]:
        return self.controller.encode(x)

    def step(self, state: State, encoded: Any) -> tuple[State, Array]:
        controller, h = self.controller(state.controller, encoded, state.reads)
        h = clipped(h)
        after, reads = access(state.access, self.ask(h))
        return State(after, reads, controller), jnp.concatenate([h, reads.reshape(-1)])

    def ask(self, h: Array) -> Interface:
        """Map the controller's hidden layer [hidden] to an `Interface`."""
        shapes = self.shapes()
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        raw = jnp.split(self.interface(h), ends[:-1])
        return interface(*(part.reshape(s) for part, s in zip(raw, shapes, strict=True)))

    def decode(self, hidden: Array) -> Array:
        return clipped(self.out(hidden))


def interface(*raw: Array) -> Interface:
    """Make an `Interface` from its raw fields by applying their activations."""
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

    A write head finds slots by content or takes the least used ones; a read head finds slots by
    content or moves forward or backward in the order in which they were written. Several write
    heads share the free slots, and each has its own links [slots, slots]. The memory is zero at an
    episode's start. `controller` is "lstm" or "feedforward", of `hidden` units. Raises ValueError
    for sizes below 1 and an unknown `controller`.
    Graves et al. (2016), Methods. As in the authors' code, and not in the paper: strengths are a
    softplus (not oneplus, which is 1 more), there may be several write heads, no gradient flows
    from usage into write weights, and hidden layer and output are clipped to -20 and 20.
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
