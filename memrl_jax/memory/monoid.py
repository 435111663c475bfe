"""Monoids: updates of a memory of which two in a row are one again, so a sequence is a scan.

An update says what one input does to a state. Two views of it exist. `apply` needs it as it comes
from the input, often small (a key, a value). `combine` needs pairs (decay, addend): what remains of
any state before, and what a memory that was empty would hold. In a pair the addend is a state, so
all states of a sequence are the addends of its running products.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax import checks, tree
from memrl_jax.types import Array, State

Scan = Literal["auto", "sequential", "associative"]
SCANS = ("auto", "sequential", "associative")


class Monoid(NamedTuple):
    """How updates change a state and combine; every function is for one step.

    `query` takes from the state what leaves the loop, so that a state that is larger than what is
    read from it need not be kept for every step.
    """

    identity: Callable[..., Any]  # pair -> the pair of that shape that changes nothing
    combine: Callable[..., Any]  # pair, the pair after it -> pair
    apply: Callable[..., State]  # state, update -> state
    expand: Callable[..., Any] = lambda update: update  # update -> pair
    query: Callable[..., Any] = lambda state, update: state  # state after it, update -> reading


def scan(
    monoid: Monoid, how: Scan, initial: State, state: State, updates: Any, starts: Array
) -> tuple[State, Any]:
    """Apply updates [T, ...] in order, resetting to `initial` before those that `starts` [T] marks.

    Returns the last state and all readings [T, ...]. "sequential" is faster on a CPU,
    "associative" where thousands of lanes wait; "auto" takes one by JAX's default platform.
    Raises ValueError for another name.
    """
    if checks.known("scan", how, SCANS) == "auto":
        how = "sequential" if jax.default_backend() == "cpu" else "associative"
    unroll = sequential if how == "sequential" else associative
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


def associative(
    monoid: Monoid, initial: State, state: State, updates: Any, starts: Array
) -> tuple[State, Any]:
    """Combine updates [T, ...] as a tree, in log T rounds; see `scan`."""

    def combine(first: tuple[Array, Any], then: tuple[Array, Any]) -> tuple[Array, Any]:
        # A reset is a pair that forgets what came before it. The choice is made before combining,
        # for 0 x NaN is NaN: forward in a decay of zero, backward in a product that was not chosen.
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
    """Make updates of a decay that is the same at every step; it gets the axes of the addend."""
    return jax.tree.map(lambda a, b: jnp.broadcast_to(a, b.shape), decay, addend), addend


def _complex_identity(pair: Any) -> Any:
    decay, addend = pair
    one, zero = jnp.ones_like(decay.real), jnp.zeros_like(decay.real)
    return Complex(one, zero), jax.tree.map(jnp.zeros_like, addend)


# The same with Complex numbers.
COMPLEX = DIAGONAL._replace(identity=_complex_identity)
