"""Rollouts in environments on the host: Python loops around one jitted step of the policy."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from memrl_jax import draws, tree
from memrl_jax.checks import INT32
from memrl_jax.environments.host import HostEnvironment
from memrl_jax.rollout import Actor, Episode, Evaluation
from memrl_jax.types import Agent, Key, Segment, State, TimeStep

# agent state, key, memory, TimeStep -> (key, memory, action, extras); the loops here call it
Act = Callable[[State, Key, State, TimeStep], tuple[Key, State, Any, Any]]


def acting(agent: Agent, explore: bool) -> Act:
    """Return the pure function of one step of an agent in B environments, [B, ...]; jit it."""

    def act(state: State, key: Key, memory: State, timestep: TimeStep) -> Any:
        key, act_key = draws.split(key)
        return key, *agent.act(act_key, state, memory, timestep, explore=explore)

    return act


def seed_from(key: Key) -> int:
    """Draw the seed of an environment."""
    return int(draws.randint(key, (), 0, INT32))


def rollout(
    env: HostEnvironment, act: Act, state: State, actor: Actor, key: Key, length: int
) -> tuple[Key, Actor, Segment]:
    """Take T = `length` actions in B environments; return a key, the next actor and the segment.

    The segment has [T + 1, B] timesteps and [T, B] actions, in NumPy; its `memory` is () for that
    before it is the actor's.
    """
    timestep, memory, done = jax.device_get(actor.timestep), actor.memory, []
    for _ in range(length):
        key, memory, action, extras = act(state, key, memory, timestep)
        action, extras = jax.device_get((action, extras))
        done.append((timestep, action, extras))
        timestep = env.step(action)
    timesteps, actions, extras = zip(*done, strict=True)
    segment = Segment((), stacked([*timesteps, timestep]), stacked(actions), stacked(extras))
    return key, Actor((), timestep, memory), segment


def stacked(xs: Any) -> Any:
    """Stack trees of NumPy arrays [...] as one of arrays [T, ...]."""
    return jax.tree.map(lambda *xs: np.stack(xs), *xs)


def evaluate(env: HostEnvironment, act: Act, state: State, memory: State, key: Key) -> Evaluation:
    """Play one episode in each of the E copies, of at most `env.horizon` steps; [E], in NumPy.

    `memory` [E, ...] is the policy's initial one.
    """
    reset_key, key = draws.split(key)
    timestep = env.reset(seed_from(reset_key))
    done = np.zeros(len(timestep.last), bool)
    total, length = np.zeros(len(done), np.float32), np.zeros(len(done), np.int32)
    for _ in range(env.horizon):
        key, memory, action, _ = act(state, key, memory, timestep)
        timestep = env.step(jax.device_get(action))
        total = np.where(done, total, total + timestep.reward)
        length += ~done
        done |= timestep.last | ~np.isfinite(total)
        if done.all():
            break
    outcome: Any = (total, length, done)
    return Evaluation(*outcome)


def player(env: HostEnvironment, agent: Agent) -> Callable[[State, Key], Episode]:
    """Return `play(agent_state, key)`, which records one episode in an environment of one copy.

    See `rollout.player`; the number of steps T is at most `env.horizon`.
    """
    greedy = acting(agent, explore=False)

    @jax.jit
    def act(state: State, key: Key, memory: State, timestep: TimeStep) -> Any:
        record = agent.inspect(state, memory, timestep)
        key, memory, action, _ = greedy(state, key, memory, timestep)
        return key, memory, action, record

    def play(state: State, key: Key) -> Episode:
        reset_key, key = draws.split(key)
        timestep, memory = env.reset(seed_from(reset_key)), agent.initial_memory(1)
        steps: list[Episode] = []
        while not steps or (len(steps) < env.horizon and not timestep.last[0]):
            seen = timestep.observation
            key, memory, action, record = act(state, key, memory, timestep)
            action, record = jax.device_get((action, record))
            timestep = env.step(action)
            steps.append(Episode(*tree.at((seen, action, timestep.reward, record), 0)))
        return stacked(steps)

    return play
