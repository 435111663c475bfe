"""Trained agents in plain loops: they do what they do in the library's own evaluations."""

from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces

import memrl_jax
from memrl_jax import draws, parallel
from memrl_jax.build import make_agent, make_environment, make_on_host
from memrl_jax.deployment import Policy
from memrl_jax.environments import batch
from memrl_jax.host_rollout import seed_from
from memrl_jax.rollout import player
from memrl_jax.run import experiment, lanes, saved
from memrl_jax.run.program import Run
from tests.hosted import Echo, Masked
from tests.small import SMALL

EPISODES = 3


def small(environment: str, **changes: Any) -> memrl_jax.Config:
    config = memrl_jax.presets["recurrent-ppo"].replace(
        environment=environment, environments=2, rollout_length=8, minibatches=2, epochs=1
    )
    sizes = {"encoder": (8,), "memory_args": {"features": 8}, "head": (8,), "total_steps": 32}
    return config.replace(previous_action=True, previous_reward=True, **sizes).replace(**changes)


def begun(config: memrl_jax.Config) -> Any:
    """Return the state of an agent that has learned nothing."""
    env = make_on_host(config, 1)
    return jax.jit(make_agent(config, env).init)(jax.random.key(0), env.reset(0))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = str(tmp_path_factory.mktemp("runs") / "run")
    run = Run(out=out, seeds=2, evaluate_episodes=EPISODES)
    experiment.start(small("gymnasium:CartPole-v1"), run, print, lambda progress: None)
    return out


def returned(policy: Policy, env: gymnasium.Env, seed: int) -> float:
    """Play one episode as any user of Gymnasium would."""
    policy.reset()
    observation, _ = env.reset(seed=seed)
    total, reward, over = 0.0, 0.0, False
    while not over:
        action = policy.act(observation, reward)
        observation, earned, terminated, truncated, _ = env.step(action)
        reward, over = float(earned), terminated or truncated
        total += reward
    return total


def test_a_plain_loop_returns_what_the_evaluation_does(trained: str) -> None:
    played = saved.evaluate(trained, EPISODES, seed=5)
    for seed in range(2):
        policy = memrl_jax.deploy(trained, seed=seed)
        key = parallel.seed_keys(5, 2, lanes.EVALUATE)[seed]
        first = seed_from(draws.split(key)[0])  # of the copies' own seeds
        env = gymnasium.make("CartPole-v1")
        totals = [returned(policy, env, first + copy) for copy in range(EPISODES)]
        np.testing.assert_array_equal(played.total[seed], totals)


def test_an_agent_within_jax_acts_as_when_it_is_watched() -> None:
    env = make_environment(SMALL)
    agent = make_agent(SMALL, env)
    _, timestep = batch(env).reset(jax.random.split(jax.random.key(0), 1))
    state = jax.jit(agent.init)(jax.random.key(1), timestep)
    policy = memrl_jax.deploy(SMALL, state)
    for i in range(2):
        episode = player(env, agent)(state, jax.random.key(2 + i))
        rewards = [0.0, *episode.reward[:-1]]
        done = [policy.act(*now) for now in zip(episode.observation, rewards, strict=True)]
        np.testing.assert_array_equal(done, episode.action)
        policy.reset()


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=4),
        spaces.MultiDiscrete([2, 3], start=[1, 1]),
        spaces.MultiBinary(3),
        spaces.Box(-0.1, 0.1, (2,), np.float64),
        spaces.Dict({"turn": spaces.Discrete(2), "by": spaces.Box(-1, 1, (1,))}),
    ],
    ids=lambda space: type(space).__name__,
)
def test_actions_are_in_the_environments_own_form(
    space: spaces.Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> gymnasium.Env:
        return Echo(spaces.Box(-1, 1, (2,)), space)

    monkeypatch.setitem(
        gymnasium.registry, "Echo-v0", gymnasium.envs.registration.EnvSpec("Echo-v0", made)
    )
    config = small("gymnasium:Echo-v0")
    policy = memrl_jax.deploy(config, begun(config))
    assert all(space.contains(policy.act(np.ones(2))) for _ in range(3))


def test_a_policy_is_told_what_is_legal(monkeypatch: pytest.MonkeyPatch) -> None:
    made = gymnasium.envs.registration.EnvSpec("Masked-v0", Masked, kwargs={"number": 5})
    monkeypatch.setitem(gymnasium.registry, "Masked-v0", made)
    config = small("gymnasium:Masked-v0")
    policy, env = memrl_jax.deploy(config, begun(config)), gymnasium.make("Masked-v0")
    observation, info = env.reset()
    reward, over = 0.0, False
    with pytest.raises(ValueError, match=r"^legal: the environment tells"):
        policy.act(observation)
    while not over:  # a wrong action would raise
        action = policy.act(observation, reward, info["action_mask"])
        observation, reward, _, over, info = env.step(action)


def test_mistakes_are_told_in_one_line(trained: str, tmp_path: Path) -> None:
    policy = memrl_jax.deploy(trained)
    state, config = begun(small("gymnasium:CartPole-v1")), small("gymnasium:CartPole-v1")
    for wrong, message in (
        (lambda: policy.act(np.zeros(3)), r"^observation is float32\[3\], and declared as"),
        (lambda: policy.act(np.zeros(4), 1.0), "^reward: 1.0 where an episode begins"),
        (lambda: policy.act(np.zeros(4), legal=np.ones(2)), "^legal: the environment does not"),
        (lambda: memrl_jax.deploy(trained, seed=2), "^seed: 2 is not between 0 and 1"),
        (lambda: memrl_jax.deploy(trained, state), "^agent_state: .* is a folder"),
        (lambda: memrl_jax.deploy(config), "^agent_state: a config needs"),
        (lambda: memrl_jax.deploy(tmp_path), "^run: .* is not a run folder"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            wrong()
        assert "\n" not in str(error.value)
