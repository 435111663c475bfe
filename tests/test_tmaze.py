"""The T-Maze against a slow simulation of its definition, and against gymnax's own step."""

import itertools
import subprocess
import sys
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.environments.tmaze import DOWN, LEFT, RIGHT, UP, EnvParams, TMaze

MOVES = {LEFT: (-1, 0), RIGHT: (1, 0), UP: (0, 1), DOWN: (0, -1)}
STEPS = 3000  # the same everywhere, so that `walk` compiles once for each form
FORMS = pytest.mark.parametrize("active", [False, True], ids=["passive", "active"])


def simulate(corridor, active, limit, goal, actions):
    """Walk one episode on a map of cells; rows of observation, reward, terminated, truncated.

    Positions count from the oracle, o cells to the left of the start, as in Ni et al. (2023).
    """
    o = int(active)
    junction = (o + corridor, 0)
    arms = {1: (junction[0], 1), -1: (junction[0], -1)}
    cells = {(x, 0) for x in range(junction[0] + 1)} | set(arms.values())
    here, rows = (o, 0), []
    for t, action in enumerate(actions, start=1):
        there = (here[0] + MOVES[action][0], here[1] + MOVES[action][1])
        here = there if there in cells else here
        terminated, truncated = here in arms.values(), t >= limit
        if terminated or truncated:
            reward = 1.0 if here == arms[goal] else 0.0
        else:
            reward = -1.0 / corridor if here[0] < t - o else 0.0
        observation = (goal if here == (0, 0) else 0, here[0] == junction[0])
        rows.append((observation, reward, terminated, truncated))
        if terminated or truncated:
            break
    return rows


@partial(jax.jit, static_argnames="env")
def walk(env, params, key, actions):
    """Take `actions` [T] with automatic resets: what reset gives, and what the steps give [T]."""

    def step(state, inputs):
        key, action = inputs
        observation, state, *rest = env.step(key, state, action, params)
        return state, (observation, state, *rest)

    reset_key, step_key = jax.random.split(key)
    observation, state = env.reset(reset_key, params)
    inputs = (jax.random.split(step_key, len(actions)), actions)
    return (observation, state), jax.lax.scan(step, state, inputs)[1]


def key_of(goal):
    """Find a key from which reset draws `goal`."""
    return next(k for k in map(jax.random.key, range(64)) if TMaze().reset(k)[1].goal == goal)


def random_actions(seed):
    """Mostly to the right, so that both ends of an episode are seen."""
    actions = np.random.default_rng(seed).choice(4, STEPS, p=[0.15, 0.55, 0.15, 0.15])
    return actions.astype(np.int32)


@FORMS
@pytest.mark.parametrize("corridor", [1, 2, 5, 8])
@pytest.mark.parametrize("slack", [1, 2])
def test_follows_the_definition(corridor, active, slack):
    limit = slack * (corridor + 1 + 2 * active)
    params = EnvParams(corridor, limit)
    actions = random_actions(corridor)
    (_, first), out = walk(TMaze(active=active), params, jax.random.key(corridor), actions)
    _, states, rewards, terminated, truncated, info = jax.tree.map(np.asarray, out)
    goals = np.concatenate([[first.goal], states.goal])
    begin, ends = 0, set()
    while begin < len(actions):
        rows = simulate(corridor, active, limit, goals[begin], actions[begin:].tolist())
        steps = slice(begin, begin + len(rows))
        observation, reward, death, limited = map(np.array, zip(*rows, strict=True))
        np.testing.assert_array_equal(info["final_observation"][steps], observation)
        np.testing.assert_array_equal(rewards[steps], reward.astype(np.float32))
        np.testing.assert_array_equal(terminated[steps], death)
        np.testing.assert_array_equal(truncated[steps], limited)
        begin += len(rows)
        ends.add((bool(death[-1]), bool(limited[-1])))
    assert {(False, True), (True, True)} <= ends  # episodes of both kinds were compared


