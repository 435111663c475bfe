"""Functions on whole pytrees."""

import jax
import jax.numpy as jnp
import pytest

from memrl_jax import tree

LAST = 2**31 - 1


@pytest.mark.parametrize(
    "x, n, total",
    [
        (0, 0, 0),
        (5, 3, 8),
        (LAST - 1, 1, LAST),
        (LAST - 3, 4, LAST),
        (LAST, 1, LAST),
        (LAST, LAST, LAST),
    ],
)
def test_counts_end_at_the_largest_int32(x: int, n: int, total: int) -> None:
    for count in (tree.count, jax.jit(tree.count)):
        counted = count(jnp.int32(x), jnp.int32(n))
        assert counted.dtype == jnp.int32 and counted == total
    assert tree.count(jnp.array([x, 0], jnp.int32), n).tolist() == [total, n]
