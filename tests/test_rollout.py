"""Rollouts and evaluation against loops in plain Python."""

from functools import partial

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.agents.dqn import DQNConfig, DQNState, Learner, dqn
from memrl_jax.agents.restarting import Restarting, restarting
from memrl_jax.environments import TMaze, batch, from_gymnax
from memrl_jax.environments.base import EpisodeStatistics, episode_metrics
from memrl_jax.replay import uniform
from memrl_jax.rollout import evaluate, initial, player, rollout
from memrl_jax.spaces import Discrete
from memrl_jax.types import Agent, Environment, Network, Spec, TimeStep, empty_record

B, T = 3, 8


def dice(key, state=None):
    """Begin an episode of 1 to 6 steps; `round` counts the episodes before it."""
    length = jax.random.randint(key, (), 1, 7)
    round = jnp.int32(0) if state is None else state["round"] + 1
    return {"length": length, "time": jnp.int32(0), "round": round}


def seen(key, state, action, start):
    """A timestep that shows its state and key; a reward tells the round it was earned in."""
    last = state["time"] == state["length"]
    reward = jnp.where(start, 0.0, 1 + 100.0 * state["round"])
    observation = {"key": jax.random.key_data(key), **state}
    return state, TimeStep(observation, action, reward, jnp.float32(1), start, last)


def toss(key, state, action):
    over = state["time"] == state["length"]
    onwards = {**state, "time": state["time"] + 1}
    state = jax.tree.map(partial(jnp.where, over), dice(key, state), onwards)
    return seen(key, state, jnp.where(over, 0, action), over)


def begin(key):
    return seen(key, dice(key), jnp.int32(0), jnp.bool_(True))


DICE = Environment(begin, toss, Spec(None, Discrete(5)), horizon=6)


def policy(key, memory, timestep):
    """Act at random; show the key, the memory, and the timestep that was acted on."""
    extras = {"key": jax.random.key_data(key), "memory": memory, "timestep": timestep}
    return memory + 1, jax.random.randint(key, (B,), 1, 5), extras


start = jax.jit(lambda key: initial(batch(DICE), jnp.arange(B) * 100, key, B))
roll = jax.jit(lambda actor, key: rollout(batch(DICE), policy, actor, key, T))
numbers = partial(jax.tree.map, np.asarray)


@pytest.fixture(scope="module")
def chain():
    """Three rollouts in a row."""
    actor, segments = start(jax.random.key(0)), []
    for i in range(3):
        actor, segment = roll(actor, jax.random.key(i + 1))
        segments.append(numbers(segment))
    return actor, segments


def test_initial_begins_every_environment_with_a_key_of_its_own():
    actor = numbers(start(jax.random.key(0)))
    assert actor.timestep.start.all() and not actor.timestep.last.any()
    assert len(np.unique(actor.timestep.observation["key"], axis=0)) == B
    np.testing.assert_array_equal(actor.memory, [0, 100, 200])


def test_a_segment_holds_the_actions_and_the_timesteps_around_them(chain):
    for segment in chain[1]:
        assert segment.action.shape == (T, B)
        assert {x.shape[:2] for x in jax.tree.leaves(segment.timestep)} == {(T + 1, B)}
        acted_on = jax.tree.map(lambda x: x[:-1], segment.timestep)
        jax.tree.map(np.testing.assert_array_equal, segment.extras["timestep"], acted_on)


def test_actions_are_seen_in_the_next_timestep_unless_the_episode_was_over(chain):
    over = 0
    for segment in chain[1]:
        t = segment.timestep
        expected = np.where(t.last[:-1], 0, segment.action)
        np.testing.assert_array_equal(t.action[1:], expected)
        np.testing.assert_array_equal(t.start[1:], t.last[:-1])
        over += t.last[:-1].sum()
    assert over > B


