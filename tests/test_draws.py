"""Draws are jax's own, bit for bit, and no loops."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax import draws

DRAWS = {
    "bernoulli": partial(draws.bernoulli, p=0.3, shape=(5,)),
    "categorical": partial(draws.categorical, logits=jnp.arange(3.0), shape=(7,)),
    "choice": partial(draws.choice, a=9, shape=(4,), replace=False),
    "fold_in": partial(draws.fold_in, data=2**31 + 5),
    "normal": partial(draws.normal, shape=(2, 3)),
    "permutation": partial(draws.permutation, x=11),
    "rademacher": partial(draws.rademacher, shape=(3,)),
    "randint": partial(draws.randint, shape=(6,), minval=-3, maxval=1_000),
    "split": partial(draws.split, num=(2, 3)),
    "uniform": partial(draws.uniform, shape=()),
    "uniform of many": partial(draws.uniform, shape=(3, 500)),
}


def data(x):
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


@pytest.mark.parametrize("name", DRAWS)
def test_the_bits_are_those_of_jax(name):
    draw = DRAWS[name]
    plain = partial(getattr(jax.random, name.split()[0]), **draw.keywords)
    keys = jax.random.split(jax.random.key(3), 4)
    ours, theirs = draw(keys[0]), plain(keys[0])
    assert ours.dtype == theirs.dtype  # keys too
    np.testing.assert_array_equal(data(ours), data(theirs))
    np.testing.assert_array_equal(data(jax.vmap(draw)(keys)), data(jax.vmap(plain)(keys)))


@pytest.mark.parametrize("width", [8, 16, 32])
def test_bits_of_every_width_are_those_of_jax(width):
    key, dtype = jax.random.key(1), jnp.dtype(f"uint{width}")
    ours = jax.random.bits(draws._unrolled(key), (9,), dtype)
    np.testing.assert_array_equal(ours, jax.random.bits(key, (9,), dtype))


def test_long_numbers_are_those_of_jax():
    with jax.enable_x64(True):
        key = jax.random.key(1)
        ours = jax.random.bits(draws._unrolled(key), (9,), jnp.uint64)
        np.testing.assert_array_equal(ours, jax.random.bits(key, (9,), jnp.uint64))


def test_seeds_of_unrolled_keys_are_those_of_jax():
    key = jax.random.key(7)
    impl = jax.random.key_impl(draws._unrolled(key))
    np.testing.assert_array_equal(data(jax.random.key(7, impl=impl)), data(key))


def test_nothing_is_computed_in_a_loop():
    program = jax.jit(partial(draws.uniform, shape=(3, 500))).lower(jax.random.key(0)).as_text()
    assert "while" not in program


@pytest.mark.parametrize("make", [jax.random.PRNGKey, partial(jax.random.key, impl="rbg")])
def test_other_keys_are_left_alone(make):
    key = make(0)
    assert draws._unrolled(key) is key
    np.testing.assert_array_equal(draws.uniform(key, (3,)), jax.random.uniform(key, (3,)))


def test_unrolled_keys_stay_so():
    key = draws._unrolled(jax.random.key(0))
    assert draws._unrolled(key) is key
    assert draws.split(key).dtype == key.dtype


def test_a_small_draw_begins_with_no_copies_of_constants():
    """XLA spreads what waits for nothing over threads; jax's loops begin with three such copies."""

    def copies(uniform):
        def draw(key, i):
            return uniform(draws.fold_in(key, i), (3,))

        loop = jax.jit(lambda key: jax.lax.map(partial(draw, key), jnp.arange(5)))
        text = loop.lower(jax.random.key(0)).compile().as_text()
        assert text is not None
        return text.count("u32[4]{0} copy(")

    assert copies(jax.random.uniform) > 0 == copies(draws.uniform)
