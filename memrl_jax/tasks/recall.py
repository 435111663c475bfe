"""Tasks that ask for one of the things that were shown."""

import math

import jax
import jax.numpy as jnp

from memrl_jax import draws
from memrl_jax.checks import above, at_least, positive, typed
from memrl_jax.tasks.base import (
    Example,
    Task,
    channel,
    one_hot,
    random_bits,
    rows_at,
    task_of_bits,
    task_of_symbols,
    uniform_int,
)
from memrl_jax.types import Array, Key


@typed
def remember_first(length: int = 32, symbols: int = 4) -> Task:
    """Remember the first of `length` random symbols; it is asked for at the last step only.

    Input [length, symbols + 1]: one-hot symbols, all uniformly random, and a last channel that
    is 1 at the first step. Target [length, symbols]. Without a memory, one answer in `symbols` is
    right. Raises ValueError for a `length` or `symbols` below 2.
    """
    at_least("length", length, 2)
    at_least("symbols", symbols, 2)

    def sample(key: Key) -> Example:
        vectors = one_hot(draws.randint(key, (length,), 0, symbols), symbols)
        step = jnp.arange(length)
        due = step == length - 1
        target = jnp.where(due[:, None], vectors[0], 0.0)
        return Example(jnp.hstack([vectors, channel(step == 0)]), target, due)

    return task_of_symbols(sample, symbols + 1, symbols, length)


@typed
def associative_recall(items: int = 6, fewest: int = 2, width: int = 3, bits: int = 6) -> Task:
    """Associative recall: items in a row, then one of them again; the answer is the next item.

    An item is `width` random vectors of `bits` after a delimiter; there are `fewest` to `items` of
    them in a sequence, all different. Any but the last may be the query, which stands between
    delimiters of another kind. Input [(items + 2)(width + 1), bits + 2], the last channels for the
    delimiters of items and of the query. Target [(items + 2)(width + 1), bits]. Raises ValueError
    for sizes below 1, for a `fewest` below 2, and for too many items to draw distinct ones
    quickly: items^2 above 2^(width bits).
    Graves et al. (2014), section 4.3.
    """
    at_least("items", items, at_least("fewest", fewest, 2))
    size = positive("width", width) * positive("bits", bits)
    if items**2 > 2 ** min(size, 64):
        raise ValueError(f"items: {items} are too many to differ in width x bits = {size} bits")

    def sample(key: Key) -> Example:
        bits_key, count_key, query_key = draws.split(key, 3)
        vectors = _distinct(bits_key, items, size).reshape(items * width, bits)
        count = uniform_int(count_key, fewest, items)
        query = uniform_int(query_key, 0, count - 2)
        # Blocks of one delimiter and one item: the items, the query, the answer.
        block, place = jnp.divmod(jnp.arange((items + 2) * (width + 1)), width + 1)
        listed, asked, answered = block < count, block == count, block == count + 1
        delimits, due = place == 0, answered & (place > 0)
        item = jnp.where(listed, block, query)
        shown = jnp.where((listed | asked) & ~delimits, item * width + place - 1, -1)
        target = jnp.where(due, (query + 1) * width + place - 1, -1)
        marks = [channel(delimits & listed), channel(delimits & (asked | answered))]
        return Example(jnp.hstack([rows_at(vectors, shown), *marks]), rows_at(vectors, target), due)

    return task_of_bits(sample, bits + 2, bits, (items + 2) * (width + 1))


def _distinct(key: Key, count: int, size: int) -> Array:
    """Return `count` rows of random bits [count, size], redrawn until all of them differ."""

    def repeated(drawn: tuple[Key, Array]) -> Array:
        same = jnp.all(drawn[1][:, None] == drawn[1], axis=-1)
        return jnp.sum(same) > count

    def draw(drawn: tuple[Key, Array]) -> tuple[Key, Array]:
        key, bits_key = draws.split(drawn[0])
        return key, random_bits(bits_key, count, size)

    first = draw((key, jnp.zeros((count, size), jnp.float32)))
    return jax.lax.while_loop(repeated, draw, first)[1]


@typed
def multi_query_recall(
    pairs: int = 4, length: int = 64, symbols: int = 64, power: float = 0.01
) -> Task:
    """Multi-query associative recall: keys and their values; then each key asks for its value.

    Keys are different symbols of one alphabet, values any of another, and each is shown in a step
    of its own; the pairs take the first 2 `pairs` steps. In the steps after them, every key is
    shown once more, at a random place where its value is due; all other inputs are zero. Places are
    drawn without replacement, the i-th (from 1) in proportion to i^(power - 1): 0.01 as in the
    paper's code, while 1 makes all equally likely. Input [length, 2 symbols], one-hot, keys first.
    Target [length, symbols]. The paper's alphabets are larger, of 4096 symbols each. Raises
    ValueError for sizes below 1, for `symbols` below `pairs` and for a `length` below 3 `pairs`.
    Arora et al. (2023), section 3.
    """
    at_least("symbols", symbols, positive("pairs", pairs))
    at_least("length", length, 3 * pairs)
    above("power", power, -math.inf)
    places = length - 2 * pairs
    weights = jnp.arange(1, places + 1, dtype=jnp.float32) ** (power - 1)

    def sample(key: Key) -> Example:
        key_key, value_key, place_key = draws.split(key, 3)
        keys = draws.choice(key_key, symbols, (pairs,), replace=False)
        values = draws.randint(value_key, (pairs,), 0, symbols)
        place = draws.choice(
            place_key, places, (pairs,), replace=False, p=weights / jnp.sum(weights)
        )
        asked = 2 * pairs + place
        shown = jnp.full(length, -1, jnp.int32).at[: 2 * pairs : 2].set(keys).at[asked].set(keys)
        shown = shown.at[1 : 2 * pairs : 2].set(symbols + values)
        target = jnp.full(length, -1, jnp.int32).at[asked].set(values)
        return Example(one_hot(shown, 2 * symbols), one_hot(target, symbols), target >= 0)

    return task_of_symbols(sample, 2 * symbols, symbols, length)
