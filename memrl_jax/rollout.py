"""Rollouts: the loop in which a policy acts in an environment."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import draws, tree
from memrl_jax.environments.base import EpisodeStatistics, batch, episode_metrics
from memrl_jax.types import Agent, Array, Environment, Key, Segment, State, TimeStep

Policy = Callable[[Key, State, TimeStep], tuple[State, Array, Any]]


class Actor(NamedTuple):
    """What a rollout continues from: B environments and the policy's memory in each."""

    environment: State  # [B, ...]
    timestep: TimeStep  # [B, ...]
    memory: State  # [B, ...]


def initial(env: Environment, memory: State, key: Key, batch: int) -> Actor:
    """Begin B = `batch` episodes of a batched `env`, with the policy's initial memory [B, ...]."""
    state, timestep = env.reset(draws.split(key, batch))
    return Actor(state, timestep, memory)


def rollout(
    env: Environment, policy: Policy, actor: Actor, key: Key, length: int
) -> tuple[Actor, Segment]:
    """Take T = `length` actions in B environments; return the next actor and the segment.

    The segment has [T + 1, B] timesteps and [T, B] actions.
    """
    act_key, env_key = draws.split(key)
    batch = actor.timestep.reward.shape[0]
    # Split all keys at once: splitting inside the loop costs as much as a small network.
    keys = draws.split(act_key, length), draws.split(env_key, (length, batch))

    def step(actor: Actor, keys: tuple[Key, Key]) -> tuple[Actor, Any]:
        act_key, env_keys = keys
        memory, action, extras = policy(act_key, actor.memory, actor.timestep)
        environment, timestep = env.step(env_keys, actor.environment, action)
        return Actor(environment, timestep, memory), (actor.timestep, action, extras)

    end, (timestep, action, extras) = jax.lax.scan(step, actor, keys)
    return end, Segment(actor.memory, tree.append(timestep, end.timestep), action, extras)


class Evaluation(NamedTuple):
    """One episode in each of E environments."""

    total: Array  # [E] float32 return
    length: Array  # [E] int32 steps
    done: Array  # [E] bool: the episode ended within the horizon, or its return is not finite


def evaluate(env: Environment, policy: Policy, memory: State, key: Key, count: int) -> Evaluation:
    """Play one episode in each of E = `count` new copies of a batched `env`.

    Episodes have at most `env.horizon` steps; `memory` [E, ...] is the policy's initial one.
    """
    reset_key, key = draws.split(key)
    actor = initial(env, memory, reset_key, count)
    zero = EpisodeStatistics.zeros(count)
    outcome = Evaluation(*zero, jnp.zeros(count, bool))

    def unfinished(carry: Any) -> Array:
        t, _, _, outcome = carry
        return (t < env.horizon) & ~jnp.all(outcome.done)

    def step(carry: Any) -> Any:
        t, actor, running, outcome = carry
        actor, segment = rollout(env, policy, actor, draws.fold_in(key, t), 1)
        arrived = jax.tree.map(lambda x: x[1:], segment.timestep)
        running, _ = episode_metrics(running, arrived)
        now = Evaluation(*running, actor.timestep.last | ~jnp.isfinite(running.total))
        return t + 1, actor, running, tree.where(outcome.done, outcome, now)

    carry = (jnp.int32(0), actor, zero, outcome)
    return jax.lax.while_loop(unfinished, step, carry)[3]


class Episode(NamedTuple):
    """One recorded episode and what the agent computed at each step; or one step of it."""

    observation: Any  # [T, ...] what the agent saw when it chose each action
    action: Any  # [T, ...] a pytree like the action space
    reward: Any  # [T] float32, earned by that action
    record: dict[str, Any]  # name: [T, ...] what `Agent.inspect` returns, e.g. `q` [T, A]


def player(env: Environment, agent: Agent) -> Callable[[State, Key], Episode]:
    """Return `play(agent_state, key)`, which records one episode of a single environment.

    The agent acts as in `evaluate`: the same key gives the same episode. The number of steps T, at
    most `env.horizon`, varies, so `play` returns NumPy arrays and cannot be jitted.
    """
    one = batch(env)

    @jax.jit
    def act(state: State, actor: Actor, key: Key) -> tuple[Actor, Episode]:
        def policy(key: Key, memory: State, timestep: TimeStep) -> tuple[State, Array, Any]:
            record = agent.inspect(state, memory, timestep)
            memory, action, _ = agent.act(key, state, memory, timestep, explore=False)
            return memory, action, record

        actor, segment = rollout(one, policy, actor, key, 1)
        before = segment.timestep.observation, segment.action, segment.extras
        observation, action, record = tree.at(before, (0, 0))
        return actor, Episode(observation, action, segment.timestep.reward[1, 0], record)

    def play(state: State, key: Key) -> Episode:
        reset_key, key = draws.split(key)
        actor = initial(one, agent.initial_memory(1), reset_key, 1)
        steps: list[Episode] = []
        while not steps or (len(steps) < env.horizon and not actor.timestep.last[0]):
            actor, step = act(state, actor, draws.fold_in(key, len(steps)))
            steps.append(jax.device_get(step))
        return jax.tree.map(lambda *xs: np.stack(xs), *steps)

    return play
