"""The parts of DQN and R2D2, each alone, against numbers worked out in another way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

import memrl_jax
from memrl_jax import settings, tree
from memrl_jax.agents import DQNConfig, ExplorationConfig, OptimizerConfig
from memrl_jax.agents.dqn import next_update, q_loss, targets
from memrl_jax.agents.exploration import epsilon, epsilon_greedy
from memrl_jax.agents.optimizer import make_optimizer
from memrl_jax.agents.windows import burned_in, priority
from memrl_jax.build import make_agent, make_environment, make_replay
from memrl_jax.environments import batch
from memrl_jax.rollout import initial, rollout
from memrl_jax.types import Network, Sample, Segment, TimeStep
from tests.small import SMALL, q_network, random_segment

# Computed once with rlax 0.1.9 in double precision: three series [3, T = 12], of 4 actions.
GOLDEN = dict(np.load(Path(__file__).parent / "data" / "q_learning.npz"))


def table_network() -> Network:
    """Q values are the observation times a scale, so that they can be written down."""

    def step(params, state, timestep):
        return state, params * timestep.observation

    return Network(lambda key, t: jnp.float32(1), lambda batch: (), step, step)


def sequence(q: Any, reward: Any, discount: Any, last: Any) -> TimeStep:
    """Make timesteps [T + 1, N] whose observations are action values."""
    action = jnp.zeros(q.shape[:2], jnp.int32)
    return TimeStep(jnp.asarray(q), action, jnp.asarray(reward), jnp.asarray(discount), last, last)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("loss", ["squared", "huber"])
def test_q_loss_by_hand(double, loss):
    rng = np.random.default_rng(0)
    L, N, A = 3, 5, 4
    q = jnp.asarray(rng.normal(size=(L + 1, N, A)), jnp.float32)
    action = jnp.asarray(rng.integers(A, size=(L, N)), jnp.int32)
    reward = jnp.asarray(rng.normal(size=(L + 1, N)), jnp.float32)
    last = jnp.asarray(rng.random((L + 1, N)) < 0.3)
    discount = jnp.where(last & (rng.random((L + 1, N)) < 0.5), 0.0, 1.0)
    segment = Segment((), sequence(q, reward, discount, last), action, ())
    weight = jnp.asarray(rng.random(N), jnp.float32)
    settings = DQNConfig().replace(double=double, loss=loss, discount=0.9, priority_mix=0.75)
    # A negative scale makes the target network prefer the action that the online one likes least.
    sample = Sample(segment, None, weight)
    value, parts = q_loss(jnp.float32(1), jnp.float32(-1), table_network(), settings, sample)
    expected: Any = 0.0
    errors = np.zeros((L, N))
    for t in range(L):
        for i in range(N):
            best = np.argmax(q[t + 1, i]) if double else np.argmax(-q[t + 1, i])
            target = reward[t + 1, i] + 0.9 * discount[t + 1, i] * -q[t + 1, i, best]
            error = target - q[t, i, action[t, i]]
            square = 0.5 * error**2
            one = square if loss == "squared" or abs(error) < 1 else abs(error) - 0.5
            expected += weight[i] * one * (not last[t, i]) / (L * N)
            errors[t, i] = np.nan if last[t, i] else abs(error)
    assert float(value) == float(parts.mean) == pytest.approx(float(expected), rel=1e-5)
    mixed = 0.75 * np.nanmax(errors, axis=0) + 0.25 * np.nanmean(errors, axis=0)
    np.testing.assert_allclose(parts.priority, mixed, rtol=1e-5)


@pytest.mark.parametrize("returns", [{}, {"n_step": 3}, {"td_lambda": 0.7}], ids=str)
def test_what_is_left_out_of_a_loss_may_be_nan(returns):
    """Rewards where an episode starts, and all of a window that weighs nothing."""
    q = jnp.ones((5, 3, 2)).at[1, 0, 1].set(4)
    last = jnp.zeros((5, 3), bool).at[1, 0].set(True)
    reward = jnp.ones((5, 3)).at[2, 0].set(jnp.nan).at[:, 2].set(jnp.nan)
    segment = Segment((), sequence(q, reward, jnp.ones((5, 3)), last), jnp.zeros((4, 3), int), ())
    sample = Sample(segment, None, jnp.array([1.0, 1.0, 0.0]))
    settings = DQNConfig(**returns)

    def loss(params):
        return q_loss(params, jnp.float32(1), table_network(), settings, sample)

    differentiated = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, parts), gradient = differentiated(jnp.float32(1))
    assert np.isfinite([value, gradient]).all() and value > 0 and gradient != 0
    np.testing.assert_array_equal(np.isfinite(parts.priority), [True, True, False])


def test_a_window_without_anything_to_learn_has_no_priority():
    none = priority(0.9, jnp.full((1, 3), 7.0), jnp.array([[True, False, True]]))
    np.testing.assert_allclose(none, [7, 0, 7], rtol=1e-6)


@pytest.mark.parametrize("series", range(3))
def test_double_q_agrees_with_the_reference(series):
    """T transitions, each a window of its own: online values choose, the target's count."""
    x = {name: GOLDEN[f"double_q/{name}"][series] for name in ("q", "a", "r", "discount")}
    chosen, valued = (GOLDEN[f"double_q/{name}"][series] for name in ("selector", "value"))
    # What a network sees at the second timestep are two tables: its own and the other's.
    before = np.concatenate([x["q"], x["q"]], axis=-1)
    after = np.concatenate([chosen, valued], axis=-1)
    N = len(x["a"])
    timestep = sequence(
        np.stack([before, after]),
        np.stack([np.zeros(N), x["r"]]).astype(np.float32),
        np.stack([np.ones(N), x["discount"]]).astype(np.float32),
        jnp.zeros((2, N), bool),
    )
    sample = Sample(Segment((), timestep, jnp.asarray(x["a"])[None], ()), None, jnp.ones(N))

    def step(params, state, timestep):
        table = timestep.observation.reshape(*timestep.reward.shape, 2, 4)
        return state, table[..., params, :]

    network = Network(lambda key, t: 0, lambda batch: (), step, step)
    settings = DQNConfig(discount=1.0)
    _, parts = q_loss(0, 1, network, settings, sample)
    np.testing.assert_allclose(parts.priority, np.abs(GOLDEN["double_q/out"][series]), rtol=1e-5)


