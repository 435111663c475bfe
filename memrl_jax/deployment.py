"""Trained agents for any loop in NumPy: no JAX, no keys and no timesteps to be seen."""

import os
from typing import Any

import jax
import numpy as np

from memrl_jax import checks, tree
from memrl_jax.build import make_agent, make_environment, make_on_host
from memrl_jax.config import Config
from memrl_jax.environments import on_host
from memrl_jax.environments.declared import blamed, check_declared
from memrl_jax.environments.host import HostEnvironment
from memrl_jax.host_rollout import acting
from memrl_jax.run.saved import trained
from memrl_jax.spaces import dtype, over
from memrl_jax.types import Environment, TimeStep


class Policy:
    """A trained agent that acts greedily, step by step, as in the library's own evaluations.

    It is told what it was told in training, its last action among it, and keeps its memory, so it
    plays one episode at a time: call `reset` where another one begins. For a run on Gymnasium,
    observations and actions are in the environment's own form; else they are in that of the run's
    `Environment`, with its views and frames, as NumPy arrays.
    """

    def __init__(self, config: Config, agent_state: Any) -> None:
        """Prepare the agent of a config in a state, without a seed axis."""
        env = _environment(config)
        agent = make_agent(config, env)
        self._env, self._state, self._act = env, agent_state, jax.jit(acting(agent, explore=False))
        self._first_memory = agent.initial_memory(1)
        self.reset()

    def reset(self) -> None:
        """Begin an episode: forget the last one."""
        self._key = jax.random.key(0)
        self._memory, self._action = self._first_memory, _zeros(self._env.spec.actions)
        self._start = True

    def act(self, observation: Any, reward: float = 0.0, legal: Any = ()) -> Any:
        """Return the action for an observation [...].

        `reward` is what the last action earned; it is 0 where an episode begins. `legal` are the
        masks [n] of the actions allowed here, where the environment tells them: Gymnasium's
        `info["action_mask"]`. Raises ValueError for an observation or masks unlike the declared
        ones, and for a reward at the start.
        """
        if self._start and reward:
            raise ValueError(f"reward: {reward} where an episode begins; nothing was done yet")
        timestep = self._seen(observation, reward, legal)
        self._key, self._memory, action, _ = self._act(
            self._state, self._key, self._memory, timestep
        )
        self._action, self._start = jax.device_get(action), False
        chosen = tree.at(self._action, 0)
        return self._env.theirs(chosen) if isinstance(self._env, HostEnvironment) else chosen

    def _seen(self, observation: Any, reward: float, legal: Any) -> TimeStep:
        """Return the timestep [1, ...] that the agent acts on."""
        spec = self._env.spec
        with blamed("observation"):
            if isinstance(self._env, HostEnvironment):
                observation = self._env.ours(observation)
            else:
                observation = _cast(observation, spec.observations)
            check_declared("observation", spec.observations, observation)
        masks = jax.tree.map(lambda x: np.asarray(x, bool)[None], legal)
        if spec.legal != bool(jax.tree.leaves(masks)):
            told = "does not tell" if bool(jax.tree.leaves(masks)) else "tells"
            raise ValueError(f"legal: the environment {told} which actions are allowed")
        first = jax.tree.map(lambda x: x[None], observation)
        earned: Any = np.full(1, reward, np.float32)
        discount: Any = np.ones(1, np.float32)
        start: Any = np.full(1, self._start)
        last: Any = np.zeros(1, bool)
        return TimeStep(first, self._action, earned, discount, start, last, masks)


def deploy(run: str | os.PathLike[str] | Config, agent_state: Any = None, seed: int = 0) -> Policy:
    """Return the policy of a trained agent, for loops in NumPy.

    `run` is the folder of a run, of which one `seed` is taken as it was last saved; or a config,
    with the `agent_state` that training returned for one seed. Raises ValueError if the run has no
    such seed, the folder or its checkpoint cannot be read, or a config comes without a state.
    """
    if isinstance(run, Config):
        if agent_state is None:
            raise ValueError("agent_state: a config needs the state of its agent")
        return Policy(run, agent_state)
    if agent_state is not None:
        raise ValueError(f"agent_state: {run} is a folder, which holds its own")
    config, options, states = trained(os.fspath(run))
    checks.within("seed", checks.at_least("seed", seed, 0), 0, options.seeds - 1)
    return Policy(config, tree.at(states, seed))


def _environment(config: Config) -> Environment | HostEnvironment:
    """Return the environment of a config, which says what is seen and done; it is never stepped."""
    if not on_host(config.environment):
        return make_environment(config)
    env = make_on_host(config, 1)
    env.close()
    return env


def _zeros(space: Any) -> Any:
    return over(lambda part: np.zeros((1, *part.shape), dtype(part)), space)


def _cast(x: Any, space: Any) -> Any:
    """Return an element of a space, given as numbers of any dtype, as NumPy arrays."""
    return over(lambda part, x: np.asarray(x, dtype(part)), space, x)
