"""Configs by name: what `memrl train PRESET` starts from."""

from memrl_jax.agents import (
    DQNConfig,
    MFECConfig,
    NECConfig,
    PPOConfig,
    PQNConfig,
    SACConfig,
    TabularConfig,
)
from memrl_jax.config import Config

_recurrent = Config(agent=DQNConfig()).replace(
    memory="gru",
    encoder=(64,),
    head=(),
    previous_action=True,
    previous_reward=True,
    batch_size=32,
    learning_rate=1e-3,
    target_period=1,
    target_rate=0.02,
    max_gradient_norm=10.0,
)


def _memory_q_network(memory: str) -> Config:
    """Return the settings of Oh et al. (2016) for one of their three memories.

    As published, except for sizes and rates that suit small tasks, ten copies of the environment,
    and Adam. The target network moves as far per timestep as theirs: 1 - (1 - 1e-3)^40 per update.
    """
    return Config(agent=DQNConfig()).replace(
        memory=memory,
        memory_args={"features": 64, "frames": 12},
        encoder=(64,),
        head=(),
        rollout_length=4,
        window=12,
        batch_size=32,
        capacity=50_000,
        learning_starts=2_000,
        learning_rate=1e-3,
        epsilon_end=0.1,
        epsilon_steps=30_000.0,
        double=False,
        loss="huber",
        target_period=1,
        target_rate=0.04,
        max_gradient_norm=20.0,
    )


presets: dict[str, Config] = {
    "dqn": Config(agent=DQNConfig(target_period=50)),
    "drqn": _recurrent.replace(
        rollout_length=4,
        window=16,
        capacity=50_000,
        learning_starts=2_000,
        epsilon_steps=30_000.0,
    ),
    # Kapturowski et al. (2019), table 2 and section 2.3, except for sizes and rates that suit small
    # tasks, and Adam's epsilon: with theirs, small networks would hardly move.
    "r2d2": _recurrent.replace(
        memory="lstm",
        rollout_length=20,
        replay="prioritized",
        window=60,
        burn_in=20,
        stored_state=True,
        capacity=100_000,
        learning_starts=5_000,
        priority_exponent=0.9,
        importance_start=0.6,
        importance_end=0.6,
        discount=0.997,
        n_step=5,
        dueling=True,
        rescaling=1e-3,
        epsilon_start=0.4,
        epsilon_end=0.4,
        epsilon_spread=7.0,
    ),
    "mqn": _memory_q_network("mqn"),
    "rmqn": _memory_q_network("rmqn"),
    "frmqn": _memory_q_network("frmqn"),
    "ppo": Config(agent=PPOConfig()).replace(environments=20, rollout_length=25),
    # Rewards are normalised; otherwise the value's gradient swamps the policy's in a shared memory.
    "recurrent-ppo": Config(agent=PPOConfig()).replace(
        environments=16,
        rollout_length=32,
        total_steps=499_712,
        memory="gru",
        encoder=(64,),
        epochs=10,
        minibatches=2,
        learning_rate=1e-3,
        discount=0.98,
        gae_lambda=0.9,
        entropy_bonus=0.001,
        normalize_rewards=True,
    ),
    # Gallici et al.'s settings for CartPole-v1, except for smaller layers, half as many minibatches
    # and a constant learning rate that suits unscaled rewards (theirs are divided by 10).
    "pqn": Config(agent=PQNConfig()).replace(
        encoder=(128,),
        head=(128,),
        environments=32,
        rollout_length=64,
        total_steps=499_712,
        minibatches=8,
        learning_rate=5e-4,
        epsilon_end=0.2,
        epsilon_steps=100_000.0,
    ),
    "mfec": Config(agent=MFECConfig()).replace(
        environments=8,
        rollout_length=8,
        total_steps=50_048,
        entries=20_000,
        epsilon_end=0.01,
        epsilon_steps=5_000.0,
    ),
    # Pritzel et al. (2017), except for sizes and rates that suit small tasks, and shorter returns.
    "nec": Config(agent=NECConfig()).replace(
        environments=8,
        rollout_length=8,
        total_steps=50_048,
        learning_starts=1_024,
        capacity=10_048,
        entries=20_000,
        key_size=16,
        n_step=30,
        updates=8,
        learning_rate=5e-4,
        epsilon_end=0.01,
        epsilon_steps=5_000.0,
    ),
    "sac": Config(agent=SACConfig()).replace(
        environment="Pendulum-v1",
        environments=8,
        total_steps=100_000,
        encoder=(64,),
        head=(64,),
    ),
    "recurrent-sac": Config(agent=SACConfig()).replace(
        environment="Pendulum-positions",
        environments=8,
        rollout_length=4,
        total_steps=102_400,
        memory="gru",
        memory_args={"features": 64},
        encoder=(64,),
        head=(64,),
        previous_action=True,
        window=16,
        batch_size=32,
        capacity=102_400,
        learning_starts=1_024,
        updates=4,
    ),
    "tabular": Config(agent=TabularConfig()).replace(
        environment="FrozenLake-misc",
        total_steps=200_000,
        epsilon_steps=100_000.0,
    ),
}