def test_rollouts_go_on_where_the_last_one_ended(chain):
    actor, segments = chain
    ends = [jax.tree.map(lambda x: x[-1], segment.timestep) for segment in segments]
    starts = [jax.tree.map(lambda x: x[0], segment.timestep) for segment in segments]
    beginnings = [numbers(start(jax.random.key(0)).timestep), *ends]
    for first, before in zip([*starts, numbers(actor.timestep)], beginnings, strict=True):
        jax.tree.map(np.testing.assert_array_equal, first, before)


def test_memory_is_the_one_before_the_first_timestep_and_is_handed_on(chain):
    actor, segments = chain
    for i, segment in enumerate(segments):
        memory = np.arange(B) * 100 + i * T
        np.testing.assert_array_equal(segment.memory, memory)
        np.testing.assert_array_equal(segment.extras["memory"], memory + np.arange(T)[:, None])
    np.testing.assert_array_equal(actor.memory, np.arange(B) * 100 + 3 * T)


def test_no_key_is_used_twice(chain):
    acting = [segment.extras["key"] for segment in chain[1]]
    stepping = [segment.timestep.observation["key"][1:].reshape(-1, 2) for segment in chain[1]]
    keys = np.concatenate([*acting, *stepping])
    assert len(keys) == 3 * (T + T * B)
    assert len(np.unique(keys, axis=0)) == len(keys)


def test_a_rollout_follows_from_its_actor_and_key():
    actor = start(jax.random.key(5))
    one, again, other = (roll(actor, jax.random.key(i))[1] for i in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert (one.action != other.action).any()


def judge(env, policy, count):
    """Compile `evaluate` to a function of the memory and the key."""
    return jax.jit(lambda memory, key: evaluate(batch(env), policy, memory, key, count))


def first_states(env, key, count):
    """How `evaluate` begins: the first half of its key goes to the resets."""
    return [env.reset(k)[0].state for k in jax.random.split(jax.random.split(key)[0], count)]


def follow_the_pole(key, memory, timestep):
    return memory, (timestep.observation[:, 2] > 0).astype(jnp.int32), ()


def test_evaluation_of_cartpole_is_that_of_a_plain_loop():
    limit, count, key = 40, 4, jax.random.key(3)
    env = from_gymnax("CartPole-v1", max_steps_in_episode=limit)
    theirs, params = gymnax.make("CartPole-v1")
    step = jax.jit(theirs.step_env)
    got = judge(env, follow_the_pole, count)((), key)
    falls = 0
    for i, state in enumerate(first_states(env, key, count)):
        fallen, length, total = False, 0, 0.0
        while not fallen and length < limit:
            _, state, reward, fallen, _ = step(key, state, int(state.theta > 0), params)
            length, total = length + 1, total + float(reward)
        assert (got.length[i], got.total[i], got.done[i]) == (length, total, True)
        falls += int(fallen)
    assert 0 < falls < count


def follow_a_plan(key, memory, timestep):
    """Take the planned actions, counting steps in the memory."""
    step, plan = memory
    return (step + 1, plan), plan[jnp.arange(len(step)), step], ()


@pytest.fixture(scope="module")
def walk():
    """Evaluate plans of 8 actions in a maze with 3 steps to the junction."""
    env, key, count = from_gymnax(TMaze(corridor=3)), jax.random.key(1), 6
    compiled = judge(env, follow_a_plan, count)
    goals = [int(state.goal) for state in first_states(env, key, count)]

    def walk(plan):
        plan = jnp.array([*plan, *[0] * (8 - len(plan))], jnp.int32)
        return goals, compiled((jnp.zeros(count, jnp.int32), jnp.tile(plan, (count, 1))), key)

    return walk


@pytest.mark.parametrize(
    "plan, length, up, down",
    [
        ([1, 1, 1, 2], 4, 1.0, 0.0),  # straight on, then up
        ([1, 0, 1, 1, 1, 3], 6, 0.0 - 4 / 3, 1.0 - 4 / 3),  # a detour, then down
        ([0] * 8, 8, -7 / 3, -7 / 3),  # stays until time is up
    ],
)
def test_evaluation_of_the_t_maze(walk, plan, length, up, down):
    goals, got = walk(plan)
    assert set(goals) == {-1, 1}
    expected = [up if goal == 1 else down for goal in goals]
    np.testing.assert_allclose(got.total, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(got.length, [length] * len(goals))
    assert got.done.all()


def still(key, memory, timestep):
    return memory, jnp.ones_like(timestep.action), ()


judge_dice = judge(DICE, still, 16)


def test_only_the_first_episode_counts():
    key = jax.random.key(2)
    got = judge_dice((), key)
    keys = jax.random.split(jax.random.split(key)[0], 16)
    lengths = np.array([dice(k)["length"] for k in keys])
    assert set(lengths) >= {1, 6}  # the shortest wait through whole episodes
    np.testing.assert_array_equal(got.length, lengths)
    np.testing.assert_array_equal(got.total, lengths)
    assert got.done.all()
    assert (got.total.dtype, got.length.dtype, got.done.dtype) == (np.float32, np.int32, bool)


def test_evaluation_stops_at_the_horizon():
    key, horizon = jax.random.key(2), 3
    whole = judge_dice((), key)
    got = judge(DICE._replace(horizon=horizon), still, 16)((), key)
    np.testing.assert_array_equal(got.done, whole.length <= horizon)
    np.testing.assert_array_equal(got.length, np.minimum(whole.length, horizon))
    np.testing.assert_array_equal(got.total, got.length)
    assert set(np.asarray(got.done)) == {False, True}


def endless(key, state, action):
    state, timestep = seen(key, {**state, "time": state["time"] + 1}, action, jnp.bool_(False))
    return state, timestep._replace(last=jnp.bool_(False))


def test_what_never_ends_is_not_done():
    got = judge(DICE._replace(step=endless, horizon=10), still, 2)((), jax.random.key(0))
    np.testing.assert_array_equal(got.length, [10, 10])
    np.testing.assert_array_equal(got.total, [10, 10])
    assert not got.done.any()


def test_evaluations_may_be_batched():
    keys = jax.random.split(jax.random.key(4), 3)
    together = jax.vmap(lambda key: judge_dice((), key))(keys)
    for i, key in enumerate(keys):
        alone = judge_dice((), key)
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x[i], y), together, alone)
    assert len(np.unique(together.length, axis=0)) == 3


