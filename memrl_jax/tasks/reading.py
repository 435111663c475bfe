"""An end-to-end memory network that reads a story and answers one question.

Sukhbaatar et al. (2015), sections 2 and 4.1, and the authors' code where the two differ.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from memrl_jax import draws
from memrl_jax.memory.hops import Hop, HopTrace, attend
from memrl_jax.types import Array, Key

Params = dict[str, Array]


class Tables(NamedTuple):
    """Word vectors by their role, after tying: of V words and times, `d` numbers each."""

    query: Array  # [V, d], B in the paper
    keys: Array  # [hops, V, d] A
    values: Array  # [hops, V, d] C
    answer: Array  # [V, d] W
    carry: Array | None  # [d, d] H, maps the query between hops; None: the identity


def tie(params: Params, hops: int) -> Tables:
    """Return the tables of all `hops` from shared parameters; section 2.2."""
    if "words" in params:
        words = params["words"]
        return Tables(words[0], words[:-1], words[1:], words[-1], None)
    keys, values = (jnp.stack([params[name]] * hops) for name in ("key", "value"))
    return Tables(params["query"], keys, values, params["answer"], params.get("carry"))


def read(
    tables: Tables,
    story: Array,
    question: Array,
    encoding: Array,
    normalize: Callable[[Array], Array] = nn.softmax,
) -> tuple[HopTrace, Array]:
    """Answer one question: return the trace of all hops and logits [V].

    The last column of `story` [S, J + 1] holds times, which are words, too; without times it is
    [S, J]. `question` is [J]; `encoding` [J + 1, d] weighs the words of a sentence. Word 0 has a
    vector of zeros. Empty sentences stay in the softmax.
    """

    def embed(table: Array, words: Array) -> Array:
        return jnp.einsum("...jd,jd->...d", table[words], encoding[: words.shape[-1]])

    def join(u: Array, o: Array) -> Array:
        return o + (u if tables.carry is None else tables.carry @ u)

    def hop(key: Array, value: Array) -> Hop:
        keys, values = embed(key, story), embed(value, story)
        return Hop(lambda u: keys @ u, lambda weights: weights @ values, join)

    hops = [hop(*pair) for pair in zip(tables.keys, tables.values, strict=True)]
    trace = attend(embed(tables.query, question), hops, normalize)
    return trace, tables.answer @ trace.u[-1]


def ages(facts: Array) -> Array:
    """Return how many sentences come after each one, [S] int32; `facts` [S] marks sentences."""
    return jnp.sum(facts, dtype=jnp.int32) - 1 - jnp.arange(len(facts))


def noisy_ages(key: Key, facts: Array, noise: float) -> Array:
    """Return the ages [S] as if there were empty sentences, up to `noise` for each real one.

    Their number and their places are drawn uniformly.
    """
    count_key, place_key = draws.split(key)
    slots, count = len(facts), jnp.sum(facts, dtype=jnp.int32)
    blanks = draws.randint(count_key, (), 0, jnp.ceil(noise * count).astype(jnp.int32) + 1)
    place = jnp.arange(slots + math.ceil(noise * slots))
    drawn = draws.uniform(place_key, place.shape) + (place >= count + blanks)
    taken = jnp.where(place < count, jnp.argsort(drawn), len(place))
    return jnp.minimum(jnp.sort(taken)[ages(facts)], slots - 1)
