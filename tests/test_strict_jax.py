"""Training under the checks that JAX makes when asked to: no rank promoted, no key used twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memrl_jax
from memrl_jax.build import make, make_agent, make_environment
from memrl_jax.replay import REPLAYS
from memrl_jax.rollout import player
from memrl_jax.run import experiment
from memrl_jax.run.program import Run
from tests.small import SMALL


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        yield


def test_both_checks_can_fail():
    with pytest.raises(ValueError, match="rank_promotion"):
        jax.eval_shape(jnp.add, jnp.zeros((2, 3)), jnp.zeros(3))
    with pytest.raises(jax.errors.KeyReuseError):
        jax.jit(lambda key: jax.random.bits(key) + jax.random.bits(key)).trace(jax.random.key(0))


def config(memory, replay, **options):
    return SMALL.replace(memory=memory, memory_args={}, replay=replay, **options)


R2D2 = {"stored_state": True, "burn_in": 4, "td_lambda": 0.9, "dueling": True, "rescaling": 1e-3}
MOST = {"restart": 3, "decay_updates": 10.0, "epsilon_spread": 7.0, "persistence": 0.5}


@pytest.mark.parametrize("replay", REPLAYS)
@pytest.mark.parametrize(
    "memory, agent, environment, frames",
    [("none", MOST, "Catch-bsuite", 3), ("mingru", R2D2, "IMaze", 1)],
)
def test_training_and_evaluating(environment, frames, memory, agent, replay):
    """Both checks are made while a program is traced."""
    whole = config(memory, replay, **agent).replace(environment=environment, frames=frames)
    jax.jit(memrl_jax.make_train(whole)).trace(jax.random.key(0))
    trainer, _ = make(whole)
    train, _ = jax.eval_shape(trainer.init, jax.random.key(0))
    jax.jit(lambda key, state: trainer.evaluate(key, state, 3)).trace(
        jax.random.key(0), train.agent
    )


def test_a_run_on_disk(tmp_path):
    """Seeds are spread, padded, saved and gone on with; its keys are used once each."""
    run = Run(out=str(tmp_path / "run"), seeds=3, evaluate_episodes=2)
    small = config("none", "uniform").replace(total_steps=160)
    result = experiment.start(small, run, print, print)
    assert result.finished
    experiment.resume(run.out, print, print, {"total_steps": 240})


def test_playing():
    small = config("none", "prioritized")
    env = make_environment(small)
    agent = make_agent(small, env)
    first = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 2))[1]
    state = jax.jit(agent.init)(jax.random.key(1), first)
    episode = player(env, agent)(state, jax.random.key(2))
    assert np.isfinite(episode.record["q"]).all()
