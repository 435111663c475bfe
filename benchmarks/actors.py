"""Actor-critics of other libraries, with the settings of ours.

purejaxrl is not a package: the variable MEMRL_PUREJAXRL names a checkout of it. Its `ppo_rnn.py`
runs as it stands; what today's libraries lack of what it was written for is put in its place here:
brax and navix, which its wrappers import and PPO does not use, environments of gymnax 0, whose
steps give five values, and flax's GRU as it was when it took its width from its state.
"""

import importlib
import os
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
from flax import linen as nn

from benchmarks.timing import Program
from memrl_jax.config import Config
from memrl_jax.settings import named

PUREJAXRL, SB3_CONTRIB, SB3 = "purejaxrl", "sb3-contrib", "stable-baselines3"
CHECKOUT = "MEMRL_PUREJAXRL"
UNITS = 128  # in every layer of purejaxrl's recurrent network
BLOCK = 10  # rollouts that purejaxrl trains for in one call


def has_purejaxrl() -> bool:
    return bool(os.environ.get(CHECKOUT))


def purejaxrl(config: Config) -> Program:
    """Prepare purejaxrl's recurrent PPO, one seed: calls of BLOCK rollouts, each from a new start.

    Its networks are as wide as it has them: 128 units before, in and after the GRU.
    """
    given = named(config)
    block = BLOCK * config.environments * config.rollout_length
    settings = {
        "LR": given["learning_rate"],
        "NUM_ENVS": config.environments,
        "NUM_STEPS": config.rollout_length,
        "TOTAL_TIMESTEPS": block,
        "UPDATE_EPOCHS": given["epochs"],
        "NUM_MINIBATCHES": given["minibatches"],
        "GAMMA": given["discount"],
        "GAE_LAMBDA": given["gae_lambda"],
        "CLIP_EPS": given["clip"],
        "ENT_COEF": given["entropy_bonus"],
        "VF_COEF": given["value_weight"],
        "MAX_GRAD_NORM": given["max_gradient_norm"],
        "ENV_NAME": config.environment,
        "ANNEAL_LR": False,
    }
    with patch("gymnax.make", _old), patch("flax.linen.GRUCell", _OldGRU()):
        train = _module("ppo_rnn").make_train(settings)
        compiled = jax.jit(train).lower(jax.random.key(0)).compile()
    keys = iter(jax.random.split(jax.random.key(0), 100_000))
    done = 0

    def advance(iterations: int) -> None:
        nonlocal done
        for _ in range(iterations):
            jax.block_until_ready(compiled(next(keys)))
            done += block

    return Program(PUREJAXRL, 0, 1, None, advance, lambda: done)


def _module(name: str) -> ModuleType:
    """Import a file of purejaxrl's, with stand-ins for what it imports and does not use."""
    folder = os.path.join(os.environ[CHECKOUT], "purejaxrl")
    absent = ("brax", "brax.envs", "brax.envs.wrappers", "brax.envs.wrappers.training", "navix")
    stand_ins = {module: SimpleNamespace() for module in absent}
    stand_ins["brax"].envs = None
    training = stand_ins["brax.envs.wrappers.training"]
    training.EpisodeWrapper = training.AutoResetWrapper = None
    with patch.dict(sys.modules, stand_ins), patch.object(sys, "path", [folder, *sys.path]):
        return importlib.import_module(name)


class _OldGRU:
    """Make flax's GRU, and its first state, as they were made before."""

    gru = nn.GRUCell

    def __call__(self) -> nn.GRUCell:
        return self.gru(UNITS)

    def initialize_carry(self, key: Any, batch: tuple[int, ...], width: int) -> Any:
        return jnp.zeros((*batch, width))


def _old(name: str) -> tuple[Any, Any]:
    """Make an environment of gymnax 1 that steps to five values, as those of gymnax 0 did."""
    import gymnax.registration

    env, params = gymnax.registration.make(name)

    class Old(type(env)):  # type: ignore[misc]
        def step(self, key: Any, state: Any, action: Any, params: Any = None) -> Any:
            *before, terminated, truncated, info = super().step(key, state, action, params)
            return *before, terminated | truncated, info

    return Old(), params


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
        learning_rate=given["learning_rate"],
        n_steps=config.rollout_length,
        batch_size=per_rollout // given["minibatches"],
        n_epochs=given["epochs"],
        gamma=given["discount"],
        gae_lambda=given["gae_lambda"],
        clip_range=given["clip"],
        ent_coef=given["entropy_bonus"],
        vf_coef=given["value_weight"],
        max_grad_norm=given["max_gradient_norm"],
        policy_kwargs={
            "lstm_hidden_size": units,
            "net_arch": {"pi": widths, "vf": widths},
            "shared_lstm": True,
            "enable_critic_lstm": False,
        },
        device="cpu",
    )
    return _torch(SB3_CONTRIB, model, per_rollout, threads)


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
