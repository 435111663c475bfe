"""Tasks are answerable from what they show, and memories learn them."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.memory import gru, none
from memrl_jax.tasks import TASKS, Example, Probe, Task, accuracy, make_probe, train
from memrl_jax.tasks.base import bit_errors, bit_loss, score, symbol_errors, symbol_loss
from memrl_jax.types import NeuralMemory

Answers = list[tuple[Any, np.ndarray]]  # the step and the target, where an answer is due

SMALL: dict[str, dict[str, int]] = {
    "remember_first": {"length": 7, "symbols": 3},
    "copy": {"bits": 3, "length": 5, "shortest": 2},
    "repeat_copy": {"bits": 3, "length": 4, "repeats": 3},
    "selective_copying": {"symbols": 5, "count": 4, "length": 12},
    "associative_recall": {"items": 5, "width": 2, "bits": 4},
    "multi_query_recall": {"pairs": 4, "length": 20, "symbols": 6},
}
LARGER: dict[str, dict[str, Any]] = {
    "remember_first": {"length": 30},
    "copy": {"length": 11, "shortest": 11},
    "repeat_copy": {"length": 9, "repeats": 12},
    "selective_copying": {"count": 9, "length": 50},
    "associative_recall": {"items": 12, "fewest": 12},
    "multi_query_recall": {"pairs": 6, "length": 40, "power": 1.0},
}
every_task = pytest.mark.parametrize("name", TASKS)


COUNT = 3000


def keys() -> Any:
    return jax.random.split(jax.random.key(7), COUNT)


def draw(task: Task) -> tuple[Task, Example]:
    """Draw COUNT examples one after another, which compiles sooner than all at once."""
    batch = jax.jit(lambda keys: jax.lax.map(task.sample, keys))(keys())
    return task, jax.tree.map(np.asarray, batch)


@cache
def small(name: str) -> tuple[Task, Example]:
    return draw(TASKS[name](**SMALL[name]))


@cache
def larger(name: str) -> tuple[Task, Example]:
    return draw(TASKS[name](**SMALL[name] | LARGER[name]))


def solve_remember_first(x: np.ndarray) -> Answers:
    (first,) = np.flatnonzero(x[:, -1])
    return [(len(x) - 1, x[first, :-1])]


def solve_copy(x: np.ndarray) -> Answers:
    (end,) = np.flatnonzero(x[:, -1])
    assert not x[end + 1 :].any()
    return [(end + 1 + i, x[i, :-1]) for i in range(end)]


def solve_repeat_copy(x: np.ndarray) -> Answers:
    (end,) = np.flatnonzero(x[:, -1])
    assert not x[end + 1 :].any() and not x[end, :-1].any()
    times = 5.5 + np.sqrt(8.25) * x[end, -1]
    assert abs(times - round(times)) < 1e-4
    vectors = [*x[:end, :-1]] * round(times)
    rows = [np.append(v, 0) for v in vectors] + [np.eye(x.shape[1])[-1]]
    return [(end + 1 + i, row) for i, row in enumerate(rows)]


def solve_selective_copying(x: np.ndarray) -> Answers:
    asked = np.flatnonzero(x[:, -1])
    shown = [row[:-1] for row in x if row[:-1].any()]
    assert not x[asked, :-1].any()
    return list(zip(asked, shown, strict=True))


def solve_associative_recall(x: np.ndarray) -> Answers:
    start, stop = np.flatnonzero(x[:, -1])
    query, width = x[start + 1 : stop, :-2], stop - start - 1
    items = [x[i + 1 : i + 1 + width, :-2] for i in np.flatnonzero(x[:, -2])]
    assert start == len(items) * (width + 1) and not x[stop + 1 :].any()
    (found,) = [i for i, item in enumerate(items) if np.array_equal(item, query)]
    return [(stop + 1 + i, row) for i, row in enumerate(items[found + 1])]


def solve_multi_query_recall(x: np.ndarray) -> Answers:
    keys, values = np.split(x, 2, axis=1)
    held: dict[int, np.ndarray] = {}
    answers: Answers = []
    for t in np.flatnonzero(keys.any(axis=1)):
        key = int(np.argmax(keys[t]))
        if key in held:
            answers.append((t, held[key]))
        else:
            held[key] = values[t + 1]
    assert len(answers) == len(held)
    return answers


SOLVERS: dict[str, Callable[[np.ndarray], Answers]] = {
    name: globals()[f"solve_{name}"] for name in TASKS
}


@every_task
@pytest.mark.parametrize("drawn", [small, larger])
def test_the_input_tells_the_answers_and_nothing_else_is_asked(name: str, drawn: Any) -> None:
    """A solver that reads only the input gives the whole target and mask, zeros included."""
    _, (inputs, targets, masks) = drawn(name)
    for x, expected, due in zip(inputs[:300], targets, masks, strict=False):
        target, mask = np.zeros_like(expected), np.zeros_like(due)
        for step, answer in SOLVERS[name](x):
            target[step], mask[step] = answer, True
        np.testing.assert_array_equal(due, mask)
        np.testing.assert_array_equal(expected, target)
        assert mask.any()


@pytest.mark.parametrize("name", ["copy", "remember_first"])
def test_the_score_counts_answers_that_are_due(name: str) -> None:
    task, batch = small(name)
    due = batch.mask[0].sum() * task.answers
    logits = np.where(batch.mask[0][:, None], 20 * batch.target[0] - 10, np.nan)
    right = jax.jit(partial(score, task))(logits, jax.tree.map(lambda x: x[0], batch))
    assert (right["errors"], right["answers"]) == (0, due) and right["loss"] < 0.01 * due
    wrong = jax.jit(partial(score, task))(-logits, jax.tree.map(lambda x: x[0], batch))
    assert (wrong["errors"], wrong["answers"]) == (due, due) and wrong["loss"] > 10 * due


@every_task
def test_nothing_is_told_where_answers_are_due(name: str) -> None:
    """Inputs at such steps are the same whatever the answer is, but for keys and distractors."""
    task, batch = small(name)
    asking = batch.input[batch.mask]
    if name == "remember_first":
        told = np.mean(np.argmax(asking[:, :-1], -1) == np.argmax(batch.target[batch.mask], -1))
        assert abs(told - 1 / task.outputs) < 0.1
    elif name == "multi_query_recall":
        assert not asking[:, task.outputs :].any()
        assert (asking[:, : task.outputs].sum(-1) == 1).all()
    else:
        assert (asking == asking[0]).all()


@every_task
def test_sizes_are_those_declared(name: str) -> None:
    for task, batch in (small(name), larger(name)):
        shapes = [(COUNT, task.length, n) for n in (task.inputs, task.outputs)]
        assert [x.shape for x in batch] == [*shapes, (COUNT, task.length)]
        assert [x.dtype for x in batch] == [np.float32, np.float32, np.bool_]
    ours, theirs = small(name)[0], larger(name)[0]
    assert theirs.length > ours.length
    assert (theirs.inputs, theirs.outputs) == (ours.inputs, ours.outputs)


def test_one_of_a_batch_is_as_it_is_alone() -> None:
    """Also where items of some sequences are drawn anew."""
    task, _ = larger("associative_recall")
    together = jax.jit(jax.vmap(task.sample))(keys()[:20])
    for ours, alone in zip(together, larger("associative_recall")[1], strict=True):
        np.testing.assert_array_equal(ours, alone[:20])


@every_task
def test_keys_tell_sequences_apart(name: str) -> None:
    _, batch = larger(name)
    assert len(np.unique(batch.input.reshape(COUNT, -1), axis=0)) > COUNT / 3


def test_papers_sizes() -> None:
    sizes = {name: (t.length, t.inputs, t.outputs) for name, f in TASKS.items() for t in [f()]}
    assert sizes == {
        "remember_first": (32, 5, 4),
        "copy": (41, 9, 8),
        "repeat_copy": (112, 9, 9),
        "selective_copying": (4112, 16, 15),
        "associative_recall": (32, 8, 6),
        "multi_query_recall": (64, 128, 64),
    }


def assert_uniform(values: Any, choices: Any) -> None:
    """Pearson's test at about 1 in 1000, by the cube root of Wilson & Hilferty."""
    counts = np.array([np.sum(np.equal(values, choice)) for choice in choices])
    assert counts.sum() == np.size(values)
    expected, freedom = counts.sum() / len(counts), len(counts) - 1
    statistic = np.sum((counts - expected) ** 2) / expected
    spread = 2 / (9 * freedom)
    assert statistic < freedom * (1 - spread + 3.09 * spread**0.5) ** 3


