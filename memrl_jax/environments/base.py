"""Environments made of episodes, batches of them, and statistics of their episodes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax import spaces, tree
from memrl_jax.types import Array, Environment, Key, Spec, TimeStep


class Arrival(NamedTuple):
    """What a step within an episode leads to."""

    state: Any
    observation: Any
    reward: Any  # [] one number
    terminated: Any  # [] bool: the episode ends here, in a state of value 0
    truncated: Any  # [] bool: the episode is cut off here, e.g. by a time limit


class EpisodeState(NamedTuple):
    """The state of an environment that `episodic` makes."""

    state: Any
    last: Array  # [] bool: the next step begins another episode


def episodic(
    first: Callable[..., Any],
    step: Callable[..., Arrival],
    observations: Any,
    actions: Any,
    horizon: int,
    legal: Callable[[Any], Any] | None = None,
    observe: Callable[[Any], Any] | None = None,
    restart: Callable[..., Any] | None = None,
) -> Environment:
    """Make an environment from functions that begin an episode and take a step in it.

    All are for one environment. `first`: key -> (state, observation). `step`: key, state, action ->
    `Arrival`. `legal`: state -> masks of the allowed actions, bool [n] for every `Discrete` part of
    `actions`, arranged like them, and () for every other part. `observe`: state -> observation, if
    that is costly and depends on the state alone: it is computed once a step, and `first` and
    `step` give () in its place. `restart`: key, state -> (state, observation), if the next episode
    depends on how the last one ended; without it, every episode begins with `first`. No episode is
    longer than `horizon` steps.

    Only this function sets `start`, `last` and `discount`: at its `last` timestep, a terminated
    episode has discount 0, one that is only truncated 1. The step after it ignores its action and
    begins the next episode, with action 0 in its timestep.
    """
    none = spaces.zeros(actions)

    def begin(state: Any, observation: Any) -> tuple[EpisodeState, TimeStep]:
        zero, one, true = jnp.float32(0), jnp.float32(1), jnp.bool_(True)
        return EpisodeState(state, ~true), TimeStep(observation, none, zero, one, true, ~true)

    def go_on(key: Key, state: Any, action: Any) -> tuple[EpisodeState, TimeStep]:
        action = tree.cast(action, none)
        state, observation, reward, terminated, truncated = step(key, state, action)
        reward = jnp.asarray(reward, jnp.float32)
        terminated, truncated = jnp.asarray(terminated, bool), jnp.asarray(truncated, bool)
        last, discount = terminated | truncated, 1 - terminated.astype(jnp.float32)
        timestep = TimeStep(observation, action, reward, discount, jnp.bool_(False), last)
        return EpisodeState(state, last), timestep

    def shown(episode: EpisodeState, timestep: TimeStep) -> tuple[EpisodeState, TimeStep]:
        if observe:
            timestep = timestep._replace(observation=observe(episode.state))
        if legal:
            timestep = timestep._replace(legal=legal(episode.state))
        return episode, timestep

    def reset(key: Key) -> tuple[EpisodeState, TimeStep]:
        return shown(*begin(*first(key)))

    def either(key: Key, episode: EpisodeState, action: Any) -> tuple[EpisodeState, TimeStep]:
        # Only one of the two is kept, so both may use the same key.
        again = jax.random.clone(key)
        fresh = begin(*(restart(again, episode.state) if restart else first(again)))
        return shown(*tree.where(episode.last, fresh, go_on(key, episode.state, action)))

    return Environment(reset, either, Spec(observations, actions, legal is not None), horizon)


def batch(env: Environment) -> Environment:
    """Step B environments at once: `reset` and `step` take B keys, states and actions."""
    return env._replace(reset=jax.vmap(env.reset), step=jax.vmap(env.step))


class EpisodeStatistics(NamedTuple):
    """Return and length so far of every environment's current episode."""

    total: Array  # [B] float32
    length: Array  # [B] int32

    @classmethod
    def zeros(cls, batch: int) -> "EpisodeStatistics":
        """Return the statistics of B environments before any step."""
        return cls(jnp.zeros(batch, jnp.float32), jnp.zeros(batch, jnp.int32))


def episode_metrics(
    running: EpisodeStatistics, timestep: TimeStep
) -> tuple[EpisodeStatistics, dict[str, Array]]:
    """Update returns and lengths [B] by timesteps [T, B].

    Also returns metrics []: `episodes` that ended there, `return_sum` and `length_sum` over these,
    the environment `steps` taken, and `reward_sum` over these.
    """

    def step(running: EpisodeStatistics, t: TimeStep) -> tuple[EpisodeStatistics, Any]:
        total = jnp.where(t.start, 0.0, running.total + t.reward)
        length = jnp.where(t.start, 0, tree.count(running.length))
        return EpisodeStatistics(total, length), (total, length)

    # Unrolled, because the overhead of a loop exceeds the work in it.
    running, (total, length) = jax.lax.scan(step, running, timestep, unroll=8)
    last = timestep.last
    return running, {
        "episodes": jnp.sum(last, dtype=jnp.int32),
        "return_sum": jnp.sum(total, where=last, dtype=jnp.float32),
        "length_sum": jnp.sum(length, where=last, dtype=jnp.float32),
        "steps": jnp.sum(~timestep.start, dtype=jnp.int32),
        "reward_sum": jnp.sum(timestep.reward, dtype=jnp.float32),
    }
