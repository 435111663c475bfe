"""The DQNs of other libraries, with the settings of ours."""

from importlib import metadata
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.timing import Program, compiled, loop
from memrl_jax.config import Config
from memrl_jax.settings import named

REJAX, SB3 = "rejax", "stable-baselines3"
FLASHBAX, CPPRB = "flashbax", "cpprb"
MEMAX = "memax"


def installed(library: str) -> bool:
    return find_spec(library.replace("-", "_")) is not None


def version(library: str) -> str:
    if not installed(library):
        return "not installed (pip install memrl_jax[peers])"
    return metadata.version(library)


def rejax(config: Config, seeds: int) -> Program:
    """Prepare rejax, with its seeds vmapped as its documentation does.

    Its iteration is a step of all environments and an update. Its `train` is the loop over
    iterations that is timed here, with evaluations in between, which are not.
    """
    algorithm = _rejax_algorithm(config)
    init, step, keys = algorithm.init_state, algorithm.train_iteration, jax.random.key(0)
    if seeds > 1:
        init, keys = jax.vmap(init), jax.random.split(keys, seeds)
    state = jax.jit(init)(keys)
    buffer = state.replay_buffer.replace(full=jnp.bool_(True))
    if seeds > 1:
        # Counters are the same for all seeds; batched, conditions on them take both branches.
        buffer = buffer.replace(index=buffer.index[0])
        state = state.replace(global_step=state.global_step[0])
        axes = jax.tree.map(lambda _: 0, state.replace(replay_buffer=buffer))
        counters = axes.replay_buffer.replace(index=None, full=None)
        axes = axes.replace(global_step=None, replay_buffer=counters)
        step = jax.vmap(step, in_axes=(axes,), out_axes=axes)
    state = state.replace(replay_buffer=buffer)

    def steps(state: Any) -> int:
        return int(state.global_step) * seeds

    return compiled((REJAX, named(config)["capacity"], seeds), loop(step), state, steps)


def _rejax_algorithm(config: Config) -> Any:
    from gymnax.environments.classic_control.cartpole import CartPole
    from rejax import DQN

    class OldCartPole(CartPole):
        """gymnax 1 returns six values from a step; rejax unpacks the five of gymnax 0."""

        def step(self, key: Any, state: Any, action: Any, params: Any = None) -> Any:
            *before, terminated, truncated, info = super().step(key, state, action, params)
            return *before, terminated | truncated, info

    options = SimpleNamespace(**named(config))
    algorithm = DQN.create(
        env=OldCartPole(),
        num_envs=config.environments,
        batch_size=options.batch_size,
        buffer_size=options.capacity,
        fill_buffer=0,
        learning_rate=options.learning_rate,
        gamma=options.discount,
        ddqn=options.double,
        target_update_freq=options.target_period * config.environments,
        polyak=1 - options.target_rate,
        total_timesteps=config.total_steps,
        exploration_fraction=options.epsilon_steps / config.total_steps,
        agent_kwargs={"activation": "relu"},
    )
    # `create` takes no widths.
    widths = (*options.encoder, *options.head)
    return algorithm.replace(agent=algorithm.agent.clone(hidden_layer_sizes=widths))


def stable_baselines3(config: Config, threads: int) -> Program:
    """Prepare Stable-Baselines3 with gymnasium's CartPole and so many torch threads.

    Epsilon is that of most of a run, because random actions skip the network.
    """
    import torch
    from stable_baselines3 import DQN
    from stable_baselines3.common.env_util import make_vec_env

    options = SimpleNamespace(**named(config))
    per_iteration = config.environments * config.rollout_length
    model = DQN(
        "MlpPolicy",
        make_vec_env("CartPole-v1", n_envs=config.environments),
        learning_rate=options.learning_rate,
        gamma=options.discount,
        batch_size=options.batch_size,
        buffer_size=options.capacity,
        learning_starts=0,
        train_freq=config.rollout_length,
        gradient_steps=options.updates,
        target_update_interval=options.target_period * per_iteration,
        exploration_initial_eps=options.epsilon_end,
        exploration_final_eps=options.epsilon_end,
        policy_kwargs={"net_arch": [*options.encoder, *options.head]},
        device="cpu",
    )
    model.replay_buffer.full = True

    def advance(iterations: int) -> None:
        torch.set_num_threads(threads)
        model.learn(iterations * per_iteration, reset_num_timesteps=False)

    return Program(
        SB3,
        options.capacity,
        seeds=1,
        compile_seconds=None,
        advance=advance,
        steps=lambda: model.num_timesteps,
        variant=f"{threads} thread{'s' if threads > 1 else ''}",
    )
