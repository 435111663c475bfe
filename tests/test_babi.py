"""bAbI: reading the files, writing stories, answering by a memory network and by actions."""

import gzip
import os
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.environments import ENVIRONMENTS
from memrl_jax.tasks.answering import Setting, best, descend, make_answerer, schedule
from memrl_jax.tasks.babi import Dataset, Questions, generate, load

WRITTEN = (1, 2, 4, 6, 15)
GOLDEN = Path(os.environ.get("MEMRL_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))
ORIGINAL = GOLDEN / "babi" / "en"
every_task = pytest.mark.parametrize("task", WRITTEN)
original = pytest.mark.skipif(not ORIGINAL.is_dir(), reason=f"no original files in {ORIGINAL}")

TRAIN = """1 Kim went to the barn.
2 Lou picked up the map.
3 Where is Kim? \tbarn\t1
4 Kim went to the shed.
5 Where is Kim?\tshed\t4
1 Lou went to the barn.
2 How does Lou go out? |n,W|1
"""
TEST = """1 Kim went out.
2 Where is the map? \tnowhere\t1
"""


def write(folder: Path, task: int, train: str = TRAIN, test: str = TEST) -> Path:
    (folder / f"qa{task}_made-up_train.txt").write_text(train)
    with gzip.open(folder / f"qa{task}_made-up_test.txt.gz", "wt") as file:
        file.write(test)
    return folder


def spell(data: Dataset, words: Any) -> str:
    return " ".join(data.vocabulary[word] for word in words if word)


def told(data: Dataset, questions: Questions, i: int, which: Any = None) -> list[str]:
    """Spell the sentences of a story, or those chosen."""
    which = questions.facts[i] if which is None else which
    return [spell(data, words) for words in np.asarray(questions.stories[i])[np.asarray(which)]]


def test_files_are_read_line_by_line(tmp_path):
    data = load(write(tmp_path, 7), 7)
    train, test, vocabulary = data
    assert vocabulary[0] == "nil" and len(set(vocabulary)) == len(vocabulary)
    assert told(data, train, 0) == ["kim went to the barn", "lou picked up the map"]
    assert told(data, train, 1)[2:] == ["kim went to the shed"]
    assert told(data, train, 2) == ["lou went to the barn"]
    assert [spell(data, q) for q in train.questions] == ["where is kim"] * 2 + [
        "how does lou go out"
    ]
    assert [vocabulary[a] for a in train.answers] == ["barn", "shed", "n,w"]
    np.testing.assert_array_equal(train.support, [[1, 0, 0], [0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(train.facts.sum(axis=1), [2, 3, 1])
    assert told(data, test, 0) == ["kim went out"] and vocabulary[test.answers[0]] == "nowhere"
    assert train.stories.shape == (3, 3, 5) and test.stories.shape == (1, 3, 5)
    assert (train.tasks == 7).all()
    assert all(x.dtype in (jnp.int32, bool) for x in train)


def test_of_a_long_story_the_end_is_kept(tmp_path):
    lines = [f"{i} Kim went to room{i}." for i in range(1, 61)]
    data = load(write(tmp_path, 1, "\n".join([*lines, "61 Where is Kim?\troom60\t5 60\n"])), 1)
    assert data.train.stories.shape[1] == 50
    assert told(data, data.train, 0)[0] == "kim went to room11"
    np.testing.assert_array_equal(data.train.support[0], np.arange(50) == 49)


def test_tasks_are_joined_in_one_vocabulary(tmp_path):
    write(tmp_path, 1)
    write(tmp_path, 2, train=TEST, test=TRAIN)
    data = load(tmp_path, [1, 2])
    np.testing.assert_array_equal(data.train.tasks, [1, 1, 1, 2])
    np.testing.assert_array_equal(data.test.tasks, [1, 2, 2, 2])
    assert told(data, data.train, 3) == ["kim went out"]
    assert told(data, data.test, 3) == ["lou went to the barn"]


@pytest.mark.parametrize(
    "path, task, message",
    [
        ("absent", 1, r"path: there is no folder '.*absent'"),
        (".", 21, "task: 21 is not between 1 and 20"),
        (".", 5, r"path: there is no qa5_\*_train.txt or .txt.gz in '.*'"),
        (".", 3, r"path: .*qa3_.* cannot be read \(the question 'where is kim' has no answer\)"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path, path, task, message):
    write(tmp_path, 3, train="1 Kim went out.\n2 Where is Kim?\n")
    with pytest.raises(ValueError, match=f"^{message}$"):
        load(tmp_path / path, task)


@original
def test_the_original_files_are_read_whole():
    """Counts of the data set's own description: 1000 questions each way; answers are in stories."""
    data = load(ORIGINAL, 1)
    assert data.train.stories.shape == data.test.stories.shape == (1000, 10, 6)
    assert len(data.vocabulary) == 20
    places = {data.vocabulary[a] for a in np.unique(data.train.answers)}
    assert places == {"bathroom", "bedroom", "garden", "hallway", "kitchen", "office"}
    for i in range(0, 1000, 99):
        (sentence,) = told(data, data.train, i, data.train.support[i])
        assert sentence.split()[-1] == data.vocabulary[data.train.answers[i]]
    directions = load(ORIGINAL, 19)
    assert "n,w" in directions.vocabulary and directions.train.facts.sum() == 5000


@pytest.mark.parametrize("task", [3, 21])
def test_only_some_tasks_are_written(task):
    with pytest.raises(
        ValueError, match=rf"^task: '{task}' is unknown; .*\(one of: 1, 2, 4, 6, 15"
    ):
        generate(task)


WENT = re.compile(r"(\w+) (?:walks|runs|hurries) to the (\w+)")
TOOK = re.compile(r"(\w+) (?:takes|fetches|lifts) the (\w+)")
DROPPED = re.compile(r"(\w+) (?:drops|loses|leaves) the (\w+)")
BESIDE = re.compile(r"the (\w+) is (\w+) of the (\w+)")
FEARS = re.compile(r"every (\w+) fears the (\w+)")
IS_A = re.compile(r"(\w+) is a (\w+)")
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


def follow(story: list[str]) -> dict[Any, str]:
    """Tell what holds at the end of a story."""
    world: dict[Any, str] = {}
    holder: dict[str, str] = {}
    for line in story:
        if found := WENT.fullmatch(line):
            who, place = found.groups()
            world[who] = place
            world.update({thing: place for thing, person in holder.items() if person == who})
        elif found := TOOK.fullmatch(line):
            holder[found[2]] = found[1]
        elif found := DROPPED.fullmatch(line):
            holder.pop(found[2], None)
            world[found[2]] = world[found[1]]
        elif found := BESIDE.fullmatch(line):
            a, side, b = found.groups()
            world |= {(side, b): a, (OPPOSITE[side], a): b}
        else:
            found = FEARS.fullmatch(line) or IS_A.fullmatch(line)
            assert found, line
            world[found[1]] = found[2]
    return world


def reply(task: int, story: list[str], question: str) -> str:
    """Answer from the story alone."""
    world, words = follow(story), question.split()
    if task == 6:
        return "yes" if world[words[1]] == words[-1] else "no"
    if task == 4:
        of_last = words[-1] == "of"  # what is the a north of: b, of which a is north
        return world[(OPPOSITE[words[4]], words[3]) if of_last else (words[2], words[-1])]
    return world[world[words[2]]] if task == 15 else world[words[-1]]


@every_task
def test_written_questions_follow_from_their_stories(task):
    """And from the supporting sentences alone, of which none can be spared."""
    data = generate(task, seed=3, count=150)
    for questions in (data.train, data.test):
        questions = jax.tree.map(np.asarray, questions)
        assert len(questions.answers) == 150
        for i in range(150):
            asked, answer = spell(data, questions.questions[i]), questions.answers[i]
            assert reply(task, told(data, questions, i), asked) == data.vocabulary[answer]
            needed = told(data, questions, i, questions.support[i])
            assert reply(task, needed, asked) == data.vocabulary[answer]
            assert len(needed) == (2 if task in (2, 15) else 1)


@every_task
def test_written_questions_have_no_favourite_answer(task):
    answers = np.asarray(generate(task, seed=0, count=600).train.answers)
    shares = np.array(list(Counter(answers.tolist()).values())) / 600
    assert shares.max() < (0.6 if task == 6 else 0.4)


def test_writing_is_repeatable():
    first, again, other = (generate(1, seed, 20) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first.train, again.train)
    assert first.vocabulary == again.vocabulary
    assert not np.array_equal(first.train.answers, first.test.answers)
    assert not np.array_equal(first.train.answers, other.train.answers)


QUICK = Setting(features=12, hops=2, linear_epochs=8, epochs=22)


@cache
def restarts() -> Any:
    """Train three networks on written questions of task 1, at once."""
    data = generate(1, seed=0, count=400)
    answerer = make_answerer(data, QUICK)
    keys = jax.random.split(jax.random.key(0), 3)
    trained = jax.jit(jax.vmap(answerer.train, (0, None)))(keys, data.train)
    return data, answerer, keys, trained


def test_a_network_learns_to_answer():
    """Five answers of six are wrong without having read; the best of three is to miss few."""
    data, answerer, _, trained = restarts()
    params, curves = best(trained)
    assert curves.loss.shape == (30,) and trained[1].loss[:, -1].min() == curves.loss[-1]
    assert curves.loss[-1] < 0.2 * curves.loss[0]
    assert curves.held_out_error[-1] <= 0.15
    assert np.mean(jax.jit(answerer.wrong)(params, data.test)) < 0.15


def test_a_network_that_answers_looks_at_what_supports_the_answer():
    data, answerer, _, trained = restarts()
    trace, logits = jax.jit(answerer.answer)(best(trained)[0], data.test)
    right = np.argmax(logits, axis=-1) == data.test.answers
    looked = np.argmax(trace.weights.max(axis=1), axis=-1)
    assert np.mean(looked[right] == np.argmax(data.test.support, axis=1)[right]) > 0.8


def test_restarts_at_once_are_those_one_by_one():
    data, answerer, keys, trained = restarts()
    single = jax.jit(answerer.train)(keys[1], data.train)
    one = jax.tree.map(lambda x: x[1], trained)
    np.testing.assert_allclose(single[1].loss[:3], one[1].loss[:3], rtol=1e-4)
    np.testing.assert_allclose(single[1].loss, one[1].loss, atol=0.05)


def test_the_vector_of_no_word_stays_zero():
    *_, (params, _) = restarts()
    assert not params["words"][..., 0, :].any() and params["words"][..., 1, :].all()


def test_layerwise_networks_are_trained_too():
    data = generate(6, seed=0, count=40)
    answerer = make_answerer(data, QUICK._replace(tying="layerwise", hops=1, epochs=1))
    params, curves = jax.jit(answerer.train)(jax.random.key(0), data.train)
    assert params.keys() == {"query", "key", "value", "answer", "carry"}
    assert np.isfinite(curves.loss).all() and not params["key"][0].any()
    before = jax.jit(answerer.init)(jax.random.split(jax.random.key(0), 3)[0])
    moved = {name: np.abs(params[name] - before[name]).max() for name in params}
    assert all(0 < x < 0.5 for x in moved.values()), moved


def test_gradients_are_scaled_down_matrix_by_matrix():
    params = {"words": jnp.zeros((2, 3, 2)), "carry": jnp.zeros((2, 2))}
    gradient = {"words": jnp.ones((2, 3, 2)).at[1].mul(100.0), "carry": jnp.ones((2, 2))}
    after = descend(params, gradient, jnp.float32(0.5), 40.0)
    np.testing.assert_array_equal(after["words"][0], [[0, 0], [-0.5, -0.5], [-0.5, -0.5]])
    np.testing.assert_allclose(after["words"][1, 1:], -0.5 * 40 / 6**0.5, rtol=1e-6)
    np.testing.assert_array_equal(after["carry"], np.full((2, 2), -0.5))


def test_learning_rates_are_those_of_the_code():
    """Twenty epochs without a softmax; then halved at the 25th, 50th, 75th and 100th."""
    linear, rates = schedule(Setting())
    assert len(rates) == 120 and linear[:20].all() and not linear[20:].any()
    np.testing.assert_allclose(rates[[0, 19, 43, 44, 68, 69, 118, 119]] / 0.005,
                               [1, 1, 1, 1 / 2, 1 / 2, 1 / 4, 1 / 8, 1 / 16])  # fmt: skip


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batch_size": 20}, "batch_size: 20 is more than the 18 to learn"),
        ({"features": 0}, "features: 0 is below 1"),
        ({"hops": 0}, "hops: 0 is below 1"),
        ({"tying": "layer"}, "tying: 'layer' is unknown; .*"),
        ({"held_out": 1.5}, "held_out: 1.5 is not between 0 and 1"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make_answerer(generate(4, 0, 20), Setting(batch_size=8)._replace(**change))


STEPS = 400


@cache
def episodes(task: int) -> Any:
    env: Any = ENVIRONMENTS["bAbI"](task=task, count=30, seed=5)

    @jax.jit
    def run(key: Any) -> Any:
        def step(carry: Any, key: Any) -> Any:
            state, timestep = carry
            act_key, step_key = jax.random.split(key)
            action = jax.random.randint(act_key, (), 0, env.spec.actions.n)
            return env.step(step_key, state, action), timestep

        return jax.lax.scan(step, env.reset(key), jax.random.split(key, STEPS))[1]

    return env, generate(task, 5, 30), jax.tree.map(np.asarray, run(jax.random.key(0)))


def shown(data: Dataset, questions: Questions, i: int) -> np.ndarray:
    """Count the words of every sentence and of the question, and add up their places."""
    lines = [*np.asarray(questions.stories[i])[np.asarray(questions.facts[i])]]
    lines.append(np.asarray(questions.questions[i]))
    rows = np.zeros((len(lines), 2, len(data.vocabulary)), np.float32)
    for row, line in zip(rows, lines, strict=True):
        for j, word in enumerate(line):
            row[:, word] += np.array([1, (j + 1) / len(line)])
    asked = np.arange(len(lines)) == len(lines) - 1
    return np.column_stack([rows[:, 0, 1:], rows[:, 1, 1:], asked])


@every_task
def test_the_answer_is_an_action(task):
    """Episodes are stories of the data set; at the question, its answer earns 1, another 0."""
    env, data, steps = episodes(task)
    both = np.concatenate([data.train.answers, data.test.answers])
    possible = np.unique(both).tolist()
    assert env.spec.actions.n == len(possible)
    stories = [shown(data, data.train, i).round(3) for i in range(30)]
    rewards, seen = [], set()
    begin = 0
    for end in map(int, np.flatnonzero(steps.last)):
        assert steps.start[begin] and not steps.start[begin + 1 : end + 1].any()
        assert not steps.observation[end].any() and end - begin <= env.horizon
        assert steps.discount[begin:end].all() and steps.discount[end] == 0
        assert not steps.reward[begin:end].any()
        told = steps.observation[begin:end].round(3)
        (i, *_) = [i for i, story in enumerate(stories) if np.array_equal(story, told)]
        right = possible.index(data.train.answers[i])
        assert steps.reward[end] == (steps.action[end] == right)
        rewards.append(steps.reward[end])
        seen.add(i)
        begin = end + 1
    assert 0 < np.mean(rewards) < 1 and len(seen) > 10


def test_both_halves_and_all_keys_are_asked_for():
    train, test = (ENVIRONMENTS["bAbI"](task=4, split=half, count=30) for half in ("train", "test"))
    keys = jax.random.split(jax.random.key(0), 5)
    first, second = (jax.vmap(env.reset)(keys)[1].observation for env in (train, test))
    assert first.shape == second.shape and train.spec.actions == test.spec.actions
    assert not np.array_equal(first, second) and len(np.unique(first, axis=0)) > 1
    with pytest.raises(ValueError, match=r"split='tset' is unknown; did you mean 'test'\?"):
        ENVIRONMENTS["bAbI"](split="tset")


def test_an_environment_reads_files(tmp_path):
    env: Any = ENVIRONMENTS["bAbI"](task=7, path=str(write(tmp_path, 7)))
    assert env.spec.actions.n == 4 and env.horizon == 4
    _, timestep = env.reset(jax.random.key(0))
    assert timestep.observation.shape == env.spec.observations.shape
