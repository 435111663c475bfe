"""What goes wrong in memories: diagnostics of trained and of training agents."""

from typing import Any

import jax.numpy as jnp

from memrl_jax.types import Array, Network, State, TimeStep


def delta_q(
    network: Network,
    params: Any,
    timestep: TimeStep,
    memory: State,
    truth: State,
    burn_in: int = 0,
) -> Array:
    """Return how far Q from a replayed memory is from Q from the true one, [L - burn_in, N].

    Both are unrolled over the same `timestep` [L, N], whose `start` must tell the truth:
    from `memory` [N, ...], as replay gives it, and from `truth` [N, ...], what these `params` have
    there when they see the episode from its start. After `burn_in` timesteps the distance between
    the action values is taken, over the largest true value that follows.
    Kapturowski et al. (2019), section 3.1.
    """
    _, q = network.unroll(params, memory, timestep)
    _, q_true = network.unroll(params, truth, timestep)
    q, q_true = q[burn_in:], q_true[burn_in:]
    return jnp.linalg.norm(q - q_true, axis=-1) / jnp.max(jnp.abs(q_true), axis=(0, -1))
