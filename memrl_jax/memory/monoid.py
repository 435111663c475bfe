"""Monoids: memory updates of which any two in a row combine to one, so a sequence is a scan.

An update is what one input does to a state. It has two forms. `apply` takes it as it comes from the
input, often small (a key, a value). `combine` takes pairs (decay, addend): how any state before it
decays, and the state that it makes of an empty memory. The addend of a pair is a state, so the
states of a sequence are the addends of its running products.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax import checks, tree
from memrl_jax.types import Array, State

Scan = Literal["auto", "sequential", "associative", "chunked"]
SCANS = ("auto", "sequential", "associative", "chunked")


class Monoid(NamedTuple):
    """How updates change a state and combine; every function is for one step.

    `query` reads from the state what leaves the loop, so that states larger than that need not be
    kept for every step.
    """

    identity: Callable[..., Any]  # pair -> the identity pair, of its shapes
    combine: Callable[..., Any]  # pair, the pair after it -> pair
    apply: Callable[..., State]  # state, update -> state
    expand: Callable[..., Any] = lambda update: update  # update -> pair
    query: Callable[..., Any] = lambda state, update: state  # state after it, update -> reading
    chunk: Callable[..., tuple[State, Any]] | None = None  # state, updates, `Reach` -> state, readings


def scan(
    monoid: Monoid, how: Scan, initial: State, state: State, updates: Any, starts: Array
) -> tuple[State, Any]:
    """Apply updates [T, ...] in order, resetting to `initial` before those that `starts` [T] marks.

    Returns the last state and all readings [T, ...]. "sequential" is faster on a CPU,
    "associative" on thousands of parallel lanes; "auto" chooses by JAX's default platform.
    Raises ValueError for another `how`.
    """
    if checks.known("scan", how, SCANS) == "auto":
        how = "sequential" if jax.default_backend() == "cpu" else "associative"
    unroll = {"sequential": sequential, "associative": associative, "chunked": chunked}[how]
    return unroll(monoid, initial, state, updates, starts)


def sequential(
    monoid: Monoid, initial: State, state: State, updates: Any, starts: Array
) -> tuple[State, Any]:
    """Apply updates [T, ...] one after another; see `scan`."""

    def step(state: State, x: tuple[Any, Array]) -> tuple[State, Any]:
        update, start = x
        state = monoid.apply(tree.where(start, initial, state), update)
        return state, monoid.query(state, update)

    # The backward pass recomputes a step from its state and update, both kept anyway. That is the
    # vector-Jacobian product one would write by hand, and as fast.
    return jax.lax.scan(jax.checkpoint(step, prevent_cse=False), state, (updates, starts))


class Reach(NamedTuple):
    """Which steps of a chunk see what, for no reset lies between."""

    before: Array  # bool [C], the state before the chunk
    pairs: Array  # bool [C, C], row t: the steps up to t

    @classmethod
    def of(cls, starts: Array) -> "Reach":
        """Return the reach of steps of which `starts` [C] marks those after a reset."""
        episode = jnp.cumsum(starts)
        same = episode[:, None] == episode[None]
        return cls(episode == 0, jnp.tril(same))


def decays(logarithms: Array, reached: Array) -> Array:
    """Return exp(logarithms) where `reached`, else 0."""
    return jnp.exp(jnp.where(reached, logarithms, -jnp.inf))


def between(logarithms: Array) -> Array:
    """Return the sums [..., C, C] of logarithms [..., C] of the steps after s, up to t.

    Not as differences of cumulative sums, in which small logarithms drown after large ones.
    """
    size = logarithms.shape[-1]
    lower = jnp.tril(jnp.ones((size, size), logarithms.dtype))
    return lower @ (jnp.tril(lower, -1) * logarithms[..., :, None])


import os
CHUNK = int(os.environ.get('CHUNK', 16)); CK = int(os.environ.get('CK', 1))


def chunked(
    monoid: Monoid, initial: State, state: State, updates: Any, starts: Array
) -> tuple[State, Any]:
    """Apply updates [T, ...] in chunks, each by matrix products; see `scan`."""
    size = CHUNK
    def chunk(state, x):
        return (jax.checkpoint(chunk_, prevent_cse=False) if CK else chunk_)(state, x)
    def chunk_(state, x):
        updates, starts = x
        finite = jnp.isfinite(sum(jnp.sum(leaf.reshape(len(starts),-1), 1) for leaf in jax.tree.leaves(updates)))
        ok = jnp.isfinite(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(state)))
        reach = Reach.of(starts)
        poisoned = (reach.pairs & ~finite[None]).any(axis=1) | (reach.before & ~ok)
        updates = jax.vmap(lambda f, u: tree.where(f, u, jax.tree.map(jnp.zeros_like, u)))(finite, updates)
        state = tree.where(ok, state, initial)
        state, readings = monoid.chunk(state, updates, reach)
        nan = lambda x: jnp.full_like(x, jnp.nan)
        readings = jax.vmap(lambda p, r: tree.where(p, jax.tree.map(nan, r), r))(poisoned, readings)
        return tree.where(poisoned[-1], jax.tree.map(nan, state), state), readings

    x = (updates, starts)
    whole = len(starts) // size
    parts = []
    if whole:
        cut = jax.tree.map(lambda x: x[:whole * size].reshape(whole, size, *x.shape[1:]), x)
        state, readings = jax.lax.scan(chunk, state, cut)
        parts.append(jax.tree.map(lambda x: x.reshape(whole * size, *x.shape[2:]), readings))
    if len(starts) % size:
        state, readings = chunk(state, jax.tree.map(lambda x: x[whole * size:], x))
        parts.append(readings)
    return state, jax.tree.map(lambda *x: jnp.concatenate(x), *parts) if len(parts) > 1 else parts[0]


def associative(
    monoid: Monoid, initial: State, state: State, updates: Any, starts: Array
) -> tuple[State, Any]:
    """Combine updates [T, ...] as a tree, in log T rounds; see `scan`."""

    def combine(first: tuple[Array, Any], then: tuple[Array, Any]) -> tuple[Array, Any]:
        # A reset discards what came before it. It is selected before combining, because 0 * NaN is
        # NaN: forward with a decay of zero, backward in the product that was not selected.
        before = tree.where(then[0], jax.vmap(monoid.identity)(first[1]), first[1])
        return first[0] | then[0], jax.vmap(monoid.combine)(before, then[1])

    begin = monoid.apply(tree.where(starts[0], initial, state), tree.at(updates, 0))
    decays, addends = jax.vmap(monoid.expand)(updates)
    addends = jax.tree.map(lambda x, first: x.at[0].set(first), addends, begin)
    _, (_, states) = jax.lax.associative_scan(combine, (starts, (decays, addends)))
    return tree.at(states, -1), jax.vmap(monoid.query)(states, updates)


def _ones_and_zeros(pair: Any) -> Any:
    decay, addend = pair
    return jnp.ones_like(decay), jnp.zeros_like(addend)


def _multiply_add(first: Any, then: Any) -> Any:
    (a, b), (c, d) = first, then
    return c * a, c * b + d


# h <- a h + b, element by element.
DIAGONAL = Monoid(
    identity=_ones_and_zeros,
    combine=_multiply_add,
    apply=lambda state, update: update[0] * state + update[1],
)


class Complex(NamedTuple):
    """Complex numbers as two arrays of reals: on a CPU three times as fast as complex64."""

    real: Array
    imag: Array

    @classmethod
    def zeros(cls, *shape: int) -> "Complex":
        """Return zeros of float32."""
        return cls(jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.float32))

    @classmethod
    def polar(cls, modulus: Array, phase: Array) -> "Complex":
        """Return the numbers [...] of this modulus and phase [...]."""
        return cls(modulus * jnp.cos(phase), modulus * jnp.sin(phase))

    def __mul__(self, other: "Complex") -> "Complex":  # type: ignore[override]
        """Multiply element by element."""
        a, b, c, d = *self, *other
        return Complex(a * c - b * d, a * d + b * c)

    def __add__(self, other: "Complex") -> "Complex":  # type: ignore[override]
        """Add element by element."""
        return Complex(self.real + other.real, self.imag + other.imag)


def constantly(decay: Any, addend: Any) -> tuple[Any, Any]:
    """Make updates with a constant decay [...], broadcast to the shape of the addend [T, ...]."""
    return jax.tree.map(lambda a, b: jnp.broadcast_to(a, b.shape), decay, addend), addend


def _complex_identity(pair: Any) -> Any:
    decay, addend = pair
    one, zero = jnp.ones_like(decay.real), jnp.zeros_like(decay.real)
    return Complex(one, zero), jax.tree.map(jnp.zeros_like, addend)


# `DIAGONAL` for `Complex` numbers.
COMPLEX = DIAGONAL._replace(identity=_complex_identity)
