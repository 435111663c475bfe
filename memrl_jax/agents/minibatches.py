"""Epochs over a rollout, in minibatches of equally many environments."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from memrl_jax import checks, draws, tree
from memrl_jax.types import Array, Key


def epochs(
    key: Key,
    carry: Any,
    make_batch: Callable[[Any], Any],
    update: Callable[[Any, Any], tuple[Any, dict[str, Array]]],
    count: int,
    minibatches: int,
    refresh: bool = False,
) -> tuple[Any, dict[str, Array]]:
    """Update `carry` with every minibatch of a rollout, for `count` epochs; metrics are summed.

    `make_batch`: carry -> the whole rollout as a batch, a NamedTuple of `memory` [B, ...] and other
    fields [time, B, ...]; it is called once, or with `refresh` before every epoch. `update`: carry,
    batch of B / minibatches environments, drawn without replacement -> (carry, metrics []). Raises
    ValueError unless `minibatches` divides B.
    """
    first = make_batch(carry)
    environments = jax.tree.leaves(first._replace(memory=()))[0].shape[1]  # B
    checks.divides("environments", environments, "minibatches", minibatches)

    def epoch(carry: Any, key: Key) -> tuple[Any, dict[str, Array]]:
        batch = make_batch(carry) if refresh else first
        if minibatches == 1:
            return update(carry, batch)
        order = draws.permutation(key, environments).reshape(minibatches, -1)
        carry, metrics = jax.lax.scan(lambda x, i: update(x, share(batch, i)), carry, order)
        return carry, tree.total(metrics)

    carry, metrics = jax.lax.scan(epoch, carry, draws.split(key, count))
    return carry, tree.total(metrics)


def share(batch: Any, index: Array) -> Any:
    """Return the part of a batch that belongs to the environments `index` [n]."""
    rest = jax.tree.map(lambda x: jnp.take(x, index, axis=1), batch._replace(memory=()))
    return rest._replace(memory=jax.tree.map(lambda x: tree.take(x, index), batch.memory))
