"""Memory networks against numbers of the authors' model and against plain loops."""

from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.memory import MEMORIES
from memrl_jax.memory.gtrxl import skew
from memrl_jax.memory.hops import unskew
from memrl_jax.memory.memn2n import position_encoding
from memrl_jax.tasks.reading import ages, noisy_ages, read, tie

GOLDEN = np.load(Path(__file__).parent / "data" / "memory_networks.npz")
CASES = sorted({name.split("/")[0] for name in GOLDEN.files} - {"pe"})
T, D, F, SLOTS, HOPS = 17, 3, 4, 5, 3


@pytest.mark.parametrize("name", [name for name in GOLDEN.files if name.startswith("pe/")])
def test_positions_are_encoded_as_in_the_code(name):
    features, words = GOLDEN[name].shape
    np.testing.assert_allclose(position_encoding(features, words).T, GOLDEN[name], atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_questions_are_answered_as_in_the_code(case):
    """Weights, readings and queries of all hops; stories have empty slots, words and no time."""
    of_case = {k.removeprefix(f"{case}/"): GOLDEN[k] for k in GOLDEN.files if k.startswith(case)}
    params = {k.removeprefix("params/"): x for k, x in of_case.items() if k.startswith("params/")}
    stories, questions = (of_case[k].astype(int) for k in ("memory_index_table", "query_words"))
    encoding = position_encoding(20, stories.shape[-1])
    if "bow" in case:
        encoding = np.ones_like(encoding)
    normalize = (lambda scores: scores) if "linear" in case else jax.nn.softmax
    tables = tie(jax.tree.map(jnp.asarray, params), 3)
    trace, logits = jax.vmap(
        lambda story, question: read(tables, story, question, jnp.asarray(encoding), normalize)
    )(stories, questions)
    np.testing.assert_allclose(logits, of_case["logits"], atol=1e-5)
    for ours, theirs in zip(trace, ("u", "p", "o"), strict=True):
        np.testing.assert_allclose(ours.swapaxes(0, 1), of_case[theirs], atol=1e-5)


def by_loop(tables, xs, starts):
    """Look `HOPS` times at the last inputs of the episode, one step at a time.

    `tables`: query, then keys, values, their vectors by age, and joins for each hop.
    """
    query, keys, values, key_times, value_times, joins = tables
    ys, attention = [], []
    past: list[Any] = []
    for x, start in zip(xs, starts, strict=True):
        past = [] if start else past[-SLOTS:]
        u, weights = x @ query, []
        for hop in range(HOPS):
            matched, found = np.zeros((2, SLOTS, F))  # empty slots stay zero
            for age, z in enumerate(reversed(past)):
                slot = SLOTS - 1 - age
                matched[slot] = z @ keys[hop] + key_times[hop][slot]
                found[slot] = z @ values[hop] + value_times[hop][slot]
            p = np.exp(matched @ u)
            p /= p.sum()
            weights.append(np.where(np.arange(SLOTS) >= SLOTS - len(past), p, 0))
            u = joins[hop](u, p @ found)
        ys.append(u)
        attention.append(weights)
        past.append(x)
    return np.array(ys), np.array(attention)


def adjacent(reader, relu):
    m, t = reader["maps"], reader["times"]
    after = (lambda u: np.maximum(u, 0)) if relu else (lambda u: u)
    return m[0], m[:-1], m[1:], t[:-1], t[1:], [lambda u, o: after(u + o)] * HOPS


def layerwise(reader):
    (a, c), (ta, tc) = reader["maps"], reader["times"]
    joins = [lambda u, o: u @ reader["carry"] + o] * HOPS
    return reader["query"], [a] * HOPS, [c] * HOPS, [ta] * HOPS, [tc] * HOPS, joins


def key_value(reader):
    k, v, (tk, tv) = reader["key"], reader["value"], reader["times"]
    joins = [lambda u, o, r=r: (u + o) @ r for r in reader["turns"]]
    return reader["query"], [k] * HOPS, [v] * HOPS, [tk] * HOPS, [tv] * HOPS, joins


NETWORKS: dict[str, Any] = {
    "adjacent": ("memn2n", {}, partial(adjacent, relu=False)),
    "relu": ("memn2n", {"relu": True}, partial(adjacent, relu=True)),
    "layerwise": ("memn2n", {"tying": "layerwise"}, layerwise),
    "key-value": ("kv_memory", {}, key_value),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


@cache
def outcome(name: str) -> Any:
    """Unroll and inspect a network with drawn parameters; return that and what a loop gives."""
    memory_name, options, tables = NETWORKS[name]
    memory = MEMORIES[memory_name](features=F, slots=SLOTS, hops=HOPS, **options)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(memory.init, jax.random.key(0), jnp.zeros(D))
    params = jax.tree.map(lambda x: rng.normal(0, 0.4, x.shape).astype(np.float32), shapes)
    xs = rng.normal(size=(T, D)).astype(np.float32)
    starts = np.isin(np.arange(T), [0, 4])

    @jax.jit
    def stepped(xs: Any, starts: Any) -> Any:
        def step(state: Any, x: Any) -> Any:
            return memory.step(params, state, *x)[0], memory.inspect(params, state, *x)

        return jax.lax.scan(step, memory.initial_state(), (xs, starts))[1]

    _, ys = jax.jit(memory.unroll)(params, memory.initial_state(), xs, starts)
    doubles = jax.tree.map(lambda x: x.astype(np.float64), params["params"])
    dense = doubles["input"]["dense"]
    zs = xs @ dense["kernel"] + dense["bias"]
    return ys, stepped(xs, starts)["attention"], *by_loop(tables(doubles["reader"]), zs, starts)


@every_network
def test_a_network_looks_as_often_as_it_has_hops(name):
    ys, _, expected, _ = outcome(name)
    np.testing.assert_allclose(ys, expected, atol=2e-5 * np.abs(expected).max())


@every_network
def test_attention_is_that_of_the_last_inputs(name):
    _, attention, _, expected = outcome(name)
    assert attention.shape == (T, HOPS, SLOTS)
    np.testing.assert_allclose(attention, expected, atol=1e-5)


@every_network
def test_empty_slots_take_their_share(name):
    total = outcome(name)[1].sum(axis=-1)
    filled = np.array([0, 1, 2, 3] + [min(i, SLOTS) for i in range(T - 4)])
    assert not total[filled == 0].any()
    assert (total[(filled > 0) & (filled < SLOTS)] < 0.999).all()
    np.testing.assert_allclose(total[filled == SLOTS], 1, atol=1e-6)


def test_layerwise_networks_reuse_their_maps():
    """Three hops or one, they have as many parameters; adjacent ones have more."""

    def count(**options):
        memory = MEMORIES["memn2n"](features=F, slots=SLOTS, **options)
        shapes = jax.eval_shape(memory.init, jax.random.key(0), jnp.zeros(D))
        return sum(x.size for x in jax.tree.leaves(shapes))

    assert count(tying="layerwise", hops=1) == count(tying="layerwise", hops=3)
    assert count(hops=3) - count(hops=1) == 2 * (F * F + SLOTS * F)


def test_unskew_is_the_reverse_of_skew():
    x = jnp.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(unskew(skew(x), 4), x)
    wide = np.arange(3 * 6).reshape(3, 6)
    rows = [wide[i, i : i + 4] for i in range(3)]
    np.testing.assert_array_equal(unskew(jnp.asarray(wide), 4), rows)


@pytest.mark.parametrize("field", ["slots", "hops"])
@pytest.mark.parametrize("name", ["memn2n", "kv_memory"])
def test_slots_and_hops_are_counted(name, field):
    with pytest.raises(ValueError, match=f"^{field}: 0 is below 1$"):
        MEMORIES[name](**{field: 0})


def test_the_tying_is_known():
    with pytest.raises(ValueError, match=r"^tying: 'adjacnt' is unknown; did you mean 'adjacent'"):
        MEMORIES["memn2n"](tying="adjacnt")


FACTS = np.arange(20) < 12


def test_ages_count_from_the_newest_sentence():
    np.testing.assert_array_equal(ages(jnp.asarray(FACTS))[:12], np.arange(12)[::-1])


def test_without_noise_ages_are_the_true_ones():
    ours = noisy_ages(jax.random.key(0), jnp.asarray(FACTS), 0.0)
    np.testing.assert_array_equal(ours[:12], np.arange(12)[::-1])


def test_noise_puts_empty_sentences_anywhere():
    """Of 12 sentences, 0 to 2 blanks among them: each newest age is as likely as can be counted."""
    keys = jax.random.split(jax.random.key(0), 6000)
    drawn = jax.jit(jax.vmap(lambda key: noisy_ages(key, jnp.asarray(FACTS), 0.1)))(keys)
    drawn = np.asarray(drawn)[:, :12]
    assert (np.diff(drawn) < 0).all() and drawn.min() == 0 and drawn.max() == 13
    blanks_before_oldest = drawn[:, 0] - 11
    # With b blanks at random places among 12 + b, the last one is a blank with b / (12 + b).
    expected = [1 / 3 * (1 + 1 / 13 + 1 / 91), 1 / 3 * (12 / 13 + 2 * 12 / 14 / 13), 0]
    expected[2] = 1 - expected[0] - expected[1]
    shares = np.bincount(blanks_before_oldest, minlength=3) / len(keys)
    np.testing.assert_allclose(shares, expected, atol=0.02)


def test_a_full_memory_has_no_more_times_than_slots():
    full = jnp.ones(20, bool)
    keys = jax.random.split(jax.random.key(1), 200)
    drawn = jax.jit(jax.vmap(lambda key: noisy_ages(key, full, 0.2)))(keys)
    assert drawn.max() == 19 and (np.diff(drawn) <= 0).all()
