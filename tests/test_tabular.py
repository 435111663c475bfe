"""Tabular Q-learning against value iteration, a loop in NumPy, and tasks with known answers."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax import tree
from memrl_jax.agents.tabular import TabularConfig, tabular
from memrl_jax.environments import Arrival, episodic
from memrl_jax.planning import value_iteration
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.train import make_trainer
from memrl_jax.types import Environment, Segment, Spec, TimeStep

RANDOM = {"epsilon_start": 1.0, "epsilon_end": 1.0}


def mdp(model: Any, limit: int) -> Environment:
    """Play a model [S, A, S], [S, A], [S, A]: from anywhere, until it ends or is cut off."""
    transition, reward, legal = model
    states, actions = reward.shape
    bounds = jnp.cumsum(jnp.asarray(transition), axis=-1)

    def first(key):
        state = jax.random.randint(key, (), 0, states)
        return (state, jnp.int32(0)), state

    def step(key, state, action):
        number, time = state
        after = jnp.sum(jax.random.uniform(key) >= bounds[number, action], dtype=jnp.int32)
        ended = after == states
        after = jnp.minimum(after, states - 1)
        return Arrival((after, time + 1), after, reward[number, action], ended, time + 1 == limit)

    def allowed(state):
        return legal[state[0]]

    return episodic(first, step, Discrete(states), Discrete(actions), limit, legal=allowed)


def chain() -> Any:
    """Walk to the right, which ends with 1; nothing is left to chance."""
    transition, reward, legal = np.zeros((5, 3, 5)), np.zeros((5, 3)), np.ones((5, 3), bool)
    for s in range(5):
        transition[s, 0, max(s - 1, 0)] = 1
        transition[s, 1, s + 1 : s + 2] = 1
    reward[4, 1] = 1
    legal[:, 2] = False
    return transition, reward, legal


def river() -> Any:
    """Swim up against a current, which never ends: a time limit cuts it off."""
    transition, reward, legal = chain()
    for s in range(5):
        transition[s, 1] = 0
        for after, share in ((s + 1, 0.8), (s, 0.15), (s - 1, 0.05)):
            transition[s, 1, np.clip(after, 0, 4)] += share
    reward[0, 0], reward[4, 1] = 0.05, 0.25
    return transition, reward, legal


def exits() -> Any:
    """Slip on the way, or wait for the end, where that is legal: what is illegal would pay most."""
    transition, reward, legal = river()
    transition[:, 1] = 0.9 * np.eye(5, k=1) + 0.1 * np.eye(5)
    transition[4, 1, 4] = 1
    transition[:, 2] = 0.9 * np.eye(5)
    reward[4, 1], reward[:, 2] = 0.15, 0.1
    legal[:, 2] = True
    legal[1, 2] = legal[4, 0] = False
    return transition, np.where(legal, reward, 9.0), legal


@jax.jit
def table(model: Any, config: TabularConfig, rollouts: Any) -> Any:
    """Learn from 32 environments that act at random, 8 actions at a time."""
    env = mdp(model, 20)
    trainer = make_trainer(env, tabular(config, env.spec), 32, 8)
    train, _ = trainer.init(jax.random.key(0))
    train = jax.lax.fori_loop(0, rollouts, lambda _, train: trainer.step(train)[0], train)
    return train.agent


@pytest.mark.parametrize(
    "model, rollouts, settings",
    [
        (chain, 100, {"learning_rate": 1.0, "discount": 0.9}),
        (river, 3000, {"learning_rate": 1.0, "visits_exponent": 0.9, "discount": 0.5}),
        (exits, 3000, {"learning_rate": 1.0, "visits_exponent": 0.9, "discount": 0.5}),
    ],
)
def test_values_are_those_of_value_iteration(model, rollouts, settings):
    """To 1e-3. A time limit of 20 is no end: what comes after it counts."""
    transition, reward, legal = model()
    config = TabularConfig().replace(**RANDOM, **settings)
    state = table((transition, reward, legal), config, rollouts)
    _, q = value_iteration(transition, reward, config.discount, legal)
    np.testing.assert_allclose(state.q[legal], q[legal], atol=1e-3)
    assert not np.any(state.visits[~legal]) and np.all(state.q[~legal] == 0)


def test_value_iteration_solves_the_equations_of_the_best_policy():
    transition, reward, legal = exits()
    v, q = value_iteration(transition, reward, 0.95, legal, tolerance=1e-7)
    best = np.argmax(np.where(legal, q, -np.inf), axis=1)
    rows = np.arange(5)
    exact = np.linalg.solve(np.eye(5) - 0.95 * transition[rows, best], reward[rows, best])
    np.testing.assert_allclose(v, exact, rtol=1e-5)
    np.testing.assert_allclose(q, reward + 0.95 * transition @ exact, rtol=1e-5)
    endless, _ = value_iteration(jnp.ones((1, 1, 1)), jnp.ones((1, 1)), 1.0, tolerance=1e-2)
    assert endless == 100  # it stops even where values have no bound
    with pytest.raises(ValueError, match=r"^transition: \(5, 3, 4\) are not .* = \(5, 3\)$"):
        value_iteration(transition[..., :4], reward, 0.9)


def sequence(steps: int, batch: int, observations: Any, actions: int) -> tuple[TimeStep, Any]:
    """Make up timesteps [steps + 1, B] and actions [steps, B]; no reward where nothing was done."""
    rng = np.random.default_rng(0)
    shape = steps + 1, batch
    last = rng.random(shape) < 0.15
    start = np.roll(last, 1, axis=0)
    start[0] = True
    legal = rng.random((*shape, actions)) < 0.7
    action = rng.integers(actions, size=shape).astype(np.int32)
    np.put_along_axis(legal, action[..., None], True, axis=-1)
    fields: Any = dict(
        observation=tuple(rng.integers(x.n, size=shape).astype(np.int32) for x in observations),
        action=np.where(start, 0, np.roll(action, 1, axis=0)),
        reward=np.where(start, np.nan, rng.normal(size=shape)).astype(np.float32),
        discount=np.where(last & (rng.random(shape) < 0.5), 0, 1).astype(np.float32),
        start=start,
        last=last,
        legal=legal,
    )
    return TimeStep(**fields), action[:-1]


class Loop:
    """Sutton & Barto (1998), figure 7.14, step by step, in one environment after the other."""

    def __init__(self, config: TabularConfig, shape: tuple[int, int], batch: int) -> None:
        self.config = config
        self.q = np.full(shape, config.initial_value)
        self.visits = np.zeros(shape, int)
        self.trace = np.zeros((batch, *shape))

    def learn(self, state: Any, segment: Segment) -> dict[str, float]:
        """Learn from states [T + 1, B] and what was done there."""
        total = {"loss_sum": 0.0, "q_sum": 0.0, "updates": 0.0}
        for b in range(state.shape[1]):
            for t in range(len(segment.action)):
                if not segment.timestep.last[t, b]:
                    now, error = self.step(state[:, b], t, b, segment)
                    total["loss_sum"] += error**2 / 2
                    total["q_sum"] += now
                    total["updates"] += 1
        return total

    def step(self, state: Any, t: int, b: int, segment: Segment) -> tuple[float, float]:
        """Learn from one transition; return the value as it was, and its error."""
        timestep, pair, trace = segment.timestep, (state[t], segment.action[t, b]), self.trace[b]
        highest = [max(self.q[state[i]][timestep.legal[i, b]]) for i in (t, t + 1)]
        now = self.q[pair]
        if timestep.start[t, b] or now < highest[0]:
            trace[:] = 0
        trace *= self.config.discount * (self.config.td_lambda or 0)
        trace[pair] = 1
        discount = self.config.discount * timestep.discount[t + 1, b]
        error = timestep.reward[t + 1, b] + discount * highest[1] - now
        self.visits[pair] += 1
        rate = self.config.learning_rate / np.maximum(self.visits, 1) ** self.config.visits_exponent
        self.q += rate * trace * error
        return now, error


@pytest.mark.parametrize("settings", [{}, {"td_lambda": 0.9, "visits_exponent": 0.5}], ids=str)
def test_learning_is_a_loop_over_environments_and_time(settings):
    """Two segments in a row: memory and traces go on from one to the next."""
    T, B, A = 20, 4, 2
    observations = (Discrete(2), Discrete(3))
    config = TabularConfig(remembered=2, learning_rate=0.5, discount=0.9, initial_value=0.25)
    config = config.replace(**settings)
    timestep, action = sequence(2 * T, B, observations, A)
    # The number of the present observation, and before it that of the last one, if there was one.
    seen = timestep.observation[0] * 3 + timestep.observation[1]
    number = np.where(timestep.start, 0, np.roll(seen, 1, axis=0) + 1) * 6 + seen

    agent = tabular(config, Spec(observations, Discrete(A), legal=True))
    state = agent.init(jax.random.key(0), tree.at(timestep, 0))
    memory, act, learn = agent.initial_memory(B), jax.jit(agent.act), jax.jit(agent.learn)
    loop = Loop(config, (7 * 6, A), B)
    for first in (0, T):
        now = tree.at(timestep, slice(first, first + T + 1))
        segment = Segment(memory, now, action[first : first + T], ())
        state, metrics = learn(jax.random.key(0), state, segment)
        expected = loop.learn(number[first : first + T + 1], segment)
        expected["epsilon_sum"] = expected["updates"]  # 1 throughout: no step is counted here
        for t in range(T):
            memory, _, _ = act(jax.random.key(t), state, memory, tree.at(now, t))
        chex.assert_trees_all_close(metrics, expected, rtol=1e-4)
    np.testing.assert_allclose(state.q, loop.q, atol=1e-5)
    np.testing.assert_array_equal(state.visits, loop.visits)
    if config.td_lambda is not None:
        go_on = ~timestep.last[-2]
        np.testing.assert_allclose(state.trace[go_on], loop.trace[go_on], atol=1e-6)
        assert np.sum(loop.trace > 0) > B  # some lasted
    chosen = agent.act(jax.random.key(0), state, memory, tree.at(timestep, -1), explore=False)[1]
    q = np.where(timestep.legal[-1], loop.q[number[-1]], -np.inf)
    np.testing.assert_array_equal(chosen, np.argmax(q, axis=-1))
    in_mind = agent.inspect(state, memory, tree.at(timestep, -1))
    np.testing.assert_allclose(in_mind["q"], loop.q[number[-1]], atol=1e-5)


def cue() -> Environment:
    """Show one of two cues, then nothing for two steps, and then ask which it was."""

    def first(key):
        cue = jax.random.randint(key, (), 0, 2)
        return (cue, jnp.int32(0)), cue

    def step(key, state, action):
        cue, time = state
        asked = time == 2
        return Arrival((cue, time + 1), jnp.int32(2), asked & (action == cue), asked, False)

    return episodic(first, step, Discrete(3), Discrete(2), horizon=3)


@pytest.mark.parametrize("remembered, success", [(3, 1.0), (2, 0.5)])
def test_a_cue_is_known_as_long_as_it_is_remembered(remembered, success):
    config = TabularConfig(remembered=remembered, visits_exponent=0.5, learning_rate=1.0)
    env = cue()
    trainer = make_trainer(env, tabular(config.replace(**RANDOM), env.spec), 8, 4)

    @jax.jit
    def run(key):
        train, _ = trainer.init(key)
        train = jax.lax.fori_loop(0, 200, lambda _, train: trainer.step(train)[0], train)
        return trainer.evaluate(key, train.agent, 1000).total

    assert np.mean(run(jax.random.key(0))) == pytest.approx(success, abs=0.05)


def test_parameters_are_the_table():
    agent = tabular(TabularConfig(td_lambda=0.5, initial_value=2.0), Spec(Discrete(4), Discrete(2)))
    timestep, _ = sequence(1, 3, [Discrete(4)], 2)
    state = agent.init(jax.random.key(0), tree.at(timestep, 0))
    assert np.all(state.q == 2)
    used = state._replace(visits=state.visits + 1, trace=state.trace + 1, env_steps=jnp.int32(9))
    fresh = agent.with_params(used, {"q": used.q + 1})
    chex.assert_trees_all_equal(fresh, state._replace(q=state.q + 1, env_steps=jnp.int32(9)))
    chex.assert_trees_all_equal(agent.params(fresh), {"q": state.q + 1})


@pytest.mark.parametrize(
    "observations, actions, settings, message",
    [
        (Continuous((2,), jnp.float32, 0, 1), Discrete(2), {}, "agent: tabular takes Discrete obs"),
        (Discrete(2), (Discrete(2),) * 2, {}, "agent: tabular .*environments.numbered"),
        (Discrete(99), Discrete(2), {"remembered": 5},
         "remembered: 5 observations of 99 values and 2 actions make a table of 19800000000 "
         "values, which is above 100000000"),
        (Discrete(50_000), Discrete(2), {"td_lambda": 0.9},
         "td_lambda: traces in 2000 environments for a table of 100000 values are 200000000 "
         "values, which is above 100000000"),
        (Discrete(2), Discrete(2), {"remembered": 0}, "remembered: 0 is below 1"),
        (Discrete(2), Discrete(2), {"td_lambda": 1.5}, "td_lambda: 1.5 is not between 0 and 1"),
        (Discrete(2), Discrete(2), {"epsilon_end": 2.0}, "epsilon_end: 2.0 is not between 0 and 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(observations, actions, settings, message):
    spec = Spec(observations, actions)
    timestep = sequence(1, 2000, [Discrete(2)], 2)[0]
    with pytest.raises(ValueError, match=f"^{message}") as error:
        agent = tabular(TabularConfig().replace(**settings), spec)
        jax.eval_shape(agent.init, jax.random.key(0), tree.at(timestep, 0))
    assert "\n" not in str(error.value)