@pytest.mark.parametrize("n", [1, 3, 5])
@pytest.mark.parametrize("kind", ["id", "sh"])
def test_rescaled_n_step_targets_agree_with_the_reference(kind, n):
    name = f"transformed_n_step_q/{kind}_n{n}"
    r, discount, value, q = (GOLDEN[f"{name}/{k}"].T for k in ("r", "discount", "value", "q"))
    rescaling = {"id": None, "sh": 1e-3}[kind]
    settings = DQNConfig(n_step=n, discount=1.0, rescaling=rescaling)
    shape = r.shape
    after = TimeStep((), jnp.zeros(shape, jnp.int32), r, discount, *[jnp.zeros(shape, bool)] * 2)
    error = targets(settings, after, jnp.asarray(value)) - q
    np.testing.assert_allclose(error, GOLDEN[f"{name}/out"].T, rtol=1e-4, atol=1e-5)


AT_RANDOM = ExplorationConfig(epsilon_start=0.9)


def replay_of(config: memrl_jax.Config) -> Any:
    """Make the replay memory that a DQN agent of this config has."""
    agent: Any = config.agent
    return make_replay(agent.experience, config)


def acted(config: memrl_jax.Config, rollouts: int) -> tuple[Any, ...]:
    """Act without learning; return what a replay memory holds and all the action values seen."""
    one = make_environment(config)
    network, replay, env = q_network(config, one), replay_of(config), batch(one)
    count = config.environments
    actor = initial(env, network.initial_state(count), jax.random.key(0), count)
    params = network.init(jax.random.key(1), actor.timestep)

    def policy(key, memory, timestep):
        memory, q = network.step(params, memory, timestep)
        return memory, epsilon_greedy(AT_RANDOM, key, q, jnp.int32(0), timestep), q

    @jax.jit
    def run(actor, key):
        def step(carry, key):
            actor, state = carry
            actor, segment = rollout(env, policy, actor, key, config.rollout_length)
            return (actor, replay.add(state, segment)), segment.timestep.start

        zeros = jnp.zeros((count, 4), jnp.float32)
        empty = Segment(actor.memory, actor.timestep, jnp.zeros(count, jnp.int32), zeros)
        keys = jax.random.split(key, rollouts)
        return jax.lax.scan(step, (actor, replay.init(empty)), keys)

    (_, state), started = run(actor, jax.random.key(2))
    return network, params, replay, state, started


