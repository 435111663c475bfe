"""What a task is: labelled sequences drawn from a key, and how answers to them are scored."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from memrl_jax import draws
from memrl_jax.types import Array, Key


class Example(NamedTuple):
    """One sequence; the target is zero wherever no answer is due."""

    input: Array  # [T, D] float32
    target: Array  # [T, O] float32
    mask: Array  # [T] bool: an answer is due here


class Task(NamedTuple):
    """A supervised probe of memory, for one sequence; batch it with vmap.

    Every step where an answer is due counts as `answers` answers: O bits, or one symbol.
    """

    sample: Callable[[Key], Example]  # key -> Example
    inputs: int  # D
    outputs: int  # O
    length: int  # T
    loss: Callable[[Array, Array], Array]  # logits [O], target [O] -> []
    errors: Callable[[Array, Array], Array]  # logits [O], target [O] -> [], how many are wrong
    answers: int


def task_of_bits(sample: Callable[[Key], Example], inputs: int, outputs: int, length: int) -> Task:
    """Make a task that asks for O bits at a step, each of them right or wrong."""
    return Task(sample, inputs, outputs, length, bit_loss, bit_errors, answers=outputs)


def task_of_symbols(
    sample: Callable[[Key], Example], inputs: int, outputs: int, length: int
) -> Task:
    """Make a task whose answers are one of O symbols; targets are one-hot."""
    return Task(sample, inputs, outputs, length, symbol_loss, symbol_errors, answers=1)


def bit_loss(logits: Array, target: Array) -> Array:
    """Return the cross-entropy [], in nats, of independent bits [O], summed over them."""
    return jnp.sum(optax.sigmoid_binary_cross_entropy(logits, target))


def bit_errors(logits: Array, target: Array) -> Array:
    """Return how many bits [O] are wrong, float32 []; a logit above 0 predicts a 1."""
    return jnp.sum((logits > 0) != (target > 0.5), dtype=jnp.float32)


def symbol_loss(logits: Array, target: Array) -> Array:
    """Return the cross-entropy [], in nats, of one symbol [O]."""
    return optax.softmax_cross_entropy(logits, target)


def symbol_errors(logits: Array, target: Array) -> Array:
    """Return 1 if the likeliest of the symbols [O] is not the true one, else 0; float32 []."""
    return (jnp.argmax(logits) != jnp.argmax(target)).astype(jnp.float32)


def score(task: Task, logits: Array, example: Example) -> dict[str, Array]:
    """Return the sums `loss`, `errors` and `answers` of logits [T, O] over one sequence."""

    def total(values: Array) -> Array:
        return jnp.sum(jnp.where(example.mask, values, 0.0))

    return {
        "loss": total(jax.vmap(task.loss)(logits, example.target)),
        "errors": total(jax.vmap(task.errors)(logits, example.target)),
        "answers": total(jnp.full(example.mask.shape, task.answers, jnp.float32)),
    }


def rows_at(rows: Array, index: Array) -> Array:
    """Return `rows[index]` [T, ...], with zeros where `index` [T] is out of range."""
    return rows.at[index].get(mode="fill", fill_value=0, wrap_negative_indices=False)


def channel(where: Array) -> Array:
    """Return an input channel [T, 1] float32 that is 1 at the steps marked in `where` [T]."""
    return where[:, None].astype(jnp.float32)


def random_bits(key: Key, *shape: int) -> Array:
    """Return random bits [*shape] float32, 0 and 1 equally likely."""
    return draws.bernoulli(key, 0.5, shape).astype(jnp.float32)


def one_hot(symbols: Array, count: int) -> Array:
    """Return `symbols` as vectors [..., count] float32; zeros for a symbol out of range."""
    return jax.nn.one_hot(symbols, count, dtype=jnp.float32)


def uniform_int(key: Key, low: int, high: int) -> Any:
    """Return an integer [] drawn uniformly from low to high, inclusive."""
    return draws.randint(key, (), low, high + 1)