def test_lengths_are_uniform_over_their_range() -> None:
    assert_uniform(np.argmax(small("copy")[1].input[..., -1], axis=1), range(2, 6))
    number = small("repeat_copy")[1].input[..., -1]
    lengths = np.argmax(number != 0, axis=1)
    times = np.rint(5.5 + np.sqrt(8.25) * number[np.arange(COUNT), lengths])
    assert_uniform(10 * lengths + times, [10 * n + r for n in range(1, 5) for r in range(1, 4)])
    items = small("associative_recall")[1].input[..., -2].sum(axis=1)
    assert_uniform(items, range(2, 6))


def test_bits_and_symbols_are_uniform() -> None:
    _, (_, target, mask) = small("copy")
    assert_uniform(np.dot(target[mask], [4, 2, 1]), range(8))
    for name, symbols in (("remember_first", 3), ("selective_copying", 5)):
        _, batch = small(name)
        assert_uniform(np.argmax(batch.target[batch.mask], axis=-1), range(symbols))
    pairs = small("multi_query_recall")[1].input[:, :8].argmax(axis=-1)
    assert_uniform(6 * pairs[:, 0] + pairs[:, 1] - 6, range(36))


def test_places_and_queries_are_uniform() -> None:
    places = np.nonzero(small("selective_copying")[1].input[..., :-1])[1]
    np.testing.assert_allclose(np.bincount(places) / COUNT, 4 / 12, atol=0.04)
    queried = np.argmax(query_matches(), axis=1)
    assert_uniform(queried, range(11))