RECURRENT = SMALL.replace(environment_args={"corridor": 3}, previous_action=True)


@pytest.mark.parametrize("memory", ["none", "gru", "lstm"])
@pytest.mark.parametrize("replay", ["uniform", "prioritized"])
def test_the_learner_unrolls_what_the_actor_computed(memory, replay):
    """From the stored memory, across the ends of episodes, long after the ring has wrapped."""
    options = {} if memory == "none" else {"features": 8}
    config = RECURRENT.replace(
        memory=memory,
        memory_args=options,
        replay=replay,
        window=7,
        burn_in=5,
        stored_state=True,
        batch_size=64,
    )
    network, params, memory_of, state, started = acted(config, rollouts=50)
    sample = memory_of.sample(jax.random.key(3), state)
    segment = sample.segment
    assert started.sum() > 20 and bool(segment.timestep.start[1:-1].any())
    _, q = network.unroll(params, segment.memory, tree.at(segment.timestep, slice(-1)))
    np.testing.assert_allclose(q, segment.extras, rtol=1e-5, atol=1e-6)
    if memory != "none":  # and it matters where one starts
        zero = jax.tree.map(jnp.zeros_like, segment.memory)
        _, other = network.unroll(params, zero, tree.at(segment.timestep, slice(-1)))
        assert float(jnp.abs(other - segment.extras).max()) > 1e-3


def test_burn_in_brings_memories_up_to_date_and_teaches_nothing():
    config = RECURRENT.replace(window=7, burn_in=5, stored_state=True, n_step=3)
    agent: Any = config.agent
    network, params, replay, state, _ = acted(config, rollouts=30)
    target_params = jax.tree.map(lambda x: 1.1 * x, params)
    sample = replay.sample(jax.random.key(3), state)
    burn = jax.jit(burned_in, static_argnums=(2, 3))
    memory, target_memory, rest = burn(params, target_params, network, 5, sample.segment)
    step = jax.jit(network.step)
    assert rest.action.shape[0] == 7 and rest.timestep.reward.shape[0] == 8
    by_hand = sample.segment.memory, sample.segment.memory
    for t in range(5):
        seen = tree.at(sample.segment.timestep, t)
        nets = (params, target_params)
        by_hand = tuple(step(p, m, seen)[0] for p, m in zip(nets, by_hand, strict=True))
    for ours, theirs in zip((memory, target_memory), by_hand, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)

    # Both networks alike, so that one memory does for both.
    later = sample._replace(segment=rest)
    gradient = jax.jit(jax.grad(lambda p: q_loss(p, params, network, agent, sample, 5)[0]))(params)
    alone = jax.jit(jax.grad(lambda p: q_loss(p, params, network, agent, later)[0]))(params)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_epsilon_falls_linearly_and_acts_at_random_that_often():
    settings = ExplorationConfig(epsilon_start=0.8, epsilon_end=0.2, epsilon_steps=100.0)
    falling = [epsilon(settings, jnp.int32(n), 2) for n in (0, 50, 100, 1000)]
    np.testing.assert_allclose(falling, np.repeat([[0.8], [0.5], [0.2], [0.2]], 2, axis=1))
    counts = np.bincount(explored(0.4, 0.0), minlength=4) / 40_000
    np.testing.assert_allclose(counts, [0.1, 0.1, 0.1, 0.7], atol=0.01)


