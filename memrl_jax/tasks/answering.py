"""Training of memory networks that answer questions about stories, as published.

Sukhbaatar et al. (2015), section 4.2, and the authors' code where the two differ. Training
is one pure function of a key and the questions, so restarts are `jax.vmap(train, (0, None))`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from memrl_jax import draws, tree
from memrl_jax.checks import UNROLLED, above, at_least, fields, known, positive, within
from memrl_jax.memory.hops import HopTrace
from memrl_jax.memory.memn2n import TYINGS, Tying, position_encoding
from memrl_jax.tasks.babi import Dataset, Questions
from memrl_jax.tasks.reading import Params, ages, noisy_ages, read, tie
from memrl_jax.types import Array, Key

EMBEDDED = ("query", "key", "value")
EVALUATED = 250  # questions at a time


class Setting(NamedTuple):
    """How to train; the defaults are those for one task with 1000 questions."""

    features: int = 20
    hops: int = 3
    tying: Tying = "adjacent"
    encode_positions: bool = True  # else a sentence is a bag of words
    noise: float = 0.1  # at most so many empty sentences for each real one
    linear_epochs: int = 20  # the first ones, without a softmax; 0: no linear start
    epochs: int = 100  # after the linear ones
    halve_every: int = 25
    learning_rate: float = 0.005  # 0.01 without a linear start
    batch_size: int = 32
    max_norm: float = 40.0  # of the gradient of each matrix
    held_out: float = 0.1  # share of the questions that is not trained on


SINGLE = Setting()
JOINT = Setting(features=50, linear_epochs=30, epochs=60, halve_every=15)


class Curves(NamedTuple):
    """Metrics of every epoch, including the linear ones."""

    loss: Array  # [epochs] mean over the questions trained on, with noise
    error: Array  # [epochs] share of these answered wrong
    held_out_error: Array  # [epochs] share of held-out questions; NaN if there are none


class Answerer(NamedTuple):
    """Pure functions of a memory network that answers the questions of one dataset."""

    init: Callable[[Key], Params]
    train: Callable[[Key, Questions], tuple[Params, Curves]]  # all epochs; jit it, vmap it
    answer: Callable[..., tuple[HopTrace, Array]]  # params, Questions -> traces, logits [n, V]
    wrong: Callable[..., Array]  # params, Questions -> [n] bool


def make_answerer(dataset: Dataset, setting: Setting = SINGLE) -> Answerer:
    """Make a memory network for the vocabulary and the sizes of `dataset`.

    Weights begin as 0.1 N(0, 1), the vector of word 0 (none) as zero. An epoch is one pass over the
    questions in random order, in whole batches; the loss is summed over a batch, without momentum
    or weight decay. As in the code, the softmax comes back after a set number of epochs (in the
    paper: when the loss of held-out questions stops falling) and the last parameters are kept.
    Raises ValueError for sizes below 1, shares outside [0, 1], a rate or norm that is not above 0,
    another `tying`, and a batch larger than the number of questions trained on.
    """
    fields(setting)
    above("learning_rate", setting.learning_rate, 0)
    above("max_norm", setting.max_norm, 0)
    n = len(dataset.train.stories)
    learned = n - int(n * within("held_out", setting.held_out, 0.0, 1.0))
    batches = learned // positive("batch_size", setting.batch_size)
    if not batches:
        raise ValueError(f"batch_size: {setting.batch_size} is more than the {learned} to learn")
    init, predict = _reader(dataset, setting)
    epoch = _epoch(predict, setting, batches)

    def answer(params: Params, questions: Questions) -> tuple[HopTrace, Array]:
        return jax.lax.map(
            lambda one: predict(params, one, ages(one.facts)), questions, batch_size=EVALUATED
        )

    def wrong(params: Params, questions: Questions, linear: Any = False) -> Array:
        def miss(one: Questions) -> Array:
            _, logits = predict(params, one, ages(one.facts), linear)
            return jnp.argmax(logits) != one.answers

        return jax.lax.map(miss, questions, batch_size=EVALUATED)

    def train(key: Key, questions: Questions) -> tuple[Params, Curves]:
        init_key, split_key, key = draws.split(key, 3)
        order = draws.permutation(split_key, n)
        learn, held_out = (tree.at(questions, i) for i in (order[:learned], order[learned:]))

        def step(params: Params, plan: Any) -> tuple[Params, Curves]:
            key, linear, rate = plan
            params, (cost, error) = epoch(params, key, learn, linear, rate)
            return params, Curves(cost, error, jnp.mean(wrong(params, held_out, linear)))

        linear, rates = schedule(setting)
        return jax.lax.scan(step, init(init_key), (draws.split(key, len(rates)), linear, rates))

    return Answerer(init, train, answer, wrong)


def _reader(dataset: Dataset, setting: Setting) -> tuple[Callable, Callable]:
    """Return `init(key)` and `predict(params, question, ages, linear) -> trace, logits`."""
    _, slots, width = dataset.train.stories.shape
    hops, words = positive("hops", setting.hops, UNROLLED), len(dataset.vocabulary)
    shapes = _shapes(setting, words + slots)
    encode = position_encoding if setting.encode_positions else _bag_of_words
    encoding = jnp.asarray(encode(setting.features, width + 1))

    def init(key: Key) -> Params:
        keys = dict(zip(shapes, draws.split(key, len(shapes)), strict=True))
        drawn = {name: draws.normal(keys[name], shape) for name, shape in shapes.items()}
        return _nil_is_zero({name: 0.1 * x for name, x in drawn.items()})

    def predict(params: Params, one: Questions, age: Array, linear: Any = False) -> Any:
        times = jnp.where(one.facts, words + age, 0)
        story = jnp.concatenate([one.stories, times[:, None]], axis=1)

        def normalize(scores: Array) -> Array:
            return jnp.where(linear, scores, nn.softmax(scores))

        return read(tie(params, hops), story, one.questions, encoding, normalize)

    return init, predict


def _epoch(predict: Callable, setting: Setting, batches: int) -> Callable:
    """Return `epoch(params, key, questions, linear, rate) -> params, (loss, error)`."""
    noise = within("noise", setting.noise, 0.0, 1.0)

    def loss(params: Params, key: Key, one: Questions, linear: Array) -> tuple[Array, Array]:
        _, logits = predict(params, one, noisy_ages(key, one.facts, noise), linear)
        return -nn.log_softmax(logits)[one.answers], jnp.argmax(logits) != one.answers

    def total(params: Params, key: Key, batch: Questions, linear: Array) -> tuple[Array, Array]:
        keys = draws.split(key, setting.batch_size)
        losses, errors = jax.vmap(loss, (None, 0, 0, None))(params, keys, batch, linear)
        return jnp.sum(losses), jnp.sum(errors)

    def epoch(params: Params, key: Key, learn: Questions, linear: Array, rate: Array) -> Any:
        order_key, noise_key = draws.split(key)
        order = draws.permutation(order_key, len(learn.answers))
        order = order[: batches * setting.batch_size]
        shuffled = tree.at(learn, order.reshape(batches, setting.batch_size))

        def update(params: Params, batch: tuple[Key, Questions]) -> tuple[Params, Any]:
            sums, gradient = jax.value_and_grad(total, has_aux=True)(params, *batch, linear)
            return descend(params, gradient, rate, setting.max_norm), sums

        params, sums = jax.lax.scan(update, params, (draws.split(noise_key, batches), shuffled))
        return params, [jnp.sum(x) / order.size for x in sums]

    return epoch


def _bag_of_words(features: int, words: int) -> np.ndarray:
    return np.ones((words, features), np.float32)


def _shapes(setting: Setting, symbols: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parameters for words and times, `symbols` together."""
    d = positive("features", setting.features)
    if known("tying", setting.tying, TYINGS) == "adjacent":
        return {"words": (setting.hops + 1, symbols, d)}
    tables = dict.fromkeys((*EMBEDDED, "answer"), symbols)
    return {name: (rows, d) for name, rows in (tables | {"carry": d}).items()}


