"""Monoids: memory updates of which any two in a row combine to one, so a sequence is a scan.

An update is what one input does to a state. It has two forms. `apply` takes it as it comes from the
input, often small (a key, a value). `combine` takes pairs (decay, addend): how any state before it
decays, and the state that it makes of an empty memory. The addend of a pair is a state, so the
states of a sequence are the addends of its running products.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import checks, tree
from memrl_jax.types import Array, State

Scan = Literal["auto", "sequential", "associative", "chunked"]
SCANS = ("auto", "sequential", "associative", "chunked")


class Reach(NamedTuple):
    """What the steps of a chunk of C see: all up to themselves, but nothing from before a start."""

    before: Array  # bool [C], the state before the chunk
    pairs: Array  # bool [C, C], row t: the steps of the chunk

    @classmethod
    def of(cls, starts: Array) -> "Reach":
        """Return the reach of steps of which `starts` [C] marks those that a reset comes before."""
        episode = jnp.cumsum(starts)
        return cls(episode == 0, jnp.tril(episode[:, None] == episode[None]))


class Monoid(NamedTuple):
    """How updates change a state and combine; every function is for one step.

    `query` reads from the state what leaves the loop, so that states larger than that need not be
    kept for every step. `chunk`, if there is one, does at once what C updates do, by products of
    matrices; it takes the initial state for one that adds nothing to what is read or written.
    """

    identity: Callable[..., Any]  # pair -> the identity pair, of its shapes
    combine: Callable[..., Any]  # pair, the pair after it -> pair
    apply: Callable[..., State]  # state, update -> state
    expand: Callable[..., Any] = lambda update: update  # update -> pair
    query: Callable[..., Any] = lambda state, update: state  # state after it, update -> reading
    # state, updates [C, ...], their `Reach` -> state, readings [C, ...]
    chunk: Callable[..., tuple[State, Any]] | None = None


def scan(
    monoid: Monoid, how: Scan, initial: State, state: State, updates: Any, starts: Array
) -> tuple[State, Any]:
    """Apply updates [T, ...] in order, resetting to `initial` before those that `starts` [T] marks.

    Returns the last state and all readings [T, ...]. "chunked" is fastest for monoids with a
    `chunk`, but for short sequences on a CPU; for others, "sequential" is there, and "associative"
    on accelerators. "auto" chooses by JAX's default platform, monoid and T. Raises ValueError for
    another `how`, and for "chunked" without a `chunk`.
    """
    how = possible(monoid, how)
    how = _fastest(monoid, len(starts)) if how == "auto" else how
    return UNROLLS[how](monoid, initial, state, updates, starts)


def possible(monoid: Monoid, how: Scan) -> Scan:
    """Return `how`, or raise ValueError if the monoid cannot be scanned so."""
    if checks.known("scan", how, SCANS) == "chunked" and monoid.chunk is None:
        raise ValueError("scan: 'chunked' is only for memories of matrices")
    return how


def _fastest(monoid: Monoid, length: int) -> Scan:
    if jax.default_backend() != "cpu":
        return "chunked" if monoid.chunk else "associative"
    return "chunked" if monoid.chunk and length >= chunk_length() else "sequential"


def chunk_length() -> int:
    """Return the steps of a chunk, by JAX's default platform.

    Longer chunks have larger products and fewer of them in a row, but also more pairs of steps.
    """
    return 16 if jax.default_backend() == "cpu" else 64


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


def chunked(
    monoid: Monoid, initial: State, state: State, updates: Any, starts: Array
) -> tuple[State, Any]:
    """Apply updates [T, ...] in chunks, each by the monoid's `chunk`; see `scan`."""

    # Of a chunk, the backward pass keeps the state before it and computes the rest anew.
    @partial(jax.checkpoint, prevent_cse=False)
    def step(state: State, x: tuple[Any, Array]) -> tuple[State, Any]:
        return _chunk(monoid, state, *x)

    def split(x: Array) -> Array:
        return x[:whole].reshape(-1, length, *x.shape[1:])

    def joined(x: Array) -> Array:
        return x.reshape(whole, *x.shape[2:])

    xs, length = (updates, starts), chunk_length()
    whole = len(starts) // length * length
    state, readings = jax.lax.scan(step, state, jax.tree.map(split, xs))
    readings = jax.tree.map(joined, readings)
    if whole == len(starts):
        return state, readings
    state, last = step(state, jax.tree.map(lambda x: x[whole:], xs))
    return state, jax.tree.map(lambda *parts: jnp.concatenate(parts), readings, last)


def _chunk(monoid: Monoid, state: State, updates: Any, starts: Array) -> tuple[State, Any]:
    """Apply a chunk of updates [C, ...]; what is not finite spoils all after it, up to a start."""
    reach = Reach.of(starts)
    # In products over the chunk, 0 * NaN would be NaN before and after a start, too.
    sound, sound_state = jax.vmap(_finite)(updates), _finite(state)
    spoilt = jnp.any(reach.pairs & ~sound[None], axis=1) | (reach.before & ~sound_state)
    zero, nan = partial(_filled, 0.0), partial(_filled, jnp.nan)
    updates = jax.vmap(lambda ok, x: tree.where(ok, x, zero(x)))(sound, updates)
    state = tree.where(sound_state, state, zero(state))
    state, readings = monoid.chunk(state, updates, reach)  # type: ignore[misc]
    readings = jax.vmap(lambda bad, x: tree.where(bad, nan(x), x))(spoilt, readings)
    return tree.where(spoilt[-1], nan(state), state), readings


def _finite(x: Any) -> Array:
    """Return whether the sum of all entries of a pytree is finite, bool []."""
    return jnp.isfinite(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(x)))


def _filled(value: float, x: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, value), x)


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


UNROLLS = {"sequential": sequential, "associative": associative, "chunked": chunked}


def between(logarithms: Array) -> Array:
    """Return sums [heads, C, C] of logarithms [heads, C]: in row t, column s, those of s + 1 to t.

    As differences of cumulative sums, small ones would drown in large ones before them.
    """
    ones = np.ones((1, logarithms.shape[-1], logarithms.shape[-1]), logarithms.dtype)
    return np.tril(ones) @ (np.tril(ones, -1) * logarithms[..., None])


def decay(logarithms: Array, reach: Array) -> Array:
    """Return exp(logarithms) where there is `reach`, else 0, both [..., C] or [..., C, C]."""
    return jnp.exp(jnp.where(reach, logarithms, -jnp.inf))


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
