"""bAbI: questions about short stories, from the original files or written here.

The original text is not part of this project; `load` reads it from a folder of the user's, and
`generate` writes stories in the style of some of its tasks, with other words.
"""

import gzip
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from memrl_jax.checks import Seed, at_least, positive, typed, within
from memrl_jax.tasks.stories import Sentence, Told, tell
from memrl_jax.types import Array

TASKS = range(1, 21)
SLOTS = 50  # most sentences of a story; of longer ones, the most recent are kept
NIL = "nil"


class Questions(NamedTuple):
    """Questions and the stories before them, n of each; words are indices into a vocabulary."""

    stories: Array  # [n, S, J] int32 words of the sentences, the oldest first; 0 where none
    facts: Array  # [n, S] bool, where there is a sentence
    support: Array  # [n, S] bool, the sentences that the answer follows from
    questions: Array  # [n, J] int32
    answers: Array  # [n] int32; an answer of several words counts as one word
    tasks: Array  # [n] int32, task numbers


class Dataset(NamedTuple):
    """Training questions and test questions."""

    train: Questions
    test: Questions
    vocabulary: tuple[str, ...]  # of both; the first stands for no word


@typed
def load(path: str | Path, task: int | Sequence[int] = TASKS) -> Dataset:
    """Read the files of one task, or of several to be learned jointly, from a folder.

    The folder is one of the original ones, such as `tasks_1-20_v1-2/en`, with files
    qa1_..._train.txt and qa1_..._test.txt to qa20, plain or gzipped. Raises ValueError for a folder
    or file that is missing or unreadable, an unknown task, and a question without an answer.
    Weston et al. (2015); vocabulary and truncation as in the code of Sukhbaatar et al. (2015).
    """
    if not Path(path).is_dir():
        raise ValueError(f"path: there is no folder {str(path)!r}")
    tasks = list(task) if isinstance(task, Sequence) else [task]
    positive("len(task)", len(tasks))
    for number in tasks:
        within("task", number, TASKS[0], TASKS[-1])
    parts = [[_read(path, number, part) for number in tasks] for part in ("train", "test")]
    return arrange(tasks, *parts)


@typed
def generate(task: int, seed: Seed = 0, count: int = 1000) -> Dataset:
    """Write `count` training questions and as many test questions, each with its own story.

    In the style of tasks 1 (one supporting fact), 2 (two), 4 (relations of two), 6 (yes or no) and
    15 (deduction). Raises ValueError for another task, a `count` below 1 and a `seed` below 0.
    """
    positive("count", count)
    at_least("seed", seed, 0, 2**32 - 1)
    rng = np.random.default_rng(seed)
    train, test = ([tell(task, rng) for _ in range(count)] for _ in range(2))
    return arrange([task], [train], [test])


def _read(path: str | Path, task: int, part: str) -> list[Told]:
    """Read one file."""
    files = sorted(Path(path).glob(f"qa{task}_*_{part}.txt*"))
    if not files:
        raise ValueError(f"path: there is no qa{task}_*_{part}.txt or .txt.gz in {str(path)!r}")
    opened = gzip.open if files[0].suffix == ".gz" else open
    try:
        with opened(files[0], "rt", encoding="utf-8") as lines:
            return list(parse(lines))
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"path: {files[0]} cannot be read ({error})") from None


def parse(lines: Iterator[str]) -> Iterator[Told]:
    """Yield each question in the numbered lines of a file, with the story before it."""
    story: list[Sentence] = []
    place: dict[int, int] = {}  # line number -> index of its sentence in the story
    for line in lines:
        number, text = line.lower().split(maxsplit=1)
        if number == "1":
            story, place = [], {}
        asked, mark, rest = text.partition("?")
        if not mark:
            place[int(number)] = len(story)
            story.append(_words(text))
            continue
        # Tabs separate question, answer and support; in some copies of the files, bars do.
        answer, *support = re.split(r"[\s|]+", rest.strip(" \t\r\n|"))
        if not answer:
            raise ValueError(f"the question {asked!r} has no answer")
        told = tuple(place[int(n)] for n in support)
        yield Told(tuple(story), _words(asked), answer, told)


def _words(text: str) -> Sentence:
    return tuple(word.rstrip(".") for word in text.split())


def arrange(
    tasks: Sequence[int], train: Sequence[list[Told]], test: Sequence[list[Told]]
) -> Dataset:
    """Turn questions and stories, one list for each of `tasks`, into arrays of one size."""
    told = [one for part in (*train, *test) for one in part]
    sentences = dict.fromkeys(sentence for one in told for sentence in (*one.story, one.question))
    words = dict.fromkeys([NIL, *(w for s in sentences for w in s), *(one.answer for one in told)])
    ids = {word: i for i, word in enumerate(words)}
    size = min(SLOTS, max(len(one.story) for one in told)), max(map(len, sentences))
    numbers = [np.repeat(tasks, [len(part) for part in parts]) for parts in (train, test)]
    both = [
        _arrays([one for part in parts for one in part], number, ids, size)
        for parts, number in zip((train, test), numbers, strict=True)
    ]
    return Dataset(both[0], both[1], tuple(words))


def _arrays(
    told: list[Told], tasks: np.ndarray, ids: dict[str, int], size: tuple[int, int]
) -> Questions:
    n, (slots, width) = len(told), size
    stories = np.zeros((n, slots, width), np.int32)
    facts, support = np.zeros((2, n, slots), bool)
    questions = np.zeros((n, width), np.int32)
    for i, one in enumerate(told):
        before = max(0, len(one.story) - slots)
        for s, sentence in enumerate(one.story[before:]):
            stories[i, s, : len(sentence)] = [ids[word] for word in sentence]
        facts[i, : len(one.story)] = True
        support[i, [s - before for s in one.support if s >= before]] = True
        questions[i, : len(one.question)] = [ids[word] for word in one.question]
    answers = np.array([ids[one.answer] for one in told], np.int32)
    arrays = stories, facts, support, questions, answers, tasks.astype(np.int32)
    return Questions(*map(jnp.asarray, arrays))