def test_timesteps_are_observed_to_the_end_and_exploration_does_not_begin_anew(small):
    made, segment, state = small
    ended = int(segment.timestep.last[:-1].sum())
    assert 0 < ended < segment.action.size
    for count in (1, 2):
        state = made.observe(state, segment)
        assert state.env_steps == count * (segment.action.size - ended)
    state = state._replace(env_steps=jnp.int32(2**31 - 2))
    for _ in range(2):
        state = made.observe(state, segment)
        assert state.env_steps == 2**31 - 1
    for span in (1000.0, 2.0**31 - 1):
        settings = ExplorationConfig(epsilon_start=0.8, epsilon_end=0.2, epsilon_steps=span)
        np.testing.assert_allclose(epsilon(settings, state.env_steps, 1), [0.2], rtol=1e-6)


def test_updates_go_round_by_whole_target_periods():
    for period in (1, 7, 500, 10**8):
        updates, before = jnp.int32((2**31 - 1) // period * period - 3), []
        for _ in range(6):
            before.append(int(updates))
            updates = next_update(period, updates)
            assert int(updates) % period == (before[-1] + 1) % period
            assert 0 < updates < 2**31 - 1
        assert updates < before[0]


@pytest.mark.parametrize("span", [None, 1000.0, 2.0**31 - 1])
def test_adam_goes_on_where_its_count_ends(span):
    optimizer = make_optimizer(OptimizerConfig(decay_updates=span, learning_rate=0.1))
    state = jax.tree.map(
        lambda x: jnp.int32(2**31 - 2) if x.dtype == jnp.int32 else x, optimizer.init(jnp.ones(2))
    )
    for _ in range(3):
        step, state = optimizer.update(jnp.array([1.0, 0.0]), state)
        assert all(x == 2**31 - 1 for x in jax.tree.leaves(state) if x.dtype == jnp.int32)
        assert np.isfinite(step).all() and (step[0] < 0 if span is None else step[0] == 0)


@pytest.mark.parametrize(
    "field, value, bounds",
    [
        ("adam_epsilon", 0.0, "1e-30 and 1e+30"),
        ("adam_epsilon", 1e-46, "1e-30 and 1e+30"),
        ("max_gradient_norm", 0, "1e-30 and 1e+30"),
        ("max_gradient_norm", float("inf"), "1e-30 and 1e+30"),
        ("learning_rate", float("inf"), "0 and 1e+30"),
        ("epsilon_spread", 1e38, "0 and 1e+30"),
        ("epsilon_steps", 3e9, "1 and 2.14748e+09"),
        ("epsilon_steps", float("inf"), "1 and 2.14748e+09"),
        ("importance_updates", 2.0**31, "1 and 2.14748e+09"),
        ("decay_updates", 1e10, "1 and 2.14748e+09"),
        ("rescaling", 1.5, "0 and 1"),
    ],
)
def test_rates_that_no_number_of_float32_or_int32_reaches_are_refused(field, value, bounds):
    message = rf"^{field}: {value} is not between {bounds}$".replace("+", r"\+")
    with pytest.raises(ValueError, match=message):
        memrl_jax.make_train(SMALL.replace(**{field: value}))


@pytest.mark.parametrize("field", ["target_period", "restart", "restart_hold"])
def test_periods_that_cannot_go_round_are_refused(field):
    with pytest.raises(ValueError, match=f"^{field}: 500000001 is above 500000000$"):
        memrl_jax.make_train(SMALL.replace(restart=1).replace(**{field: 500_000_001}))


def test_a_rate_of_none_is_refused_where_it_means_nothing():
    with pytest.raises(ValueError, match=r"^learning_rate: None is not a number$"):
        memrl_jax.make_train(SMALL.replace(learning_rate=None))


def explored(probability, persistence):
    """40,000 actions where 3 is best and 1 was the last; every other one begins an episode."""
    q = jnp.broadcast_to(jnp.arange(4.0), (40_000, 4))
    start = jnp.arange(40_000) % 2 == 0
    zeros = jnp.zeros(40_000, jnp.float32)
    timestep = TimeStep(zeros, jnp.where(start, 0, 1), zeros, zeros, start, jnp.zeros_like(start))
    settings = ExplorationConfig(epsilon_start=probability, persistence=persistence)
    return np.asarray(epsilon_greedy(settings, jax.random.key(0), q, jnp.int32(0), timestep))


def test_persistence_repeats_the_last_action_that_often_but_not_at_a_start():
    action = explored(0.4, 0.5)
    started = np.bincount(action[::2], minlength=4) / 20_000
    np.testing.assert_allclose(started, [0.1, 0.1, 0.1, 0.7], atol=0.015)
    going_on = np.bincount(action[1::2], minlength=4) / 20_000
    np.testing.assert_allclose(going_on, [0.05, 0.55, 0.05, 0.35], atol=0.015)
    np.testing.assert_array_equal(explored(1.0, 1.0)[1::2], 1)


def test_every_actor_explores_with_an_epsilon_of_its_own():
    agent: Any = memrl_jax.presets["r2d2"].agent
    spread = epsilon(agent.exploration, jnp.int32(0), 8)
    np.testing.assert_allclose(spread, [0.4 ** (1 + 7 * i / 7) for i in range(8)], rtol=1e-5)
    np.testing.assert_allclose(epsilon(agent.exploration, jnp.int32(0), 1), [0.4], rtol=1e-6)


SWITCHES = [
    {},
    {"replay": "uniform", "priority_exponent": 0.6, "importance_start": 0.4, "importance_end": 1.0},
    {"stored_state": False},
    {"burn_in": 0},
    {"stored_state": False, "burn_in": 0},
    {"n_step": 1},
    {"td_lambda": 0.8, "n_step": 1},
    {"double": False},
    {"dueling": False},
    {"rescaling": None},
    {"epsilon_spread": 0.0},
    {"updates": 3},
]


@pytest.mark.parametrize("switch", SWITCHES, ids=str)
def test_every_part_of_r2d2_can_be_switched_off_alone(switch):
    config = SMALL.replace(agent=memrl_jax.presets["r2d2"].agent, memory="gru").replace(
        encoder=(8,),
        memory_args={"features": 8},
        window=4,
        burn_in=4,
        batch_size=4,
        capacity=160,
        learning_starts=80,
        n_step=2,
    )
    config = config.replace(**switch)
    made = make_agent(config, make_environment(config))
    segment = random_segment(config, made.initial_memory(config.environments))

    @jax.jit
    def learn(key):
        begun = made.init(key, tree.at(segment.timestep, 0))
        fill = jax.lax.scan(lambda s, _: (made.observe(s, segment), None), begun, length=10)
        return jax.lax.scan(
            lambda s, key: made.learn(key, s, segment), fill[0], jax.random.split(key, 5)
        )

    state, metrics = learn(jax.random.key(0))
    assert np.all(np.isfinite(metrics["loss_sum"])) and metrics["loss_sum"].shape == (5,)
    learner = state.learner
    assert int(learner.updates) == 5 * settings.named(config)["updates"]
    moved = [
        not np.array_equal(x, y)
        for x, y in zip(
            jax.tree.leaves(learner.params), jax.tree.leaves(learner.target_params), strict=True
        )
    ]
    assert all(moved)


PRIORITIZED = SMALL.replace(replay="prioritized")


@pytest.fixture(scope="module")
def small():
    """An agent, compiled; a segment, and its first state."""
    made = make_agent(PRIORITIZED, make_environment(PRIORITIZED))
    segment = random_segment(PRIORITIZED, made.initial_memory(PRIORITIZED.environments))
    begun = made.init(jax.random.key(0), tree.at(segment.timestep, 0))
    return made._replace(observe=jax.jit(made.observe), learn=jax.jit(made.learn)), segment, begun


def test_learning_goes_on_where_updates_are_counted_anew(small):
    """The target network moves when it would have."""
    made, segment, state = small
    for _ in range(made.warmup):
        state = made.observe(state, segment)
    end = (2**31 - 1) // 5 * 5
    young, old = (
        state._replace(learner=state.learner._replace(updates=jnp.int32(n))) for n in (7, end - 3)
    )
    for key in jax.random.split(jax.random.key(1), 9):
        young, old = (made.learn(key, x, segment)[0] for x in (young, old))
        assert same(young._replace(learner=()), old._replace(learner=()))
        assert same(*(x.learner._replace(updates=()) for x in (young, old)))
    assert (young.learner.updates, old.learner.updates) == (16, 5 + 6)


def test_errors_that_are_no_numbers_are_counted_and_poison_no_priorities(small):
    made, segment, state = small
    for _ in range(made.warmup):
        state = made.observe(state, segment)
    params = jax.tree.map(lambda x: x * jnp.nan, state.learner.params)
    lost = state._replace(learner=state.learner._replace(params=params))
    later, metrics = made.learn(jax.random.key(1), lost, segment)
    assert metrics["refused_priorities"] == 4 * 1
    assert np.isnan(metrics["loss_sum"])
    assert same(later.replay._replace(updates=()), lost.replay._replace(updates=()))


def same(x: Any, y: Any) -> bool:
    """Tell whether all leaves are equal."""
    pairs = zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_r2d2_has_the_published_settings_where_the_size_of_a_task_does_not_matter():
    published = dict(
        n_step=5, discount=0.997, priority_exponent=0.9, importance_start=0.6, importance_end=0.6,
        priority_mix=0.9, rescaling=1e-3, double=True, dueling=True, stored_state=True,
        epsilon_start=0.4, epsilon_end=0.4, epsilon_spread=7.0, replay="prioritized",
    )  # fmt: skip
    preset = settings.named(memrl_jax.presets["r2d2"])
    assert {name: preset[name] for name in published} == published
    assert preset["window"] == 3 * preset["burn_in"] == 3 * preset["rollout_length"]


def test_priorities_reach_the_replay_memory():
    """What was drawn has its error's priority, and everything else the largest."""
    config = SMALL.replace(replay="prioritized", batch_size=8, priority_exponent=1.0)
    trainer, _ = memrl_jax.build.make(config)
    state = jax.jit(trainer.step)(jax.jit(trainer.init)(jax.random.key(0))[0])[0]
    weights = np.concatenate([x.reshape(-1) for x in state.agent.replay.weights[:1]])
    drawn = weights[(weights > 0) & (np.abs(weights - 1) > 1e-5)]
    assert 0 < len(drawn) <= 8
    assert int(state.agent.replay.updates) == 1
    assert float(state.agent.replay.largest) >= 1


def equations(jaxpr: Any, inside: tuple[str, ...] = ()) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield every equation of a jaxpr, with the primitives that it is inside of."""
    for equation in jaxpr.eqns:
        yield equation, inside
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner, (*inside, equation.primitive.name))


@pytest.mark.parametrize("updates", [1, 2])
def test_an_update_is_products_of_matrices_without_scatters(updates: int) -> None:
    """And no loop is around a single one."""
    config = SMALL.replace(memory="none", memory_args={}, replay="uniform", updates=updates)
    made = make_agent(config, make_environment(config))
    segment = random_segment(config, ())
    first = tree.at(segment.timestep, 0)
    state = jax.eval_shape(made.init, jax.random.key(0), first)
    traced = jax.make_jaxpr(made.learn)(jax.random.key(0), state, segment)
    found = [(x, inside) for x, inside in equations(traced.jaxpr)]
    products = [(x, inside) for x, inside in found if x.primitive.name == "dot_general"]
    assert len(products) > 10
    assert all(x.aval.ndim == 2 for product, _ in products for x in product.invars)
    assert all(("scan" in inside) == (updates > 1) for _, inside in products)
    assert not any(x.primitive.name == "scatter-add" for x, _ in found)
