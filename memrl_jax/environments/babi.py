"""bAbI as episodes: a story is shown sentence by sentence, and the answer is an action."""

from pathlib import Path
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from memrl_jax import checks, draws
from memrl_jax.environments.base import Arrival, episodic
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.tasks.babi import Questions, generate, load
from memrl_jax.types import Array, Environment, Key


class Reading(NamedTuple):
    """The question of an episode, and how far its story has been read."""

    question: Array  # [] int32
    time: Array  # [] int32, index of the sentence shown; the question comes last


@checks.typed
def babi(
    task: int = 1,
    path: str | Path | None = None,
    split: Literal["train", "test"] = "train",
    count: int = 1000,
    seed: int = 0,
) -> Environment:
    """Answer questions about stories of one bAbI task; every episode is one question.

    Every timestep shows a sentence, the last one the question. The action taken there is the
    answer: it ends the episode, with reward 1 if it is right. Earlier actions do nothing. Questions
    come from the `split` of the original files in the folder `path` (see `tasks.babi.load`) or,
    without a path, from `tasks.babi.generate(task, seed, count)`.

    Observation, float32 [2 V + 1] for V words: the count of each word in the sentence, the sum of
    its positions there over the length of the longest sentence, and 1 if this is the question; all
    zeros after the answer. Actions: the answers of the task, in the order of the vocabulary. Raises
    ValueError for an unknown split, and as `load` and `generate` do.
    """
    checks.known("split", split, ("train", "test"))
    data = generate(task, seed, count) if path is None else load(path, task)
    questions: Questions = getattr(data, split)
    possible = np.unique(np.concatenate([data.train.answers, data.test.answers]))
    lines, lengths, answers = _script(questions, possible)
    n, horizon, width = lines.shape
    size = 2 * (len(data.vocabulary) - 1) + 1
    places = jnp.arange(1, width + 1, dtype=jnp.float32) / width

    def observe(state: Reading) -> Array:
        words = lines[state.question, jnp.minimum(state.time, horizon - 1)]
        bag = jnp.zeros((len(data.vocabulary), 2), jnp.float32)
        bag = bag.at[words].add(jnp.stack([jnp.ones(width), places], axis=1))[1:]
        left = lengths[state.question] - state.time
        shown = jnp.append(bag.T.ravel(), (left == 1).astype(jnp.float32))
        return jnp.where(left == 0, 0, shown)

    def first(key: Key) -> tuple[Reading, tuple[()]]:
        return Reading(draws.randint(key, (), 0, n), jnp.int32(0)), ()

    def step(key: Key, state: Reading, action: Array) -> Arrival:
        time = state.time + 1
        ends = time == lengths[state.question]
        right = ends & (action == answers[state.question])
        return Arrival(Reading(state.question, time), (), right, ends, False)

    observations = Continuous((size,), jnp.dtype(jnp.float32), 0.0, float(width))
    actions = Discrete(len(possible))
    return episodic(first, step, observations, actions, horizon, observe=observe)


def _script(questions: Questions, possible: np.ndarray) -> tuple[Array, Array, Array]:
    """Return the sentences shown [n, S + 1, J], their number [n], and the right actions [n]."""
    n, slots, width = questions.stories.shape
    lines = np.zeros((n, slots + 1, width), np.int32)
    lines[:, :slots] = questions.stories
    told = questions.facts.sum(axis=1)
    lines[np.arange(n), told] = questions.questions
    actions = np.searchsorted(possible, questions.answers)
    return jnp.array(lines), jnp.array(told + 1, jnp.int32), jnp.array(actions, jnp.int32)
