"""Episodic control: what enters the tables and when, what is chosen, and that it learns."""

import re
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memrl_jax
from benchmarks import races, traces
from benchmarks.episodic import RESULTS
from memrl_jax import build, episodic, tree
from memrl_jax.agents.exploration import break_ties
from memrl_jax.agents.mfec import MFECConfig, mfec, project, vector
from memrl_jax.agents.nec import error_loss, nec
from memrl_jax.environments import ENVIRONMENTS
from memrl_jax.environments.base import Arrival
from memrl_jax.environments.base import episodic as episodes
from memrl_jax.episodic import Lookup
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Environment, Segment, Spec, TimeStep

B, T, SEGMENTS, HORIZON, N_STEP, STATES, ACTIONS = 2, 3, 12, 6, 4, 5, 2
DISCOUNT, RATE = 0.9, 0.25
SPEC = Spec(Discrete(STATES), Discrete(ACTIONS))


@cache
def stream() -> Any:
    """Make up all timesteps, actions and lookups of two environments, episodes of 1 to 6 steps."""
    rng = np.random.default_rng(0)
    rows = SEGMENTS * T + 1
    start, last, terminated = (np.zeros((rows, B), bool) for _ in range(3))
    for b in range(B):
        t = 0
        while t < rows:
            length = int(rng.integers(1, HORIZON + 1))
            start[t, b] = True
            if t + length < rows:
                last[t + length, b] = True
                terminated[t + length, b] = rng.uniform() < 0.5
            t += length + 1
    observation = rng.integers(STATES, size=(rows, B)).astype(np.int32)
    reward = np.where(start, 0, rng.normal(size=(rows, B))).astype(np.float32)
    action = rng.integers(ACTIONS, size=(rows, B)).astype(np.int32)
    discount = 1 - terminated.astype(np.float32)
    fields: Any = (observation, np.roll(action, 1, 0), reward, discount, start, last)
    timestep = TimeStep(*fields)
    key = np.eye(STATES, dtype=np.float32)[observation]
    value = rng.normal(size=(rows, B)).astype(np.float32)
    looked_up: Any = (key, value)
    return timestep, action, Lookup(*looked_up)


def segment(i: int) -> Segment:
    timestep, action, lookup = stream()
    here, through = slice(i * T, i * T + T), slice(i * T, i * T + T + 1)
    memory = jnp.zeros((B, 1), jnp.float32)
    return Segment(memory, tree.at(timestep, through), action[here], tree.at(lookup, here))