def _nil_is_zero(params: Params) -> Params:
    """Return parameters in which the vectors of word 0, which stands for no word, are zero."""
    embedded = params.keys() & {"words", *EMBEDDED}
    return params | {name: params[name].at[..., 0, :].set(0) for name in embedded}


def descend(params: Params, gradient: Params, rate: Array, max_norm: float) -> Params:
    """Take a gradient step, with the gradient of each matrix [..., n, d] clipped to `max_norm`.

    The norm is the Frobenius norm, as in the paper; the authors' code takes the spectral norm.
    """

    def moved(x: Array, g: Array) -> Array:
        norm = jnp.sqrt(jnp.sum(g**2, axis=(-2, -1), keepdims=True))
        return x - rate * g * (max_norm / jnp.maximum(norm, max_norm))

    return _nil_is_zero(jax.tree.map(moved, params, gradient))


def schedule(setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Return for each epoch whether it has no softmax, and its learning rate: [epochs] each."""
    at_least("linear_epochs", setting.linear_epochs, 0)
    after = np.arange(1, positive("epochs", setting.epochs) + 1)
    halvings = after // positive("halve_every", setting.halve_every)
    halvings = np.concatenate([np.zeros(setting.linear_epochs, int), halvings])
    linear = np.arange(len(halvings)) < setting.linear_epochs
    return linear, (setting.learning_rate * 0.5**halvings).astype(np.float32)


def best(restarts: tuple[Params, Curves]) -> tuple[Params, Curves]:
    """Return the one of batched `restarts` [n, ...] with the lowest loss in its last epoch."""
    lowest = jnp.argmin(restarts[1].loss[:, -1])
    return tree.at(restarts, lowest)
