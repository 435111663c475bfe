"""Actor-critics of other libraries, with the settings of ours."""

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.peers import SB3
from benchmarks.timing import Program
from memrl_jax.config import Config
from memrl_jax.environments.host import GYMNASIUM
from memrl_jax.settings import named

SB3_CONTRIB = "sb3-contrib"


def recurrent_ppo(config: Config, threads: int) -> Program:
    """Prepare sb3-contrib's recurrent PPO, which has an LSTM where ours has what it is given."""
    from sb3_contrib import RecurrentPPO
    from stable_baselines3.common.env_util import make_vec_env

    given = named(config)
    per_rollout = config.environments * config.rollout_length
    widths, units = [*given["head"]], given["memory_args"]["features"]
    model = RecurrentPPO(
        "MlpLstmPolicy",
        make_vec_env(config.environment, n_envs=config.environments),
        **_ppo_settings(config),
        policy_kwargs={
            "lstm_hidden_size": units,
            "net_arch": {"pi": widths, "vf": widths},
            "shared_lstm": True,
            "enable_critic_lstm": False,
        },
        device="cpu",
    )
    return _torch(SB3_CONTRIB, model, per_rollout, threads)


def _ppo_settings(config: Config) -> dict[str, Any]:
    """Return the settings of PPO by Stable-Baselines3's names."""
    given = named(config)
    per_rollout = config.environments * config.rollout_length
    return {
        "learning_rate": given["learning_rate"],
        "n_steps": config.rollout_length,
        "batch_size": per_rollout // given["minibatches"],
        "n_epochs": given["epochs"],
        "gamma": given["discount"],
        "gae_lambda": given["gae_lambda"],
        "clip_range": given["clip"],
        "ent_coef": given["entropy_bonus"],
        "vf_coef": given["value_weight"],
        "max_grad_norm": given["max_gradient_norm"],
    }


def ppo(config: Config, threads: int) -> Program:
    """Prepare Stable-Baselines3's PPO, without a memory, with networks of ReLUs as ours."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    given = named(config)
    per_rollout = config.environments * config.rollout_length
    model = PPO(
        "MlpPolicy",
        make_vec_env(config.environment.removeprefix(GYMNASIUM), n_envs=config.environments),
        **_ppo_settings(config),
        policy_kwargs={"net_arch": [*given["encoder"]], "activation_fn": torch.nn.ReLU},
        device="cpu",
    )
    return _torch(SB3, model, per_rollout, threads)


def soft_actor_critic(config: Config, threads: int) -> Program:
    """Prepare Stable-Baselines3's soft actor-critic, without a memory."""
    from stable_baselines3 import SAC
    from stable_baselines3.common.env_util import make_vec_env

    given = named(config)
    model = SAC(
        "MlpPolicy",
        make_vec_env(config.environment, n_envs=config.environments),
        learning_rate=given["learning_rate"],
        buffer_size=given["capacity"],
        learning_starts=0,
        batch_size=given["batch_size"],
        tau=given["target_rate"],
        gamma=given["discount"],
        train_freq=config.rollout_length,
        gradient_steps=given["updates"],
        policy_kwargs={"net_arch": [*given["encoder"], *given["head"]]},
        device="cpu",
    )
    per_rollout = config.environments * config.rollout_length
    return _torch(SB3, model, per_rollout, threads, given["capacity"])


def _torch(name: str, model: Any, per_rollout: int, threads: int, capacity: int = 0) -> Program:
    import torch

    def advance(iterations: int) -> None:
        torch.set_num_threads(threads)
        if iterations:
            model.learn(iterations * per_rollout, reset_num_timesteps=False)

    steps: Callable[[], int] = partial(getattr, model, "num_timesteps")
    variant = f"{threads} thread{'s' if threads > 1 else ''}"
    return Program(name, capacity, 1, None, advance, steps, variant)
