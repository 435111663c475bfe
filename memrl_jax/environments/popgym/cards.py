"""Cards drawn without replacement.

Of a shuffled deck, tasks need to know only how many cards of each kind (suits, ranks or colours)
are left: the next one is of a kind with the probability of its share. A permutation of the deck has
the same distribution, but takes 10 to 300 times as long, in every step that may begin an episode.
"""

from typing import Any

import jax.numpy as jnp

from memrl_jax import draws
from memrl_jax.types import Array, Key

DECK, COLORS, SUITS, RANKS = 52, 2, 4, 13
KINDS = {"colors": COLORS, "suits": SUITS, "ranks": RANKS}


def fresh(kinds: int, decks: int) -> Array:
    """Return how many cards of each kind some decks have, int32 [kinds]."""
    return jnp.full(kinds, DECK * decks // kinds, jnp.int32)


def draw(key: Key, left: Array) -> tuple[Array, Array]:
    """Draw a card: its kind, int32 [], and how many of each kind are left then [kinds]."""
    kind = pick(left, draws.randint(key, (), 0, jnp.sum(left, dtype=jnp.int32)))
    return kind, take(left, kind)


def draw_each(key: Key, *left: Array) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Draw a card of each deck `left` [kinds]: their kinds [], and what is left then."""
    totals = jnp.stack([jnp.sum(x, dtype=jnp.int32) for x in left])
    places = draws.randint(key, totals.shape, 0, totals)
    kinds = tuple(map(pick, left, places))
    return kinds, tuple(map(take, left, kinds))


def pick(left: Array, place: Any) -> Array:
    """Return the kind, int32 [], of the card at a place among those left [kinds], by kind."""
    return jnp.sum(jnp.cumsum(left) <= place, dtype=jnp.int32)


def take(left: Array, kind: Any) -> Array:
    """Return how many cards of each kind are left [kinds] when one of `kind` is taken."""
    return left - (jnp.arange(left.shape[0]) == kind)
