"""R2D2: recurrent replay distributed DQN, as a choice of settings."""

from flax import struct

from memrl_jax.agents.dqn import DQNConfig, dqn
from memrl_jax.types import Agent, Network, ReplayMemory


class R2D2Config(DQNConfig):
    """Settings of DQN as published for R2D2; rollouts should be as long as the burn-in."""

    replay: str = struct.field(pytree_node=False, default="prioritized")
    batch_size: int = struct.field(pytree_node=False, default=64)
    window: int = struct.field(pytree_node=False, default=80)
    burn_in: int = struct.field(pytree_node=False, default=40)
    stored_state: bool = struct.field(pytree_node=False, default=True)
    priority_exponent: float = 0.9
    importance_start: float = 0.6
    importance_end: float = 0.6
    learning_rate: float = 1e-4
    adam_epsilon: float = 1e-3
    discount: float = 0.997
    n_step: int = struct.field(pytree_node=False, default=5)
    dueling: bool = struct.field(pytree_node=False, default=True)
    rescaling: float | None = 1e-3
    target_period: int = struct.field(pytree_node=False, default=2_500)
    epsilon_start: float = 0.4
    epsilon_end: float = 0.4
    epsilon_spread: float = 7.0


def r2d2(config: R2D2Config, network: Network, replay: ReplayMemory) -> Agent:
    """Double, dueling DQN with n-step targets on rescaled values, from prioritized sequences.

    The memory starts from the stored state and burns in. Kapturowski et al. (2019), section 2.3.
    """
    return dqn(config, network, replay)