@FORMS
@pytest.mark.parametrize("corridor", [1, 8, 30])
@pytest.mark.parametrize("goal", [-1, 1])
def test_remembering_the_cue_returns_exactly_one(corridor, active, goal):
    env, params = TMaze(active=active), TMaze(corridor, active).default_params
    key = key_of(goal)
    observation, state = env.reset(key, params)
    assert observation.tolist() == [0 if active else goal, 0]
    cue, total = observation[0], 0.0
    for action in [LEFT, RIGHT] * active + [RIGHT] * corridor:
        observation, state, reward, terminated, truncated, _ = env.step(key, state, action, params)
        assert not terminated and not truncated
        cue, total = cue + observation[0], total + reward
    assert observation.tolist() == [0, 1]
    action = UP if cue > 0 else DOWN
    *_, reward, terminated, truncated, info = env.step(key, state, action, params)
    assert (total + reward, terminated, truncated) == (1.0, True, False)
    assert info["discount"] == 0.0


@FORMS
def test_no_memoryless_policy_returns_more_than_half(active):
    env = TMaze(3, active)
    params = env.default_params
    starts = jax.vmap(env.reset, (0, None))(jnp.stack([key_of(-1), key_of(1)]), params)

    def episode_return(policy, start):
        def step(carry, _):
            observation, state, alive = carry
            seen = jnp.where(observation[1] == 1, 3, 1 + observation[0].astype(jnp.int32))
            observation, state, reward, terminated, _ = env.step_env(
                jax.random.key(0), state, policy[seen], params
            )
            return (observation, state, alive & ~terminated), alive * reward

        carry = (*start, jnp.bool_(True))
        return jax.lax.scan(step, carry, length=12)[1].sum()

    policies = jnp.array(list(itertools.product(range(4), repeat=4)), jnp.int32)  # [256, 4]
    both = jax.vmap(jax.vmap(episode_return, (None, 0)), (0, None))(policies, starts)
    assert params.max_steps_in_episode <= 12
    means = both.mean(axis=1)
    assert means.max() == 0.5
    forward = (policies[:, :3] == RIGHT).all(axis=1) & (policies[:, 3] >= UP)
    assert forward.sum() == 2 and (means[forward] == 0.5).all()


@FORMS
@pytest.mark.parametrize("corridor", [1, 7])
def test_standing_still_is_truncated_and_costs_one_in_the_horizon_of_ni(corridor, active):
    limit = corridor + 1 + 2 * active
    params, actions = EnvParams(corridor, limit), np.full(STEPS, UP, np.int32)
    _, out = walk(TMaze(active=active), params, jax.random.key(1), actions)
    _, _, reward, terminated, truncated, info = out
    assert not terminated.any() and (info["discount"] == 1).all()
    assert truncated[:limit].tolist() == [False] * (limit - 1) + [True]
    np.testing.assert_allclose(reward[:limit].sum(), -1.0, rtol=1e-6)


def test_time_limit_defaults_to_twice_the_shortest_episode():
    assert TMaze(8).default_params.max_steps_in_episode == 18
    assert TMaze(8, active=True).default_params.max_steps_in_episode == 22


def test_bonus_is_a_parameter():
    env, params = TMaze(1), EnvParams(corridor=1, max_steps_in_episode=4, bonus=2.5)
    _, state = env.reset(jax.random.key(0), params)
    _, state, *_ = env.step(jax.random.key(1), state, RIGHT, params)
    reward = env.step(jax.random.key(2), state, UP if state.goal == 1 else DOWN, params)[2]
    assert reward == 2.5


def test_both_goals_are_equally_likely_at_first_and_later():
    env, n = TMaze(1), 4096
    keys = jax.random.split(jax.random.key(0), (2, n))
    _, state = jax.vmap(env.reset)(keys[0])
    junction = replace(state, x=jnp.ones_like(state.x))
    later = jax.vmap(env.step, (0, 0, None))(keys[1], junction, UP)[1]
    assert (later.time == 0).all()
    for goals in (state.goal, later.goal, state.goal * later.goal):
        assert set(goals.tolist()) == {-1, 1}
        assert abs(goals.mean()) < 4 / np.sqrt(n)  # four standard deviations