def test_evaluation_uses_no_key_twice():
    """The environment rewards a key that repeats the last one; the policy acts on such a key."""

    def remember(key, state, timestep):
        return {**state, "key": jax.random.key_data(key)}, timestep

    def step(key, state, action):
        repeated = jnp.all(jax.random.key_data(key) == state["key"])
        state, timestep = endless(key, state, action)
        reward = jnp.float32(repeated) + jnp.float32(action)
        return remember(key, state, timestep._replace(reward=reward))

    def act(key, memory, timestep):
        now = jax.random.key_data(key)
        return now, jnp.full(2, jnp.all(now == memory), jnp.int32), ()

    spec = Spec(None, Discrete(2))
    env = Environment(lambda key: remember(key, *begin(key)), step, spec, horizon=10)
    got = judge(env, act, 2)(jnp.zeros(2, jnp.uint32), jax.random.key(0))
    np.testing.assert_array_equal(got.total, [0, 0])


def counting_network():
    """The memory counts steps and adds `params` to each; Q prefers the count, modulo 5."""

    def step(params, state, timestep):
        state = jnp.where(timestep.start, 0, state + params)
        return state, jax.nn.one_hot(state % 5, 5, dtype=jnp.float32)

    def inspect(params, state, timestep):
        return {"memory": state[:, None, None] * jnp.float32(10)}

    return Network(lambda key, t: 1, lambda batch: jnp.zeros(batch, int), step, step, inspect)


def counting_agent():
    """Its state is what the network adds up; exploring, it does nothing but 4."""
    network = counting_network()

    def act(key, state, memory, timestep, explore=True):
        memory, q = network.step(state, memory, timestep)
        return memory, jnp.where(explore, 4, jnp.argmax(q, axis=-1)).astype(jnp.int32), ()

    def inspect(state, memory, timestep):
        _, q = network.step(state, memory, timestep)
        return {"q": q, **network.inspect(state, memory, timestep)}

    def learn(*args):
        raise AssertionError("who plays does not learn")

    return Agent(learn, network.initial_state, act, learn, learn, learn, learn, inspect=inspect)


