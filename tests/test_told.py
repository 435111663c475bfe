"""What agents tell of their learning is what was learned with."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import memrl_jax
from memrl_jax.agents import exploration, optimizer
from memrl_jax.agents.exploration import ExplorationConfig
from memrl_jax.agents.optimizer import OptimizerConfig, make_optimizer
from tests.small import SMALL, random_segment


@pytest.mark.parametrize("clip", [None, 0.5])
def test_the_rate_and_the_norm_of_a_step(clip: float | None) -> None:
    """Under a constant gradient, each number moves by Adam's rate."""
    config = OptimizerConfig(learning_rate=0.1, decay_updates=4.0, max_gradient_norm=clip)
    adam = make_optimizer(config)
    params = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(3)}
    gradient = {"a": jnp.full((2, 3), 2.0), "b": jnp.full(3, -5.0)}
    state = adam.init(params)
    for rate in (0.1, 0.075, 0.05, 0.025, 0.0, 0.0):
        told = optimizer.told(config, gradient, state)
        step, state = adam.update(gradient, state, params)
        params = optax.apply_updates(params, step)
        np.testing.assert_allclose(told["learning_rate_sum"], rate, atol=1e-7)
        np.testing.assert_allclose(step["b"], rate, atol=1e-6)
        np.testing.assert_allclose(told["gradient_norm_sum"], np.sqrt(6 * 4 + 3 * 25), rtol=1e-6)


def test_a_constant_rate_is_not_told() -> None:
    config = OptimizerConfig()
    params = {"a": jnp.ones(2)}
    told = optimizer.told(config, params, make_optimizer(config).init(params))
    assert told.keys() == {"gradient_norm_sum"}


def test_epsilon_is_the_mean_over_environments_for_every_update() -> None:
    config = ExplorationConfig(
        epsilon_start=0.5, epsilon_end=0.1, epsilon_steps=100.0, epsilon_spread=3.0
    )
    segment = random_segment(SMALL, ())
    told = exploration.told(config, jnp.int32(50), segment, {"updates": jnp.int32(3)})
    assert told["updates"] == 3  # two environments, the second with 0.3 ** 4
    np.testing.assert_allclose(told["epsilon_sum"], 3 * (0.3 + 0.3**4) / 2, rtol=1e-6)


def test_a_run_tells_with_which_epsilon_it_acted() -> None:
    config = SMALL.replace(epsilon_steps=300.0, decay_updates=50.0)
    _, metrics = jax.jit(memrl_jax.make_train(config))(jax.random.key(0))
    metrics = jax.device_get(metrics)
    done, updates = np.cumsum(metrics["steps"]), metrics["updates"]
    expected = 1 + np.clip(done / 300, 0, 1) * (0.05 - 1)
    np.testing.assert_allclose(metrics["epsilon_sum"], expected * updates, rtol=1e-5)
    before = np.cumsum(updates) - updates
    rate = 1e-3 * np.clip(1 - before / 50, 0, 1)
    np.testing.assert_allclose(metrics["learning_rate_sum"], rate * updates, atol=1e-9)
    assert np.all(metrics["gradient_norm_sum"][1:] > 0) and metrics["gradient_norm_sum"][0] == 0