@FORMS
def test_corridors_can_be_mapped_over(active):
    env, params = TMaze(active=active), [TMaze(n, active).default_params for n in (1, 3, 6)]
    stacked = jax.tree.map(lambda *leaves: jnp.array(leaves), *params)
    key, actions = jax.random.key(3), random_actions(3)
    together = jax.vmap(walk, (None, 0, None, None))(env, stacked, key, actions)
    alone = [walk(env, p, key, actions) for p in params]
    alone = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    jax.tree.map(np.testing.assert_array_equal, together, alone)


@FORMS
def test_reset_and_step_agree_in_every_dtype(active):
    env = TMaze(4, active)
    observation, state = jax.eval_shape(env.reset, jax.random.key(0))
    after = jax.eval_shape(env.step, jax.random.key(0), state, jnp.uint8(1))
    assert (observation, state) == after[:2]
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(((observation, state), after)))
    assert (observation.shape, observation.dtype, after[2].dtype) == ((2,), np.float32, np.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {np.dtype(np.int32)}


def test_equal_mazes_share_one_compilation():
    traced = []

    @partial(jax.jit, static_argnums=0)
    def reset(env, key):
        traced.append(env)
        return env.reset(key)

    for env in (TMaze(9), TMaze(9), TMaze(9, active=True)):
        reset(env, jax.random.key(0))
    assert traced == [TMaze(9), TMaze(9, active=True)]


@pytest.mark.parametrize("corridor", [0, -3, 2.5])
def test_corridor_is_at_least_one_cell(corridor):
    with pytest.raises(ValueError, match=rf"^corridor: {corridor} .*$"):
        TMaze(corridor)


def in_gymnax(maze):
    """Give the maze's own pieces to gymnax's base class."""
    from gymnax.environments import environment

    class Wrapped(environment.Environment):
        def reset_env(self, key, params):
            return maze.reset_env(key, params)

        def step_env(self, key, state, action, params):
            return maze.step_env(key, state, action, params)

    return Wrapped()


@FORMS
def test_public_step_is_that_of_gymnax(active):
    maze, params = TMaze(active=active), TMaze(2, active).default_params
    key, actions = jax.random.key(4), random_actions(4)
    ours = walk(maze, params, key, actions)
    theirs = walk(in_gymnax(maze), params, key, actions)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert ours[1][3].any() and ours[1][4].any()


def test_wrappers_of_gymnax_accept_it():
    from gymnax.wrappers.purerl import LogWrapper

    env = LogWrapper(TMaze(2))
    _, (_, _, _, terminated, _, info) = walk(
        env, None, jax.random.key(5), jnp.array([RIGHT, RIGHT, UP])
    )
    assert terminated[-1] and info["returned_episode_lengths"][-1] == 3
    assert info["returned_episode_returns"][-1] in (0, 1)


@FORMS
def test_spaces_contain_what_is_seen(active):
    env, params = TMaze(active=active), TMaze(2, active).default_params
    observed, actions = env.observation_space(params), env.action_space(params)
    (first, _), (observations, *_) = walk(env, params, jax.random.key(6), random_actions(6))
    assert observed.shape == first.shape and observed.dtype == first.dtype
    assert jax.vmap(observed.contains)(observations).all()
    assert not observed.contains(np.array([0, -1], np.float32))
    assert actions.n == env.num_actions == len(MOVES)
    low, high = observations.min(axis=0), observations.max(axis=0)
    np.testing.assert_array_equal((low, high), (observed.low, observed.high))


def test_importing_it_imports_neither_gymnax_nor_matplotlib():
    program = """
import sys
import memrl_jax.environments.tmaze
print(sorted({"gymnax", "matplotlib", "pandas"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("[]", "", 0)
