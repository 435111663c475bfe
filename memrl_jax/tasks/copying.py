"""Tasks that ask for everything that was shown, in order."""

import jax.numpy as jnp

from memrl_jax import draws
from memrl_jax.checks import at_least, positive, typed
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
from memrl_jax.types import Key

# The paper's repeats are uniform on 1 to 10; their mean and standard deviation scale the input.
REPEATS_MEAN = (1 + 10) / 2
REPEATS_DEVIATION = ((10**2 - 1) / 12) ** 0.5


@typed
def copy(bits: int = 8, length: int = 20, shortest: int = 1) -> Task:
    """Copy: `shortest` to `length` random vectors, a delimiter, then all of them again.

    Input [2 length + 1, bits + 1], the last channel for the delimiter; the input is zero while
    vectors are asked for and afterwards. Target [2 length + 1, bits]. Raises ValueError for sizes
    below 1, and for a `length` below `shortest`.
    Graves et al. (2014), section 4.1.
    """
    positive("bits", bits)
    at_least("length", length, positive("shortest", shortest))

    def sample(key: Key) -> Example:
        bits_key, count_key = draws.split(key)
        vectors = random_bits(bits_key, length, bits)
        count = uniform_int(count_key, shortest, length)
        step = jnp.arange(2 * length + 1)
        shown = rows_at(vectors, jnp.where(step < count, step, -1))
        asked = step - count - 1
        due = (asked >= 0) & (asked < count)
        target = rows_at(vectors, jnp.where(due, asked, -1))
        return Example(jnp.hstack([shown, channel(step == count)]), target, due)

    return task_of_bits(sample, bits + 1, bits, 2 * length + 1)


@typed
def repeat_copy(
    bits: int = 8, length: int = 10, repeats: int = 10, shortest: int = 1, fewest: int = 1
) -> Task:
    """Repeat copy: random vectors, a number, then the vectors that many times and an end marker.

    There are `shortest` to `length` vectors and `fewest` to `repeats` repetitions. Input
    [T, bits + 1], T = length + 1 + length repeats + 1; the last channel holds the number at its
    step and is 0 elsewhere. The number is always scaled as in the paper, to mean 0 and variance 1
    for 1 to 10 repeats, so that its meaning does not depend on `repeats`. Target [T, bits + 1], the
    last channel for the end marker, which follows the last repetition. Raises ValueError for sizes
    below 1, and for a `length` below `shortest` or `repeats` below `fewest`.
    Graves et al. (2014), section 4.2.
    """
    positive("bits", bits)
    at_least("length", length, positive("shortest", shortest))
    at_least("repeats", repeats, positive("fewest", fewest))
    steps = length + 1 + length * repeats + 1

    def sample(key: Key) -> Example:
        bits_key, count_key, times_key = draws.split(key, 3)
        vectors = random_bits(bits_key, length, bits)
        count = uniform_int(count_key, shortest, length)
        times = uniform_int(times_key, fewest, repeats)
        step = jnp.arange(steps)
        shown = rows_at(vectors, jnp.where(step < count, step, -1))
        number = (times - REPEATS_MEAN) / REPEATS_DEVIATION * channel(step == count)
        asked = step - count - 1
        due = (asked >= 0) & (asked < count * times)
        copied = rows_at(vectors, jnp.where(due, asked % count, -1))
        end = asked == count * times
        return Example(jnp.hstack([shown, number]), jnp.hstack([copied, channel(end)]), due | end)

    return task_of_bits(sample, bits + 1, bits + 1, steps)


@typed
def selective_copying(symbols: int = 15, count: int = 16, length: int = 4096) -> Task:
    """Selective copying: `count` symbols at random places in `length` steps, then all in order.

    Input [length + count, symbols + 1]: one-hot symbols, zeros between them (the paper's noise
    token), and a last channel that is 1 whenever a symbol is asked for. Every set of places is
    equally likely. Target [length + count, symbols]. Raises ValueError for sizes below 1, and for a
    `length` below `count`.
    Jing et al. (2019), denoise task; Gu & Dao (2023), section 4.1.1.
    """
    positive("symbols", symbols)
    at_least("length", length, positive("count", count))

    def sample(key: Key) -> Example:
        symbol_key, place_key = draws.split(key)
        answer = draws.randint(symbol_key, (count,), 0, symbols)
        places = jnp.sort(draws.choice(place_key, length, (count,), replace=False))
        vectors = one_hot(answer, symbols)
        shown = jnp.zeros((length + count, symbols), jnp.float32).at[places].set(vectors)
        due = jnp.arange(length + count) >= length
        target = jnp.zeros_like(shown).at[length:].set(vectors)
        return Example(jnp.hstack([shown, channel(due)]), target, due)

    return task_of_symbols(sample, symbols + 1, symbols, length + count)
