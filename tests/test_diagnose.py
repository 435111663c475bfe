"""Diagnostics against values that are known."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.results import tmaze_50
from benchmarks.staleness import staleness
from memrl_jax.diagnose import delta_q
from memrl_jax.types import Network, TimeStep


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
    agent = config.agent.replace(
        window=20, burn_in=20, batch_size=8, capacity=20_000, learning_starts=2_000, updates=2
    )
    config = config.replace(
        agent=agent, encoder=(16,), memory_args={"features": 16}, total_steps=8_000
    )
    off = jax.jit(lambda key: staleness(config, key))(jax.random.key(0))
    mean = {label: float(x.mean()) for label, x in off.items()}
    assert mean["stored + burn-in"] < mean["zero"]
    assert mean["zero + burn-in"] < mean["zero"]
    assert mean["stored"] < mean["zero"]
    assert mean["zero"] > 1e-3