def query_matches() -> Any:
    """Return which items [12] are the query, for the larger associative recall."""
    blocks = larger("associative_recall")[1].input.reshape(COUNT, 14, 3, 6)[:, :, 1:, :-2]
    return (blocks[:, :12] == blocks[:, 12:13]).all((2, 3))


def test_items_all_differ_and_are_uniform() -> None:
    """12 items of 8 bits would differ by themselves in 3 of 4 sequences only."""
    items = larger("associative_recall")[1].input.reshape(COUNT, 14, 3, 6)[:, :12, 1:, :-2]
    codes = np.dot(items.reshape(COUNT, 12, 8), 2 ** np.arange(8))
    assert (np.diff(np.sort(codes, axis=1), axis=1) > 0).all()
    assert_uniform(codes[:, 0], range(256))
    assert_uniform(codes[:, 11], range(256))


@pytest.mark.parametrize("drawn, pairs, places, power", [(small, 4, 12, 0.01), (larger, 6, 28, 1)])
def test_queries_come_soon_by_a_power_law(
    drawn: Any, pairs: int, places: int, power: float
) -> None:
    """Places are those that NumPy draws without replacement."""
    mask = drawn("multi_query_recall")[1].mask[:, 2 * pairs :]
    weights = np.arange(1, places + 1) ** (power - 1.0)
    weights /= weights.sum()
    rng = np.random.default_rng(0)
    peers = [rng.choice(places, pairs, replace=False, p=weights) for _ in range(COUNT)]
    expected = np.bincount(np.ravel(peers), minlength=places) / COUNT
    np.testing.assert_allclose(mask.mean(axis=0), expected, atol=0.05)


