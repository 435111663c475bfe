"""Diagnostics against values that are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.agents import tmaze_50
from benchmarks.staleness import staleness
from memrl_jax.build import make, make_agent, make_environment
from memrl_jax.diagnose import delta_q, erasure, extrapolation, memory_span, record, sensitivity
from memrl_jax.environments import ENVIRONMENTS, batch
from memrl_jax.environments.tmaze import DOWN, RIGHT, UP
from memrl_jax.memory import from_step, gru, none
from memrl_jax.parallel import seed_keys
from memrl_jax.rollout import evaluate
from memrl_jax.types import Network, NeuralMemory, TimeStep
from tests.small import SMALL, q_network

T, D = 30, 3
XS = jax.random.normal(jax.random.key(0), (T, D))
STARTS = jnp.arange(T) == 18  # an episode starts inside
NO_STARTS = jnp.zeros(T, bool)
T_OF, K_OF = np.indices((T, T))


def summing_network() -> Network:
    """The memory adds up observations; Q is the memory and its negative."""

    def step(params, state, timestep):
        state = jnp.where(timestep.start, 0.0, state) + timestep.observation
        return state, params * jnp.stack([state, -state], axis=-1)

    def unroll(params, state, timestep):
        return jax.lax.scan(lambda state, t: step(params, state, t), state, timestep)

    return Network(lambda key, t: 1.0, lambda batch: jnp.zeros(batch), step, unroll)


def test_delta_q_by_hand():
    T = 4
    zeros = jnp.zeros((T, 2))
    start = jnp.zeros((T, 2), bool).at[2, 1].set(True)
    timestep = TimeStep(jnp.ones((T, 2)), zeros.astype(jnp.int32), zeros, zeros + 1, start, start)
    truth, memory = jnp.array([2.0, 2.0]), jnp.array([0.0, 5.0])
    # True values 3 4 5 6 and 3 4 1 2; replayed, 2 less, and 3 more until the episode starts.
    off = np.sqrt(2) * np.array([[2 / 6] * 4, [3 / 4, 3 / 4, 0, 0]]).T
    network = summing_network()
    np.testing.assert_allclose(delta_q(network, 1.0, timestep, memory, truth), off, rtol=1e-6)
    after = np.sqrt(2) * np.array([[2 / 6] * 2, [0, 0]]).T
    np.testing.assert_allclose(delta_q(network, 1.0, timestep, memory, truth, 2), after, rtol=1e-6)
    assert not np.any(delta_q(network, 1.0, timestep, truth, truth))


def test_stored_states_and_burn_in_bring_q_closer_to_the_truth():
    """A short form of benchmarks/staleness.py, with small networks."""
    config = tmaze_50().runs["R2D2"]
    config = config.replace(
        window=20,
        burn_in=20,
        batch_size=8,
        capacity=20_000,
        learning_starts=2_000,
        updates=2,
        encoder=(16,),
        memory_args={"features": 16},
        total_steps=8_000,
    )
    off = jax.jit(lambda key: staleness(config, key))(jax.random.key(0))
    mean = {label: float(x.mean()) for label, x in off.items()}
    assert mean["stored + burn-in"] < mean["zero"]
    assert mean["zero + burn-in"] < mean["zero"]
    assert mean["stored"] < mean["zero"]
    assert mean["zero"] > 1e-3


def linear(decay: float) -> NeuralMemory:
    """h = decay h + x, and the output is h."""

    def step(params, state, x):
        state = decay * state + x
        return state, state

    return from_step(lambda key, x: (), lambda: jnp.zeros(D), step)


def delay(steps: int) -> NeuralMemory:
    """The output is the input so many steps before."""

    def step(params, state, x):
        state = jnp.concatenate([state[1:], x[None]])
        return state, state[0]

    return from_step(lambda key, x: (), lambda: jnp.zeros((steps + 1, D)), step)


def sensitivity_of(memory, starts=NO_STARTS):
    params = jax.jit(memory.init)(jax.random.key(1), XS[0])
    state = memory.initial_state()
    return jax.jit(partial(sensitivity, lambda xs: memory.unroll(params, state, xs, starts)[1]))(XS)


def erased(memory, starts=NO_STARTS):
    params = jax.jit(memory.init)(jax.random.key(1), XS[0])
    return erasure(
        lambda state, x: memory.step(params, state, *x), memory.initial_state(), (XS, starts)
    )


def timesteps(batch: int) -> TimeStep:
    """Observations of the T-Maze that no maze shows, [T, batch, 2], with starts inside."""
    zeros = jnp.zeros((T, batch))
    start = jnp.zeros((T, batch), bool).at[0].set(True).at[11, -1].set(True)
    seen = jax.random.normal(jax.random.key(2), (T, batch, 2))
    return TimeStep(seen, zeros.astype(jnp.int32), zeros, zeros + 1, start, start)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.8, 1.0])
def test_sensitivity_of_a_linear_memory(decay):
    expected = np.where(K_OF <= T_OF, np.sqrt(D) * decay**K_OF, np.nan)
    np.testing.assert_allclose(sensitivity_of(linear(decay)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("decay", "fraction", "expected"),
    # The lag at which decay**k is still at least the fraction, or the last one.
    [(0.0, 0.01, 0), (0.5, 0.01, 6), (0.8, 0.01, 20), (0.8, 0.1, 10), (1.0, 0.01, T - 1)],
)
def test_memory_span_of_a_linear_memory(decay, fraction, expected):
    assert memory_span(sensitivity_of(linear(decay)), fraction) == expected


def test_memory_span_of_a_delay_is_the_delay():
    """The present input counts for nothing, so the span goes by the largest value."""
    gradient = sensitivity_of(delay(5))
    np.testing.assert_array_equal(gradient[9, :8], np.sqrt(D).astype(np.float32) * np.eye(8)[5])
    assert memory_span(gradient) == 5


def test_memory_span_is_nan_where_there_is_none():
    exists = K_OF <= T_OF
    assert np.isnan(memory_span(jnp.where(exists, 0.0, jnp.nan)))
    assert np.isnan(memory_span(jnp.where(exists, 1.0, jnp.nan).at[20, 3].set(jnp.nan)))
    assert memory_span(jnp.where(exists, 1.0, jnp.nan)[:, :7]) == 6


@pytest.mark.parametrize("starts", [NO_STARTS, STARTS])
def test_sensitivity_of_a_gru_is_its_jacobian(starts):
    memory = gru(4)
    params = jax.jit(memory.init)(jax.random.key(1), XS[0])
    state = memory.initial_state()
    jacobian = jax.jacrev(lambda xs: memory.unroll(params, state, xs, starts)[1])
    norms = np.linalg.norm(jax.jit(jacobian)(XS), axis=(1, 3))
    gradient = np.asarray(sensitivity_of(memory, starts))
    for t in range(T):
        np.testing.assert_allclose(gradient[t, : t + 1], norms[t, t::-1], rtol=1e-4, atol=1e-12)
        assert np.isnan(gradient[t, t + 1 :]).all()


@pytest.mark.parametrize("table", [sensitivity_of, erased])
def test_nothing_reaches_across_a_start(table):
    values = np.asarray(table(gru(4), STARTS))
    before = 17 if table is sensitivity_of else 18  # erasing just before the start changes nothing
    across = (T_OF >= 18) & (before >= T_OF - K_OF) & (K_OF <= T_OF)
    # A row of an erased batch may round unlike the same row by itself.
    assert np.abs(values[across]).max() <= (0 if table is sensitivity_of else 1e-6)
    within = (K_OF <= T_OF) & ~across
    if table is erased:
        within &= T_OF > K_OF  # at the beginning there is nothing to erase
    assert (values[within] > 0).all()


def test_sensitivity_of_a_network_through_its_batch():
    """Norms over a batch are those of its sequences, squared and summed."""
    network = q_network(SMALL, make_environment(SMALL))
    timestep = timesteps(2)
    params = jax.jit(network.init)(jax.random.key(1), jax.tree.map(lambda x: x[0], timestep))

    @jax.jit
    def gradient(steps):
        state = network.initial_state(steps.reward.shape[1])

        def unroll(observation):
            return network.unroll(params, state, steps._replace(observation=observation))[1]

        return sensitivity(unroll, steps.observation)

    def part(index: slice):
        return np.asarray(gradient(jax.tree.map(lambda x: x[:, index], timestep)))

    first, last, both = part(slice(1)), part(slice(1, 2)), part(slice(2))
    np.testing.assert_allclose(both, np.sqrt(first**2 + last**2), rtol=1e-4, atol=1e-9)
    assert first[11, 1] > 0
    assert last[11, 1] == 0


def test_sensitivity_takes_a_pytree_of_inputs():
    def unroll(xs):
        return jnp.cumsum(3 * xs["a"] + 4 * xs["b"][:, 0])

    gradient = sensitivity(unroll, {"a": jnp.ones(T), "b": jnp.ones((T, 1))})
    np.testing.assert_allclose(gradient, np.where(K_OF <= T_OF, 5, np.nan), rtol=1e-6)


def test_sensitivity_and_memory_span_refuse():
    with pytest.raises(ValueError, match="xs: int32 is not a float type"):
        sensitivity(lambda xs: xs, jnp.arange(3))
    with pytest.raises(ValueError, match="unroll: 2 outputs are not one for each of 3 inputs"):
        sensitivity(lambda xs: xs[1:], jnp.ones(3))
    for fraction in (0.0, 1.1):
        with pytest.raises(ValueError, match=rf"fraction: {fraction} is not inside \(0, 1\]"):
            memory_span(jnp.ones((3, 3)), fraction)


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_erasure_of_a_linear_memory(decay):
    """What was lost at t - k has decayed since: decay**(k + 1) h[t - k - 1]."""
    memory = linear(decay)
    _, h = memory.unroll((), memory.initial_state(), XS, NO_STARTS)
    lost = np.concatenate([[0], np.linalg.norm(h, axis=1)])
    expected = np.where(K_OF <= T_OF, decay ** (K_OF + 1) * lost[T_OF - K_OF], np.nan)
    # Distances come from outputs of about 1, so they are rounded like these.
    np.testing.assert_allclose(erased(memory), expected, rtol=1e-4, atol=1e-6)


def test_without_a_memory_there_is_nothing_to_erase():
    np.testing.assert_array_equal(erased(none()), np.where(K_OF <= T_OF, 0, np.nan))


def test_erasure_of_a_network_step_by_step():
    network = q_network(SMALL, make_environment(SMALL))
    timestep = timesteps(2)
    params = jax.jit(network.init)(jax.random.key(1), jax.tree.map(lambda x: x[0], timestep))
    step = jax.jit(partial(network.step, params))
    initial = network.initial_state(2)
    distance = np.asarray(erasure(partial(network.step, params), initial, timestep))

    def outputs(erase: int):
        state, out = initial, []
        for t in range(T):
            state = initial if t == erase else state
            state, q = step(state, jax.tree.map(lambda x, t=t: x[t], timestep))
            out.append(q)
        return np.stack(out)

    intact = outputs(-1)
    for e in (0, 7, 20):
        expected = np.linalg.norm((outputs(e) - intact).reshape(T, -1), axis=1)
        lags = np.arange(T - e)
        np.testing.assert_allclose(distance[e + lags, lags], expected[e:], rtol=1e-3, atol=1e-6)
    assert distance[7, 0] > 1e-3


def scripted(corridor, key, keeps):
    """Success of one who keeps the cue for so many steps, walks to the junction, and turns."""

    def policy(key, memory, timestep):
        cue, age = memory
        seen, junction = timestep.observation.T
        age = jnp.where(timestep.start, 0, age + 1)
        cue = jnp.where(timestep.start, seen, jnp.where(age > keeps, 0.0, cue))
        guess = jax.random.rademacher(key, cue.shape, jnp.float32)
        turn = jnp.where(jnp.where(cue == 0, guess, cue) > 0, UP, DOWN)
        return (cue, age), jnp.where(junction == 1, turn, RIGHT), ()

    count = 200
    env = batch(ENVIRONMENTS["TMaze"](corridor=corridor))
    memory = jnp.zeros(count), jnp.zeros(count, jnp.int32)
    return evaluate(env, policy, memory, key, count).total.mean()


def test_extrapolation_of_scripted_policies():
    """The seeds differ in how long they keep the cue; beyond that they guess."""
    keeps = jnp.array([1000, 10, 10])
    success = extrapolation(scripted, (10, 11), seed_keys(0, 3), keeps)
    np.testing.assert_array_equal(success[0], [1, 1])
    np.testing.assert_array_equal(success[:, 0], [1, 1, 1])
    np.testing.assert_allclose(success[1:, 1:], 0.5, atol=0.15)  # over four standard errors
    assert success[1, 1] != success[2, 1]  # seeds have keys of their own


def test_extrapolation_of_agents_is_their_evaluation():
    config = SMALL.replace(memory="none", memory_args={})  # compiles soonest
    env = make_environment(config)
    first = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 2))[1]
    keys = seed_keys(0, 2)
    states = jax.jit(jax.vmap(lambda key: make_agent(config, env).init(key, first)))(keys)

    def play(corridor, key, state):
        longer, _ = make(config.replace(environment_args={"corridor": corridor}))
        return longer.evaluate(key, state, 4).length.mean()

    lengths = extrapolation(play, [20], keys, states)
    assert lengths.shape == (2, 1)
    key, state = jax.random.fold_in(keys[1], 0), jax.tree.map(lambda x: x[1], states)
    assert lengths[1, 0] == jax.jit(partial(play, 20))(key, state)


def test_a_record_is_what_there_is_to_see_at_every_step():
    """The last inputs a memory got are what it attends to; a start resets them."""

    def step(params, state, x):
        return jnp.concatenate([state[1:], x[:1]]), x

    def inspect(params, state, x):
        return {"attention": params * state[None], "memory": state[:, None]}

    memory = from_step(lambda key, x: (), lambda: jnp.zeros(3), step, inspect)
    recorded = record(
        lambda state, x: memory.step(2.0, state, *x),
        lambda state, x: memory.inspect(2.0, state, *x),
        memory.initial_state(),
        (XS, STARTS),
    )
    held = np.zeros((T, 3), np.float32)
    for t in range(1, T):
        held[t] = [XS[s, 0] if s >= (18 if t >= 18 else 0) else 0 for s in range(t - 3, t)]
    np.testing.assert_array_equal(recorded["attention"], 2 * held[:, None])
    np.testing.assert_array_equal(recorded["memory"], held[:, :, None])


def test_a_record_of_a_network_is_that_of_its_memory():
    config = SMALL.replace(memory="rmqn", memory_args={"features": 4, "frames": 3})
    network = q_network(config, make_environment(config))
    timestep = timesteps(2)
    params = jax.jit(network.init)(jax.random.key(0), jax.tree.map(lambda x: x[0], timestep))
    state = network.initial_state(2)
    recorded = record(
        partial(network.step, params), partial(network.inspect, params), state, timestep
    )
    assert recorded["attention"].shape == (T, 2, 1, 2)
    np.testing.assert_allclose(recorded["attention"].sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(recorded["attention"][jnp.array([0, 11]), -1], 0.5)  # at starts
