"""The training loop: act, observe, learn."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax import draws, shards, tree
from memrl_jax.environments.base import EpisodeStatistics, batch, episode_metrics
from memrl_jax.rollout import Actor, Evaluation, evaluate, initial, rollout
from memrl_jax.transfer import begin
from memrl_jax.types import Agent, Array, Environment, Key, Segment, State, TimeStep

Metrics = dict[str, Array]


class TrainState(NamedTuple):
    """The whole state of training: once saved and loaded, training continues exactly."""

    key: Key
    actor: Actor
    running: EpisodeStatistics  # returns and lengths so far of the current episodes
    agent: State


class Trainer(NamedTuple):
    """Pure functions of training; `step` is `collect`, then `learn`."""

    # key, parameters by part to begin with or None -> warmed up: ready to learn
    init: Callable[..., tuple[TrainState, Metrics]]
    collect: Callable[[TrainState], tuple[TrainState, Segment, Metrics]]  # one rollout
    learn: Callable[[TrainState, Segment], tuple[TrainState, Metrics]]  # learns from that rollout
    step: Callable[[TrainState], tuple[TrainState, Metrics]]
    evaluate: Callable[[Key, State, int], Evaluation]  # key, agent state, episode count; greedy
    params: Callable[[State], Any]  # agent state -> its parameters by part


def received(
    agent: Agent, train: TrainState, actor: Actor, segment: Segment
) -> tuple[TrainState, Metrics]:
    """Take in a rollout, [T + 1, B] timesteps, that ended with `actor`: the agent observes it.

    Metrics [] are those of its episodes.
    """
    arrived = jax.tree.map(lambda x: x[1:], segment.timestep)
    running, metrics = episode_metrics(train.running, arrived)
    state = agent.observe(train.agent, segment)
    return TrainState(train.key, actor, running, state), metrics


def learned(agent: Agent, train: TrainState, segment: Segment) -> tuple[TrainState, Metrics]:
    """Let the agent learn from a rollout, [T + 1, B] timesteps, that it has observed."""
    key, learn_key = draws.split(train.key)
    state, metrics = agent.learn(learn_key, train.agent, segment)
    return train._replace(key=key, agent=state), metrics


def make_trainer(env: Environment, agent: Agent, environments: int, length: int) -> Trainer:
    """Return the trainer of `agent` on `environments` copies of `env`.

    Rollouts have `length` actions. Metrics [] are sums and counts over one step, so they can be
    added up over steps. Those of `init` are over the whole warm-up, with losses and updates of 0.
    In shards (see `shards`), each has so many copies, and metrics of these.
    """
    env = batch(env)

    def collect(train: TrainState) -> tuple[TrainState, Segment, Metrics]:
        key, act_key = draws.split(train.key)

        def policy(key: Key, memory: State, timestep: TimeStep) -> Any:
            return agent.act(key, train.agent, memory, timestep)

        actor, segment = rollout(env, policy, train.actor, act_key, length)
        train, metrics = received(agent, train._replace(key=key), actor, segment)
        return train, segment, metrics

    learn = partial(learned, agent)

    def step(train: TrainState) -> tuple[TrainState, Metrics]:
        train, segment, metrics = collect(train)
        train, learning = learn(train, segment)
        return train, metrics | learning

    def warm(train: TrainState, _: None) -> tuple[TrainState, Metrics]:
        train, _segment, metrics = collect(train)
        return train, metrics

    def init(key: Key, taken: Mapping[str, Any] | None = None) -> tuple[TrainState, Metrics]:
        key, env_key, agent_key = draws.split(key, 3)
        # The agents of all shards begin alike, and meet with different things.
        key, env_key = shards.own(key), shards.own(env_key)
        actor = initial(env, agent.initial_memory(environments), env_key, environments)
        state = begin(agent, agent_key, actor.timestep, taken)
        train = TrainState(key, actor, EpisodeStatistics.zeros(environments), state)
        unlearned = jax.tree.map(jnp.zeros_like, jax.eval_shape(step, train)[1])
        train, metrics = jax.lax.scan(warm, train, length=agent.warmup)
        return train, unlearned | tree.total(metrics)

    def greedy(key: Key, state: State, count: int) -> Evaluation:
        def policy(key: Key, memory: State, timestep: TimeStep) -> Any:
            return agent.act(key, state, memory, timestep, explore=False)

        return evaluate(env, policy, agent.initial_memory(count), key, count)

    return Trainer(init, collect, learn, step, greedy, agent.params)
