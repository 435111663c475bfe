"""Keys of seeds and of what they are for."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from memrl_jax import parallel
from memrl_jax.parallel import seed_keys

BORDER = (0, 1, 2, 5, 2**31, 2**32 - 2, 2**32 - 1, 2**32, 2**32 + 1, 2**33, 2**33 + 5, 2**64 + 1)


def words(keys: jax.Array) -> list[tuple[int, ...]]:
    return [tuple(key) for key in jax.random.key_data(keys).reshape(-1, 2).tolist()]


def test_keys_of_training_are_what_they_always_were() -> None:
    key = jax.random.fold_in(jax.random.key(3), 0)
    before = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(4))
    assert words(seed_keys(3, 4)) == words(before)
    assert words(seed_keys(3, 2)) == words(before)[:2]


def test_streams_have_nothing_in_common_beyond_32_bits_either() -> None:
    """Nor with the keys that a purpose makes of its own: splitting is folding in 0, 1, ..."""
    streams = [seed_keys(0, 3), *(seed_keys(0, 3, 1, t) for t in BORDER), seed_keys(0, 3, 2)]
    used = [words(keys) for keys in streams]
    split = [words(jax.vmap(partial(jax.random.split, num=6))(keys)) for keys in streams]
    every = [key for keys in used + split for key in keys]
    assert len(every) == len(streams) * 3 * 7
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("number", BORDER)
def test_no_number_is_the_beginning_of_another(number: int) -> None:
    split = parallel._words(number)
    assert all(0 <= word < 2**32 for word in split)
    for other in set(BORDER) - {number}:
        assert parallel._words(other)[: len(split)] != split


def test_what_is_padded_has_the_shapes_that_pad_gives() -> None:
    keys = seed_keys(0, 3)
    like = parallel.padded(jax.eval_shape(lambda: keys), 3)
    given = parallel.pad(keys, 3)
    assert (like.shape, like.dtype, like.sharding) == (given.shape, given.dtype, given.sharding)