@pytest.mark.parametrize(
    "name, given, message",
    [
        ("copy", {"length": 3, "shortest": 4}, "length: 3 is below 4"),
        ("copy", {"bits": 0}, "bits: 0 is below 1"),
        ("copy", {"shortest": 0}, "shortest: 0 is below 1"),
        ("repeat_copy", {"repeats": 2, "fewest": 3}, "repeats: 2 is below 3"),
        ("repeat_copy", {"length": 2.0}, "length: 2.0 is not a whole number"),
        ("selective_copying", {"count": 9, "length": 8}, "length: 8 is below 9"),
        ("associative_recall", {"fewest": 1}, "fewest: 1 is below 2"),
        ("associative_recall", {"items": 2, "fewest": 3}, "items: 2 is below 3"),
        (
            "associative_recall",
            {"items": 5, "width": 2, "bits": 2},
            "items: 5 are too many to differ in width x bits = 4 bits",
        ),
        ("multi_query_recall", {"pairs": 9, "symbols": 8}, "symbols: 8 is below 9"),
        ("multi_query_recall", {"pairs": 4, "length": 11}, "length: 11 is below 12"),
        ("remember_first", {"length": 1}, "length: 1 is below 2"),
        ("remember_first", {"symbols": 1}, "symbols: 1 is below 2"),
    ],
)
def test_wrong_sizes(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        TASKS[name](**given)
    assert str(raised.value) == message


def test_losses_are_cross_entropies() -> None:
    logits, target = jnp.array([0.3, -1.2, 2.0]), jnp.array([1.0, 0.0, 0.0])
    chance = 1 / (1 + np.exp(-logits))
    expected = -np.sum(np.log(np.where(target == 1, chance, 1 - chance)))
    assert bit_loss(logits, target) == pytest.approx(expected, rel=1e-5)
    assert bit_errors(logits, target) == 1
    softmax = np.exp(logits) / np.sum(np.exp(logits))
    assert symbol_loss(logits, target) == pytest.approx(-np.log(softmax[0]), rel=1e-5)
    assert symbol_errors(logits, target) == 1 and symbol_errors(target, target) == 0


@pytest.mark.parametrize("loss", [bit_loss, symbol_loss])
def test_losses_stay_finite(loss: Callable[[Any, Any], Any]) -> None:
    target = jnp.array([0.0, 1.0, 0.0])
    value, slope = jax.value_and_grad(loss)(jnp.array([1e4, -1e4, 0.0]), target)
    assert 1e4 <= value < 1e5 and np.isfinite(slope).all()
    assert loss(1e4 * (2 * target - 1), target) == 0


def probe_of(memory: NeuralMemory) -> Probe:
    task = TASKS["remember_first"](length=8)
    return make_probe(task, memory, width=16, batch_size=16, learning_rate=1e-2)


@cache
def trainer() -> tuple[Probe, Any]:
    probe = probe_of(gru(32))
    return probe, jax.jit(lambda key: train(probe, key, 200))


@cache
def learned() -> tuple[Probe, Any, Any]:
    """Train a memory, once for all tests."""
    probe, run = trainer()
    state, metrics = run(jax.random.key(0))
    return probe, state.params, metrics


def evaluated(probe: Probe, params: Any, **on: Task) -> Any:
    return jax.jit(lambda params: probe.evaluate(params, jax.random.key(9), 500, **on))(params)


def test_a_memory_remembers() -> None:
    probe, params, metrics = learned()
    assert metrics["loss"].shape == (200,) and (metrics["answers"] == 16).all()
    assert accuracy(metrics)[-50:].mean() >= 0.95
    assert accuracy(evaluated(probe, params)) >= 0.95


def test_a_key_repeats_bit_for_bit() -> None:
    (_, run), (_, params, metrics) = trainer(), learned()
    state, again = run(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, (state.params, again), (params, metrics))
    assert not np.array_equal(run(jax.random.key(1))[1]["loss"], again["loss"])


def test_without_a_memory_it_stays_a_guess_for_two_seeds_as_for_each_alone() -> None:
    probe, keys = probe_of(none()), jax.random.split(jax.random.key(0), 2)
    states, metrics = jax.jit(jax.vmap(lambda key: train(probe, key, 200)))(keys)
    assert (abs(accuracy(metrics)[:, -100:].mean(axis=1) - 0.25) < 0.05).all()

    alone = jax.jit(lambda key: train(probe, key, 200))
    for seed in (0, 1):
        one = jax.tree.map(lambda x, seed=seed: x[seed], (states.params, metrics))
        state, apart = alone(keys[seed])
        compare = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
        jax.tree.map(compare, one, (state.params, apart))


def test_a_longer_task_fits_the_same_parameters() -> None:
    probe, params, _ = learned()
    longer = evaluated(probe, params, on=TASKS["remember_first"](length=16))
    assert longer["answers"] == 500 and accuracy(longer) > 0.5
    with pytest.raises(ValueError) as raised:
        probe.evaluate(params, jax.random.key(9), 1, on=TASKS["copy"]())
    expected = "on: (9, 8) inputs and outputs are not the (5, 4) of the task trained on"
    assert str(raised.value) == expected
    with pytest.raises(ValueError, match=r"^count: 0 is below 1$"):
        probe.evaluate(params, jax.random.key(9), 0)


def test_what_was_learned_by_unroll_holds_step_by_step() -> None:
    probe, params, _ = learned()
    example = TASKS["remember_first"](length=8).sample(jax.random.key(5))
    logits = probe.predict(params, example.input)
    assert logits.shape == example.target.shape and np.ptp(logits[-1]) > 1
    stepwise = probe.predict_stepwise(params, example.input)
    np.testing.assert_allclose(logits, stepwise, rtol=1e-5, atol=1e-5)


@every_task
def test_every_task_can_be_trained_on(name: str) -> None:
    task = TASKS[name](**SMALL[name])
    probe = make_probe(task, none(), width=4, batch_size=3)
    state, metrics = jax.eval_shape(lambda key: train(probe, key, 2), jax.random.key(0))
    assert {k: v.shape for k, v in metrics.items()} == dict.fromkeys(
        ("loss", "errors", "answers"), (2,)
    )
    assert state.params["head"]["params"]["kernel"].shape == (4, task.outputs)


@pytest.mark.parametrize("field", ["width", "batch_size"])
def test_probes_have_sizes(field: str) -> None:
    sizes = {"width": 1, "batch_size": 1} | {field: 0}
    with pytest.raises(ValueError, match=f"^{field}: 0 is below 1$"):
        make_probe(TASKS["copy"](), none(), **sizes)