def test_a_player_records_one_greedy_episode():
    play = player(DICE, counting_agent())
    for seed in range(3):
        episode = play(jnp.int32(1), jax.random.key(seed))
        length = episode.observation["length"][0]
        assert len(episode.action) == length and all(
            isinstance(x, np.ndarray) for x in jax.tree.leaves(episode)
        )
        np.testing.assert_array_equal(episode.observation["time"], np.arange(length))
        np.testing.assert_array_equal(episode.action, np.arange(length) % 5)
        np.testing.assert_array_equal(episode.record["q"].argmax(axis=1), episode.action)
        np.testing.assert_array_equal(episode.reward, np.ones(length))
        before = np.maximum(np.arange(length) - 1, 0)[:, None, None]
        np.testing.assert_array_equal(episode.record["memory"], 10.0 * before)
    lengths = [len(play(jnp.int32(1), jax.random.key(seed)).action) for seed in range(8)]
    assert len({*lengths}) > 2


def test_a_player_stops_at_the_horizon():
    play = player(DICE._replace(horizon=2), counting_agent())
    assert max(len(play(jnp.int32(1), jax.random.key(seed)).action) for seed in range(8)) == 2


def test_an_agent_that_tells_nothing_can_be_played():
    agent = counting_agent()
    silent = agent._replace(inspect=empty_record)
    loud, quiet = (player(DICE, x)(jnp.int32(2), jax.random.key(0)) for x in (agent, silent))
    np.testing.assert_array_equal(quiet.action, loud.action)
    assert quiet.record == {}


def test_what_is_played_is_what_is_evaluated_while_a_restart_is_held():
    """Rewards spell the actions, so that returns that agree are of the same ones."""

    def spell(key, state, action):
        state, timestep = toss(key, state, action)
        return state, timestep._replace(reward=timestep.action * 5.0 ** (state["time"] - 1))

    env = DICE._replace(step=spell)
    network, replay = counting_network(), uniform(4, 1, 1, batch_size=1)
    agent = restarting(dqn(DQNConfig(), DICE.spec, lambda head: network, replay), 10, hold=5)
    play = player(env, agent)

    @jax.jit
    def evaluated(state, key):
        act = partial(agent.act, explore=False)
        memory = agent.initial_memory(1)
        return evaluate(batch(env), lambda key, *now: act(key, state, *now), memory, key, 1)

    new, old, key = jnp.int32(1), jnp.int32(3), jax.random.key(4)
    actions = {}
    for updates, adds in ((9, 1), (10, 3), (14, 3), (15, 1)):
        learner = Learner(new, new, (), jnp.int32(updates))
        state = Restarting(DQNState(learner, (), jnp.int32(0)), jnp.int32(updates), old)
        episode, score = play(state, key), evaluated(state, key)
        np.testing.assert_array_equal(episode.action, adds * np.arange(len(episode.action)) % 5)
        assert (score.total[0], score.length[0]) == (episode.reward.sum(), len(episode.action))
        actions[updates] = episode.action.tolist()
    assert actions[9] == actions[15] != actions[10] == actions[14]


def test_lengths_end_at_the_largest_int32():
    timestep = TimeStep(
        observation=jnp.zeros((3, 1)),
        action=jnp.zeros((3, 1), jnp.int32),
        reward=jnp.ones((3, 1)),
        discount=jnp.ones((3, 1)),
        start=jnp.zeros((3, 1), bool),
        last=jnp.array([[False], [False], [True]]),
    )
    running = EpisodeStatistics(jnp.zeros(1), jnp.array([2**31 - 3], jnp.int32))
    running, sums = episode_metrics(running, timestep)
    assert running.length.tolist() == [2**31 - 1]
    assert float(sums["length_sum"]) == 2**31 and sums["steps"] == 3
    assert sums["reward_sum"] == sums["return_sum"] == 3
