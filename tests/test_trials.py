"""Trials against plain Python; bandits and MDPs against closed forms; strategies likewise."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.environments import Arrival, episodic, make, trials
from memrl_jax.environments.check import QUICKLY, recorded
from memrl_jax.environments.meta import META, random_mdp, strategies
from memrl_jax.memory import from_step
from memrl_jax.networks import encoder
from memrl_jax.settings import BodyConfig
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.testing import check_environment

LIMIT, EPISODES, STEPS = 3, 4, 300
compiled = partial(jax.jit, compiler_options=QUICKLY)


def walk(number: Any) -> Any:
    """Make the environment of a task, its number: action 1 ends an episode, time cuts it off.

    Where the time is odd, action 1 is not legal.
    """
    seen = Continuous((2,), jnp.dtype(jnp.float32), 0, 1000)

    def look(time: Any) -> Any:
        return jnp.stack([number, time]).astype(jnp.float32)

    def first(key: Any) -> Any:
        return jnp.int32(0), look(jnp.int32(0))

    def step(key: Any, time: Any, action: Any) -> Arrival:
        time = time + 1
        return Arrival(time, look(time), number * action + 1, action == 1, time >= LIMIT)

    def legal(time: Any) -> Any:
        return jnp.stack([jnp.bool_(True), time % 2 == 0])

    return episodic(first, step, seen, Discrete(2), LIMIT, legal=legal)


def any_number(key: Any) -> Any:
    return jax.random.randint(key, (), 1, 1000)


@cache
def walked() -> Any:
    """Play trials of `walk` at random: timesteps [T + 1] and actions [T]."""
    env = trials(walk, any_number, EPISODES)
    return jax.device_get(compiled(lambda key: recorded(env, key, STEPS))(jax.random.key(0)))


def told(numbers: list[float], actions: np.ndarray) -> Any:
    """What timesteps of trials with these task numbers are: rows of a plain loop."""
    trial, time, left, last = -1, 0, 0, True
    for action in [0, *actions]:
        if last:
            trial, time, left, last = trial + 1, 0, EPISODES, False
            yield numbers[trial], 0, 0, 0, 0.0, 1.0, True, False
            continue
        time += 1
        ended = action == 1 or time == LIMIT
        left -= ended
        last = left == 0
        reward = numbers[trial] * action + 1
        time = 0 if ended and not last else time
        discount = 0.0 if last else 1.0
        yield numbers[trial], time, int(ended), action, reward, discount, False, last


def test_a_trial_is_several_episodes_of_one_task():
    timestep, actions = walked()
    number, time = timestep.observation["observation"].T
    numbers = number[timestep.start].tolist()
    assert len(set(numbers)) == len(numbers) > 20  # every trial has a task of its own
    ended, reward = timestep.observation["ended"], timestep.reward
    flags = timestep.discount, timestep.start, timestep.last
    rows = np.array(list(told(numbers, actions)), np.float32)
    seen = np.stack([number, time, ended, timestep.action, reward, *flags], 1)
    np.testing.assert_array_equal(seen, rows)
    assert ended.sum() > 3 * timestep.last.sum() > 0


def test_what_is_legal_is_told_by_the_inner_episode():
    timestep, _ = walked()
    time = timestep.observation["observation"][:, 1]
    np.testing.assert_array_equal(timestep.legal, np.stack([time >= 0, time % 2 == 0], 1))


def test_memories_are_kept_through_inner_ends_and_reset_between_trials():
    """A memory that counts its steps counts those of the trial."""

    def step(params: Any, count: Any, x: Any) -> Any:
        return count + 1, count + 1

    memory = from_step(lambda key, x: (), lambda: jnp.int32(0), step)
    timestep, _ = walked()
    _, count = memory.unroll((), memory.initial_state(), timestep.reward[:, None], timestep.start)
    begins = np.flatnonzero(timestep.start)
    due = np.arange(STEPS + 1) - np.repeat(begins, np.diff([*begins, STEPS + 1])) + 1
    np.testing.assert_array_equal(count, due)
    assert count[timestep.observation["ended"] == 1].max() > 2 * LIMIT


def test_the_network_is_shown_ends_actions_and_rewards_within_a_trial():
    env = trials(walk, any_number, EPISODES)
    body = BodyConfig(encoder=(), previous_action=True, previous_reward=True)
    timestep, _ = walked()
    shown, _ = encoder(body, env.spec).init_with_output(jax.random.key(0), timestep)
    goes_on = ~timestep.start[:, None]
    ended = np.eye(2)[timestep.observation["ended"]]
    action = goes_on * np.eye(2)[timestep.action]
    reward = goes_on * timestep.reward[:, None]
    given = [ended, timestep.observation["observation"], action, reward]
    np.testing.assert_array_equal(shown, np.concatenate(given, axis=1))


@pytest.mark.parametrize("name", META)
def test_what_agents_rely_on_holds(name):
    small = {"max_steps_in_episode": 6} if name.endswith("trials") else {}
    check_environment(name, steps=70, **small)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("BernoulliBandit", {"arms": 0}, "arms: 0 is below 1"),
        ("BernoulliBandit", {"pulls": 1.5}, "environment_args: pulls=1.5 is not"),
        ("BernoulliBandit", {"pull": 3}, "environment_args: pull=3 is unknown; did you mean"),
        ("TabularMDP", {"states": -1}, "states: -1 is below 1"),
        ("TabularMDP", {"horizon": 2**20, "episodes": 2**20}, "horizon: 1099511627776 is above"),
        ("MetaMaze-trials", {"episodes": 0}, "episodes: 0 is below 1"),
        ("PointRobot-trials", {"goal_radios": 0.1}, "PointRobot-misc option: .*goal_radius"),
    ],
)
def test_wrong_options_are_refused_in_one_line(name, options, message):
    with pytest.raises(ValueError, match=rf"^{message}[^\n]*$"):
        make(name, options)


# Bandits.


def payouts(arms: int, pulls: int, choose: Any, tasks: int = 20_000) -> np.ndarray:
    """Return what trials pay in which `choose(key, t)` chooses the arm."""
    env = make("BernoulliBandit", {"arms": arms, "pulls": pulls})

    def trial(key: Any) -> Any:
        reset_key, key = jax.random.split(key)

        def step(state: Any, x: Any) -> Any:
            act_key, env_key = jax.random.split(x[1])
            state, timestep = env.step(env_key, state, choose(act_key, x[0]))
            return state, timestep.reward

        xs = jnp.arange(pulls), jax.random.split(key, pulls)
        return jax.lax.scan(step, env.reset(reset_key)[0], xs)[1].sum()

    return np.asarray(compiled(jax.vmap(trial))(jax.random.split(jax.random.key(1), tasks)))


def test_a_random_policy_is_paid_for_half_of_the_pulls():
    paid = payouts(5, 10, lambda key, t: jax.random.randint(key, (), 0, 5))
    assert abs(paid.mean() - 5.0) < 4 * paid.std() / np.sqrt(len(paid))


def test_an_arm_keeps_its_chance_and_arms_have_their_own():
    """Of one arm any number of n pulls pays as often; n pulls of n arms are n fair coins."""
    same, each = payouts(4, 4, lambda key, t: 2), payouts(4, 4, lambda key, t: t)
    for paid, chance in [(same, np.full(5, 1 / 5)), (each, np.array([1, 4, 6, 4, 1]) / 16)]:
        due = len(paid) * chance
        seen = np.bincount(paid.astype(int), minlength=5)
        assert (abs(seen - due) < 4 * np.sqrt(due * (1 - chance))).all()


# Strategies for bandits.


def sure_reward(won: int, lost: int, left: int, discount: float = 1.0) -> float:
    """Return the Gittins index by bisection on a plain recursion."""

    def gain(won: int, lost: int, left: int, sure: float, first: bool = False) -> float:
        if not left:
            return 0.0
        chance = (won + 1) / (won + lost + 2)
        win, loss = (gain(won + x, lost + 1 - x, left - 1, sure) for x in (1, 0))
        pulled = chance - sure + discount * (chance * win + (1 - chance) * loss)
        return pulled if first else max(0.0, pulled)

    low, high = 0.0, 1.0
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (middle, high) if gain(won, lost, left, middle, True) > 0 else (low, middle)
    return low


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_gittins_indices_are_those_of_a_plain_recursion(discount):
    index = strategies.gittins_indices(7, discount)
    defined = np.argwhere(~np.isnan(index))
    assert len(defined) == sum((8 - left) * (9 - left) // 2 for left in range(1, 8))
    for left, won, lost in defined[::3]:
        due = sure_reward(won, lost, left, discount)
        assert index[left, won, lost] == pytest.approx(due, abs=1e-4)


def test_gittins_indices_have_the_published_values():
    np.testing.assert_allclose(strategies.gittins_indices(2)[2, 0, 0], 5 / 9, atol=1e-4)
    endless = strategies.gittins_indices(100, discount=0.9)[80]
    # Gittins, Glazebrook & Weber (2011), table 8.4: for a discount of 0.9.
    published = [[0.7029, 0.5001], [0.8001, 0.6346], [0.8452, 0.7072], [0.8723, 0.7539]]
    np.testing.assert_allclose(endless[:4, :2], published, atol=2e-4)


def best_payout(state: tuple[int, int, int, int], left: int) -> float:
    """Return the most that can be expected of two arms, (won, lost, won, lost)."""
    if not left:
        return 0.0

    def after(place: int) -> float:
        more = tuple(n + (i == place) for i, n in enumerate(state))
        return best_payout(more, left - 1)  # type: ignore[arg-type]

    chances = [(state[i] + 1) / (state[i] + state[i + 1] + 2) for i in (0, 2)]
    return max(p * (1 + after(2 * i)) + (1 - p) * after(2 * i + 1) for i, p in enumerate(chances))


def test_gittins_indices_are_close_to_the_best_of_two_arms():
    paid = strategies.bandit_returns(strategies.gittins(6), 2, 6, 100_000)
    error = paid.std() / np.sqrt(len(paid))
    best = best_payout((0, 0, 0, 0), 6)
    assert best - 0.02 - 3 * error < paid.mean() < best + 3 * error
    poor = strategies.bandit_returns(strategies.random_arm, 2, 6, 100_000)
    assert abs(poor.mean() - 3) < 4 * poor.std() / np.sqrt(len(poor))


# Mean payouts of 1,000 tasks each: Duan et al. (2016), table 1.
@pytest.mark.parametrize(
    "arms, pulls, name, published",
    [
        (5, 10, "random", 5.0),
        (5, 10, "Gittins", 6.6),
        (5, 10, "Thompson", 5.7),
        (5, 10, "greedy", 6.6),
        (10, 10, "Gittins", 6.6),
        (5, 100, "random", 49.9),
        (5, 100, "Gittins", 78.3),
        (5, 100, "Thompson", 74.7),
    ],
)
def test_strategies_are_paid_what_was_published(arms, pulls, name, published):
    strategy = strategies.BANDIT_STRATEGIES[name](pulls)
    paid = strategies.bandit_returns(strategy, arms, pulls, 4_000)
    error = paid.std() * np.sqrt(1 / 4_000 + 1 / 1_000)
    assert abs(paid.mean() - published) < 3 * error + 0.05  # published to one decimal


def test_ucb1_pulls_every_arm_once_and_then_the_one_with_the_highest_bound():
    won, lost = np.array([[2, 1, 0], [2, 1, 1]]), np.array([[1, 0, 0], [1, 0, 3]])
    scores = strategies.ucb1(None, won, lost, 5)
    assert scores[0].argmax() == 2 and scores[0, 2] == np.inf
    due = np.array([2 / 3, 1, 1 / 4]) + np.sqrt(2 * np.log(8) / np.array([3, 1, 4]))
    np.testing.assert_allclose(scores[1], due)


# Tabular MDPs.


def test_tabular_mdps_are_drawn_as_published():
    keys = jax.random.split(jax.random.key(2), 4_000)
    reward, chance = compiled(jax.vmap(lambda key: random_mdp(key, 3, 2)))(keys)
    np.testing.assert_allclose(chance.sum(-1), 1, rtol=1e-5)
    assert abs(reward.mean() - 1) < 4 / np.sqrt(reward.size) and abs(reward.std() - 1) < 0.02
    flat = np.asarray(chance).reshape(-1, 3)  # each is Beta(1, 2), any two are correlated -1/2
    np.testing.assert_allclose(flat.mean(0), 1 / 3, atol=0.006)
    np.testing.assert_allclose(np.cov(flat.T)[0], [1 / 18, -1 / 36, -1 / 36], rtol=0.05)
    assert np.mean(flat[:, 0] < 0.2) == pytest.approx(1 - 0.8**2, abs=0.01)


def test_tabular_mdps_move_and_pay_by_their_tables():
    states, actions, horizon, steps = 3, 2, 5, 12_000
    options = {"states": states, "actions": actions, "horizon": horizon, "episodes": 3_000}
    env = make("TabularMDP", options)
    key = jax.random.key(3)
    timestep, done = jax.device_get(compiled(lambda key: recorded(env, key, steps))(key))
    mdp = env.reset(jax.random.split(key)[0])[0].state.task
    state, ended = timestep.observation["observation"], timestep.observation["ended"]
    np.testing.assert_array_equal(ended, (np.arange(steps + 1) % horizon == 0) & ~timestep.start)
    assert (state[ended == 1] == 0).all() and timestep.start.sum() == 1
    moves = ended[1:] == 0  # where an episode ends, the next one's first state is seen
    for s, a in np.ndindex(states, actions):
        here = (state[:-1] == s) & (done == a)
        noise = timestep.reward[1:][here] - mdp.reward[s, a]
        assert abs(noise.mean()) < 4 / np.sqrt(here.sum()) and abs(noise.std() - 1) < 0.1
        seen = np.bincount(state[1:][here & moves], minlength=states)
        due = seen.sum() * np.asarray(mdp.chance[s, a])
        assert ((seen - due) ** 2 / due).sum() < 16  # of 2 degrees of freedom


def test_planners_earn_what_is_published_or_more():
    """Duan et al. (2016), table 2: 100.1 at random, 150.2 with a bonus (BEB)."""
    mean = {
        name: strategies.mdp_returns(planner, 1_000).mean()
        for name, planner in strategies.MDP_PLANNERS.items()
    }
    assert mean["random"] == pytest.approx(100, abs=2)
    assert mean["BEB"] == pytest.approx(150.2, rel=0.02)
    assert mean["random"] + 25 < mean["PSRL"] < mean["greedy"] < mean["BEB"]
    assert mean["BEB"] < mean["knows everything"] - 25


def test_what_psrl_believes_becomes_the_truth():
    rng, shape = np.random.default_rng(0), (20, 3, 2)
    true = strategies.Tables(rng.normal(1, 1, shape), rng.dirichlet(np.ones(3), shape))
    often = 1e9
    seen = strategies.Experience(often * true.chance, often * true.reward)
    found = strategies.posterior_plan(rng, true, seen, 4)
    np.testing.assert_array_equal(found, strategies.known_plan(rng, true, seen, 4))


def test_best_actions_are_found_by_trying_all():
    rng = np.random.default_rng(0)
    mdp = strategies.Tables(rng.normal(size=(1, 2, 2)), rng.dirichlet(np.ones(2), (1, 2, 2)))
    policy = strategies.best_actions(mdp, 3)

    def value(policy: np.ndarray) -> float:
        v = np.zeros(2)
        for choice in policy[::-1]:
            rows = np.arange(2), choice
            v = mdp.reward[0][rows] + mdp.chance[0][rows] @ v
        return v[0]

    every = (np.reshape(bits, (3, 2)) for bits in np.ndindex(*[2] * 6))
    assert value(policy[:, 0]) == pytest.approx(max(map(value, every)))


# gymnax's, with one goal a trial.


@pytest.mark.parametrize("name", ["MetaMaze-trials", "PointRobot-trials"])
def test_the_goal_stays_through_a_trial(name):
    env = make(name, {"episodes": 3, "max_steps_in_episode": 4})

    def goals(key: Any) -> Any:
        def step(state: Any, key: Any) -> Any:
            state, after = env.step(key, state, timestep.action)
            return state, (state.state.episode.state.goal, after.start, after.observation)

        reset_key, key = jax.random.split(key)
        state, timestep = env.reset(reset_key)
        return jax.lax.scan(step, state, jax.random.split(key, 64))[1]

    goal, start, observation = compiled(goals)(jax.random.key(4))
    trial, ended = np.cumsum(start), np.asarray(observation["ended"])
    for n in range(trial.max()):
        assert len(np.unique(goal[trial == n], axis=0)) == 1
    assert len(np.unique(goal, axis=0)) > 2 and ended.sum() >= 3 * trial.max()


@pytest.mark.parametrize("name", ["BernoulliBandit", "TabularMDP"])
def test_no_key_is_used_twice(name):
    env = make(name, {})
    with jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        jax.jit(lambda key: recorded(env, key, 3)).trace(jax.random.key(0))