def known(n: int) -> list[tuple[int, int, int, float]]:
    """Return what is done and known by the end: when it is known, and t, b and its return.

    In the order in which it is written: by the segment in which the timestep was acted at that
    completed it, and then by time.
    """
    timestep, _, lookup = stream()
    found = []
    for t, b in np.ndindex(SEGMENTS * T, B):
        if timestep.last[t, b]:
            continue
        total, scale, now = 0.0, 1.0, t
        while now < t + n and now + 1 < SEGMENTS * T:
            now += 1
            total += scale * timestep.reward[now, b]
            scale *= DISCOUNT * timestep.discount[now, b]
            if timestep.last[now, b]:
                break
        if now == t + n or (now > t and timestep.last[now, b]):
            found.append((now // T, t, b, total + scale * lookup.value[now, b]))
    return sorted(found)


def tables_by_hand(n: int, merge: Any) -> dict[tuple[int, int], float]:
    """Return the value of every observation and action that was written."""
    timestep, action, _ = stream()
    table: dict[tuple[int, int], float] = {}
    for _, t, b, value in known(n):
        place = int(timestep.observation[t, b]), int(action[t, b])
        table[place] = merge(table[place], value) if place in table else value
    return table


def assert_holds(tables: episodic.Tables, expected: dict[tuple[int, int], float]) -> None:
    slot, held = jax.jit(episodic.find)(tables, jnp.eye(STATES))
    found = {
        (s, a): float(tables.values[a, slot[s, a]])
        for s, a in np.ndindex(STATES, ACTIONS)
        if held[s, a]
    }
    assert found.keys() == expected.keys()
    for place, value in expected.items():
        np.testing.assert_allclose(found[place], value, rtol=1e-5, atol=1e-5)


def test_mfec_keeps_the_largest_return_of_every_episode_that_ended() -> None:
    config = MFECConfig().replace(entries=8, neighbours=1, discount=DISCOUNT)
    agent = mfec(config, SPEC, HORIZON)
    state = jax.jit(agent.init)(jax.random.key(0), tree.at(stream()[0], 0))
    learn = jax.jit(agent.learn)
    updates = []
    for i in range(SEGMENTS):
        state, metrics = learn(jax.random.key(0), state, segment(i))
        updates.append(int(metrics["updates"]))
    expected = known(HORIZON)
    assert updates == [sum(when == i for when, *_ in expected) for i in range(SEGMENTS)]
    assert_holds(state.tables, tables_by_hand(HORIZON, max))


def test_nec_moves_towards_n_step_targets_and_replays_them() -> None:
    config = memrl_jax.presets["nec"].replace(
        environments=B,
        rollout_length=T,
        capacity=B * T * SEGMENTS,
        total_steps=B * T * 100,
        entries=8,
        key_size=STATES,
        neighbours=1,
        n_step=N_STEP,
        discount=DISCOUNT,
        value_rate=RATE,
        memory="gru",
        memory_args={"features": 1},
        window=T,
        stored_state=True,
    )
    parts = build.parts(config, chain()._replace(spec=SPEC))
    settings: Any = config.agent
    replay = parts.replay(settings.experience)
    agent = nec(settings, SPEC, parts.body(settings.body), replay)
    timestep, action, _ = stream()
    state = jax.jit(agent.init)(jax.random.key(0), tree.at(timestep, 0))
    observe = jax.jit(agent.observe)
    slot = jnp.zeros((T, B, ACTIONS, 1), jnp.int32)
    for i in range(SEGMENTS):
        acted = segment(i)
        # A memory that tells of which timestep and environment it is.
        memory = 1 + jnp.arange(i * T * B, (i + 1) * T * B, dtype=jnp.float32).reshape(T, B, 1)
        state = observe(state, acted._replace(extras=(acted.extras, slot, memory)))
    towards = lambda old, new: old + RATE * (new - old)  # noqa: E731
    assert_holds(state.learner.tables, tables_by_hand(N_STEP, towards))
    assert int(state.env_steps) == (~timestep.last[:-1]).sum()
    # The replay memory holds all but the latest n timesteps, behind n empty ones, with targets.
    targets = {(t, b): value for _, t, b, value in known(N_STEP)}
    window = jax.device_get(jax.jit(replay.sample)(jax.random.key(0), state.replay).segment)
    checked = set()
    for j, number in enumerate(window.memory[:, 0].astype(int)):
        first, b = divmod(number - 1, B)
        for i, t in enumerate(range(first, first + T)):
            if number > 0 and not timestep.last[t, b]:
                assert window.timestep.observation[i, j] == timestep.observation[t, b]
                assert window.action[i, j] == action[t, b]
                np.testing.assert_allclose(window.extras[i, j], targets[t, b], rtol=1e-4, atol=1e-5)
                checked.add((t, b))
    assert len(checked) > 30


def chain(length: int = 6, penalty: float = 0.0, masked: bool = False) -> Environment:
    """Walk a corridor to its far end, which alone pays, in three times as many steps at most.

    Where actions are masked there are three: left, one that is never legal, and right.
    """
    moves = jnp.array([-1, 100, 1] if masked else [-1, 1])

    def first(key: Any) -> Any:
        return (jnp.int32(0), jnp.int32(0)), jnp.int32(0)

    def step(key: Any, state: Any, action: Any) -> Arrival:
        place, time = state
        place, time = jnp.clip(place + moves[action], 0, length), time + 1
        there = place == length
        reward = jnp.where(there, 1.0, penalty)
        return Arrival((place, time), place, reward, there, ~there & (time >= 3 * length))

    def legal(state: Any) -> Any:
        return jnp.array([True, False, True])

    actions = Discrete(3 if masked else 2)
    mask = legal if masked else None
    return episodes(first, step, Discrete(length + 1), actions, 3 * length, mask)


def timesteps(observation: Any, legal: Any = ()) -> TimeStep:
    n = len(observation)
    zero, none = jnp.zeros(n), jnp.zeros(n, bool)
    return TimeStep(
        jnp.asarray(observation), none.astype(jnp.int32), zero, zero + 1, none, none, legal
    )


def test_mfec_values_what_was_done_there_and_else_the_mean_of_the_nearest() -> None:
    spec = Spec(Continuous((1,), np.float32, -np.inf, np.inf), Discrete(2), legal=True)
    agent = mfec(MFECConfig().replace(entries=8, neighbours=2), spec, 3)
    observation = np.array([[1.0], [1.25], [3.5], [5.0]], np.float32)
    every = jnp.ones((4, 2), bool)
    keys = jnp.array([[0.0], [1.0], [4.0], [5.0]])
    action, values = jnp.array([0, 0, 0, 1]), jnp.array([1.0, 2.0, 7.0, 3.0])

    @jax.jit
    def look(legal: Any) -> Any:
        seen = timesteps(observation, legal)
        state = agent.init(jax.random.key(0), seen)
        tables = episodic.write(state.tables, action, keys, values, every[:, 0], jnp.maximum)
        state = state._replace(tables=tables)
        q = agent.inspect(state, (), seen)["q"]
        _, chosen, lookup = agent.act(jax.random.key(0), state, (), seen, explore=False)
        return q, chosen, lookup.value

    q, chosen, value = look(every)
    np.testing.assert_allclose(q, [[2.0, 3.0], [1.5, 3.0], [4.5, 3.0], [4.5, 3.0]])
    np.testing.assert_array_equal(chosen, [1, 1, 0, 0])
    np.testing.assert_allclose(value, [3, 3, 4.5, 4.5])
    again, chosen, value = look(np.array([[True, False]] * 2 + [[False, True]] * 2))
    np.testing.assert_array_equal(again, q)
    np.testing.assert_array_equal(chosen, [0, 0, 1, 1])
    np.testing.assert_allclose(value, [2, 1.5, 3, 3])


def test_equal_values_are_chosen_from_at_random_and_no_illegal_one() -> None:
    q = jnp.tile(jnp.array([[1.0, 2.0, 2.0, 3.0, 2.0]]), (300, 1))
    legal = jnp.ones_like(q, bool).at[:, 3].set(False)
    chosen = np.argmax(break_ties(jax.random.key(0), q, legal), axis=-1)
    counts = np.bincount(chosen, minlength=5)
    assert counts[0] == counts[3] == 0 and (counts[[1, 2, 4]] > 70).all()


def test_keys_are_the_same_bits_in_batches_of_all_sizes() -> None:
    x = jax.random.normal(jax.random.key(0), (13, 50))
    signs = jax.random.rademacher(jax.random.key(1), (50, 16), jnp.float32)
    whole = jax.jit(project)(x, signs)
    np.testing.assert_allclose(whole, x @ signs, atol=1e-4)
    for size in (1, 4):
        np.testing.assert_array_equal(jax.jit(project)(x[:size], signs), whole[:size])
    assert project(x, ()) is x


def test_numbers_with_declared_bounds_are_divided_by_them() -> None:
    largest = np.finfo(np.float32).max
    space = {
        "a": Continuous((2,), np.float32, np.array([-4.0, -largest]), np.array([4.0, largest])),
        "b": Discrete(3),
        "c": Continuous((), np.float32, 0.0, 0.5),
    }
    seen = {"a": jnp.array([[2.0, 9.0]]), "b": jnp.array([1]), "c": jnp.array([0.25])}
    step = timesteps([0])._replace(observation=seen)
    np.testing.assert_allclose(vector(space, step), [[0.5, 9, 0, 1, 0, 0.5]])


def test_the_loss_of_nec_weighs_windows_and_leaves_out_what_was_not_done() -> None:
    rng = np.random.default_rng(0)
    query, keys = rng.normal(size=(2, 3, 4)), rng.normal(size=(6, 5, 4))
    values, target = rng.normal(size=(6, 5)), rng.normal(size=(2, 3))
    matters = np.ones((2, 3), bool)
    matters[1, 0] = False
    target[1, 0] = np.nan
    weight, found = np.where(matters, [1.0, 0.5, 2.0], 0), np.ones((6, 5), bool)
    args = map(jnp.float32, (query, keys, values))
    grad = jax.jit(jax.value_and_grad(error_loss, (0, 1, 2), has_aux=True))
    (mean, loss), (by_query, by_keys, by_values) = grad(
        *args, found, jnp.float32(target), jnp.float32(weight)
    )
    distance = ((query.reshape(6, 1, 4) - keys) ** 2).sum(-1)
    share = 1 / (distance + 1e-3)
    share /= share.sum(-1, keepdims=True)
    q = (share * values).sum(-1)
    error = np.where(matters, target - q.reshape(2, 3), 0)
    np.testing.assert_allclose(loss.error, error, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mean, np.mean(error**2 / 2 * weight), rtol=1e-4)
    expected = -(error * weight).reshape(6, 1) * share / 6
    np.testing.assert_allclose(by_values, expected, rtol=1e-3, atol=1e-6)
    for gradient in (by_query.reshape(6, -1), by_keys.reshape(6, -1)):
        assert (gradient[3] == 0).all() and (np.delete(gradient, 3, axis=0) != 0).all()


def solve(preset: str, **changes: Any) -> Any:
    """Train three seeds on what `changes` say; return what greedy episodes return, [seeds, 20]."""
    ENVIRONMENTS["chain"] = chain
    try:
        config = memrl_jax.presets[preset].replace(
            environment="chain", environments=4, rollout_length=4, epsilon_steps=300.0, **changes
        )
        trainer, _ = build.make(config)
        train = build.make_train(config)
    finally:
        del ENVIRONMENTS["chain"]

    def run(key: Any) -> Any:
        state, metrics = train(key)
        return trainer.evaluate(jax.random.clone(key), state.agent, 20).total, metrics

    return jax.jit(lambda keys: jax.lax.map(run, keys))(jax.random.split(jax.random.key(0), 3))


SMALL_NEC = dict(
    capacity=1_600, learning_starts=320, encoder=(16,), key_size=4, entries=300, n_step=10
)


@pytest.mark.parametrize("preset, changes", [("mfec", {"entries": 300}), ("nec", SMALL_NEC)])
def test_a_corridor_is_learned(preset: str, changes: dict[str, Any]) -> None:
    args = {"penalty": -0.01, "masked": True}
    total, metrics = solve(preset, total_steps=1_600, environment_args=args, **changes)
    np.testing.assert_allclose(total, 0.95, rtol=1e-5)
    assert all(np.isfinite(x).all() for x in metrics.values())


@pytest.mark.parametrize("preset", ["mfec", "nec"])
def test_training_promotes_no_rank_and_uses_no_key_twice(preset: str) -> None:
    config = memrl_jax.presets[preset].replace(environment="Catch-bsuite", key_size=8)
    with jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        jax.jit(build.make_train(config)).trace(jax.random.key(0))


def test_races_can_be_run_and_are_judged_by_medians() -> None:
    for make in (RESULTS | traces.RESULTS).values():
        for config in make().runs.values():
            build.make(config)
    curve = np.array([10, 20, 30]), np.array([[0, 1, 2], [2, 0, 0], [0, 0, 1]])
    assert races.steps_to(2, curve) == [30, 10, None]
    assert races.median([30, 10, None]) == 30 and races.median([None, None, 1]) == np.inf
    returns = {"DQN": np.zeros((3, 2)), "NEC": np.ones((3, 2))}
    taken: dict[str, list[float | None]] = {"DQN": [None, 9.0, None], "NEC": [8.0, 9.0, None]}
    ever, last, sooner = races.judged(1.0, returns, taken)
    assert not ever.reached and ever.figure == "2 of 3, after 9 steps (median)"
    assert last.reached and last.figure == "1.00"
    assert sooner.reached and sooner.figure == "9 against inf"


@pytest.mark.parametrize(
    "preset, changes, message",
    [
        ("mfec", {"entries": 10, "neighbours": 11}, "neighbours: 11 is above 10"),
        ("mfec", {"key_size": 0}, "key_size: 0 is below 1"),
        ("mfec", {"key_size": 4}, "key_size: 4 is not below the 4 numbers observed"),
        ("mfec", {"discount": 1.5}, "discount: 1.5 is not between 0 and 1"),
        ("nec", {"entries": 49}, "neighbours: 50 is above 49"),
        ("nec", {"n_step": 0}, "n_step: 0 is below 1"),
        ("nec", {"value_rate": -0.1}, "value_rate: -0.1 is not between 0 and 1"),
        (
            "mfec",
            {"environment": "Pendulum-v1"},
            "agent: mfec takes one Discrete action, not ",
        ),
        ("nec", {"environment": "Pendulum-v1"}, "agent: nec takes one Discrete action, not "),
    ],
)
def test_settings_that_cannot_be(preset: str, changes: dict[str, Any], message: str) -> None:
    config = memrl_jax.presets[preset].replace(**changes)
    with pytest.raises(ValueError, match="^" + re.escape(message)) as error:
        build.make_agent(config, build.make_environment(config))
    assert "\n" not in str(error.value)
