"""purejaxrl's DQN and recurrent PPO, with the settings of ours.

purejaxrl is not a package: the variable MEMRL_PUREJAXRL names a checkout of it. Its `dqn.py` and
`ppo_rnn.py` run as they stand; what today's libraries lack of what they were written for is put in
its place here:
- brax, navix and wandb, which they import and the parts that are timed do not use;
- environments and wrappers of gymnax 0, whose steps give five values;
- `jax.tree_map`;
- flax's GRU as it was when it took its width from its state.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
from flax import linen as nn

from benchmarks.peers import installed
from benchmarks.timing import Program, begun_anew
from memrl_jax.config import Config
from memrl_jax.settings import named

PUREJAXRL = "purejaxrl"
CHECKOUT = "MEMRL_PUREJAXRL"
UNITS = 128  # in every layer of the recurrent network
ROLLOUTS = 10  # of PPO in one call
ITERATIONS = 2_000  # of DQN in one call, which begins with an empty replay memory


def available() -> bool:
    return bool(os.environ.get(CHECKOUT))


def dqn(config: Config, seeds: int) -> Program:
    """Prepare DQN; its seeds are vmapped, as its `main` does.

    Its layers are as wide as it has them, 120 and 84. It updates after every vector step.
    """
    given = named(config)
    settings = {
        "NUM_ENVS": config.environments,
        "BUFFER_SIZE": given["capacity"],
        "BUFFER_BATCH_SIZE": given["batch_size"],
        "TOTAL_TIMESTEPS": ITERATIONS * config.environments,
        "EPSILON_START": given["epsilon_start"],
        "EPSILON_FINISH": given["epsilon_end"],
        "EPSILON_ANNEAL_TIME": given["epsilon_steps"],
        "TARGET_UPDATE_INTERVAL": given["target_period"] * config.environments,
        "LR": given["learning_rate"],
        "LEARNING_STARTS": 0,
        "TRAINING_INTERVAL": config.environments,
        "GAMMA": given["discount"],
        "TAU": given["target_rate"],
        "ENV_NAME": config.environment,
    }
    with _as_it_was(), patch("gymnax.wrappers.purerl.LogWrapper", _old_log()):
        train = _module("dqn").make_train(settings | {"WANDB_MODE": "disabled"})
        case = PUREJAXRL, given["capacity"], seeds
        return begun_anew(case, train, ITERATIONS, settings["TOTAL_TIMESTEPS"])


def can_run_dqn() -> bool:
    """Its replay memory is flashbax's."""
    return available() and installed("flashbax")


def ppo(config: Config) -> Program:
    """Prepare recurrent PPO, one seed.

    Its networks are as wide as it has them: 128 units before, in and after the GRU.
    """
    given = named(config)
    steps = ROLLOUTS * config.environments * config.rollout_length
    settings = {
        "LR": given["learning_rate"],
        "NUM_ENVS": config.environments,
        "NUM_STEPS": config.rollout_length,
        "TOTAL_TIMESTEPS": steps,
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
    with _as_it_was(), patch("gymnax.make", _old), patch("flax.linen.GRUCell", _OldGRU()):
        return begun_anew(
            (PUREJAXRL, 0, 1), _module("ppo_rnn").make_train(settings), ROLLOUTS, steps
        )


def _module(name: str) -> ModuleType:
    """Import a file of purejaxrl's, with stand-ins for what it imports and does not use."""
    folder = os.path.join(os.environ[CHECKOUT], "purejaxrl")
    absent = (
        "brax",
        "brax.envs",
        "brax.envs.wrappers",
        "brax.envs.wrappers.training",
        "navix",
        "wandb",
    )
    stand_ins = {module: SimpleNamespace() for module in absent}
    stand_ins["brax"].envs = None
    training = stand_ins["brax.envs.wrappers.training"]
    training.EpisodeWrapper = training.AutoResetWrapper = None
    with patch.dict(sys.modules, stand_ins), patch.object(sys, "path", [folder, *sys.path]):
        return importlib.import_module(name)


@contextmanager
def _as_it_was() -> Iterator[None]:
    with patch.object(jax, "tree_map", jax.tree.map, create=True):
        yield


class _OldGRU:
    """Make flax's GRU, and its first state, as they were made before."""

    gru = nn.GRUCell

    def __call__(self) -> nn.GRUCell:
        return self.gru(UNITS)

    def initialize_carry(self, key: Any, batch: tuple[int, ...], width: int) -> Any:
        return jnp.zeros((*batch, width))


def _old_step(step: Callable[..., Any]) -> Callable[..., Any]:
    """Let a step of six values give the five of gymnax 0."""

    def five(*args: Any, **options: Any) -> Any:
        *before, terminated, truncated, info = step(*args, **options)
        return *before, terminated | truncated, info

    return five


def _old(name: str) -> tuple[Any, Any]:
    """Make an environment of gymnax 1 that steps as those of gymnax 0 did."""
    import gymnax.registration

    env, params = gymnax.registration.make(name)

    class Old(type(env)):  # type: ignore[misc]
        step = _old_step(type(env).step)

    return Old(), params


def _old_log() -> Any:
    from gymnax.wrappers.purerl import LogWrapper

    class Old(LogWrapper):
        step = _old_step(LogWrapper.step)

    return Old
