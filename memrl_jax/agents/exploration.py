"""Epsilon-greedy exploration, with one epsilon per environment and legal actions only."""

from typing import Any

import jax
import jax.numpy as jnp

from memrl_jax import checks, draws, shards, tree
from memrl_jax.agents.optimizer import LARGE
from memrl_jax.schedules import linear
from memrl_jax.settings import Settings
from memrl_jax.spaces import Discrete, discrete, masked
from memrl_jax.types import Array, Key, Segment, Spec, TimeStep


class ExplorationConfig(Settings):
    """How often a random or a repeated action replaces the greedy one."""

    epsilon_start: float = 1.0
    """Probability of a random action at first."""
    epsilon_end: float = 0.05
    """Probability of a random action in the end."""
    epsilon_steps: float = 250_000.0
    """Environment steps over which it falls from the first to the last, linearly."""
    epsilon_spread: float = 0.0
    """Environment i of B explores with epsilon ** (1 + spread i / (B - 1)); 0 makes all alike
    (Horgan et al. 2018 use 7, with an epsilon of 0.4)."""
    persistence: float = 0.0
    """Probability of doing the last action again instead, whatever it was: random actions alone
    undo each other (Dabney et al. 2021)."""


def check(config: ExplorationConfig) -> None:
    """Raise ValueError for settings out of range."""
    for field in ("epsilon_start", "epsilon_end", "persistence"):
        checks.within(field, getattr(config, field), 0, 1)
    checks.within("epsilon_steps", config.epsilon_steps, 1, checks.INT32)
    checks.within("epsilon_spread", config.epsilon_spread, 0, LARGE)


def discrete_actions(agent: str, spec: Spec) -> int:
    """Return the number of actions; raises ValueError unless they are one `Discrete`."""
    if isinstance(spec.actions, Discrete):
        return spec.actions.n
    hint = "; environments.numbered (number_actions = True) makes one of them"
    hint = hint if discrete(spec.actions) else ""
    raise ValueError(f"agent: {agent} takes one Discrete action, not {spec.actions}{hint}")


def epsilon(config: ExplorationConfig, env_steps: Array, batch: int) -> Array:
    """Return the probability [B] of a random action after `env_steps` environment steps."""
    base = linear(config.epsilon_start, config.epsilon_end, config.epsilon_steps)(env_steps)
    place = shards.part(jnp.linspace(0, 1, batch * shards.count(), dtype=jnp.float32))
    return base ** (1 + config.epsilon_spread * place)


def told(
    config: ExplorationConfig, env_steps: Array, segment: Segment, metrics: dict[str, Array]
) -> dict[str, Array]:
    """Return metrics [] with `epsilon_sum`: over updates, of the mean over environments."""
    mean = jnp.mean(epsilon(config, env_steps, segment.timestep.reward.shape[1]))
    return metrics | {"epsilon_sum": mean * metrics["updates"]}


def epsilon_greedy(
    config: ExplorationConfig, key: Key, q: Array, env_steps: Array, timestep: TimeStep
) -> Array:
    """Choose actions [B] by their values `q` [B, A] after `env_steps` environment steps.

    With probability epsilon a random legal action replaces the best one; then, with probability
    `persistence` and unless an episode starts, the previous action does, if it is legal.
    """
    batch, actions = q.shape
    explore, choice, again = draws.uniform(key, (3, batch), jnp.float32)
    random = random_legal(choice, actions, timestep.legal)
    action = jnp.where(explore < epsilon(config, env_steps, batch), random, best(q, timestep.legal))
    persists = (again < config.persistence) & ~timestep.start & allowed(timestep)
    return jnp.where(persists, timestep.action, action)


def count_steps(env_steps: Array, segment: Segment) -> Array:
    """Add the environment steps of a segment, in all shards, to `env_steps`, int32 []."""
    # The action at a `last` timestep is no step: it begins the next episode.
    steps = jnp.sum(~segment.timestep.last[:-1], dtype=jnp.int32)
    return tree.count(env_steps, shards.total(steps))


def best(q: Array, legal: Any) -> Array:
    """Return the legal action of the highest value, int32 [...], for values [..., A]."""
    return jnp.argmax(masked(q, legal), axis=-1).astype(jnp.int32)


def value_of(q: Array, action: Array) -> Array:
    """Return the value [...] of `action` [...] among those of all actions, `q` [..., A].

    Summed over a mask: the gradient of an indexed array is a scatter, which takes longer.
    """
    return jnp.sum(q, axis=-1, where=jax.nn.one_hot(action, q.shape[-1], dtype=bool))


def break_ties(key: Key, q: Array, legal: Any) -> Array:
    """Return values [B, A] whose only maximum is one of the best legal actions, at random.

    Where nothing is known yet, all values are equal, and `best` would always take the first action.
    """
    q = masked(q, legal)
    highest = q == jnp.max(q, axis=-1, keepdims=True)
    return jnp.where(highest, draws.uniform(key, q.shape, jnp.float32), -1.0)


def random_legal(u: Array, actions: int, legal: Any) -> Array:
    """Turn `u` [B], uniform in [0, 1), into legal actions, int32 [B], all equally likely."""
    if isinstance(legal, tuple):
        return (u * actions).astype(jnp.int32)
    rank = (u * legal.sum(axis=-1)).astype(jnp.int32)
    return jnp.argmax(jnp.cumsum(legal, axis=-1) > rank[..., None], axis=-1).astype(jnp.int32)


def allowed(timestep: TimeStep) -> Array:
    """Tell whether the previous action is legal now: bool [B], or [] where all always are."""
    if isinstance(timestep.legal, tuple):
        return jnp.bool_(True)
    return jnp.take_along_axis(timestep.legal, timestep.action[..., None], axis=-1)[..., 0]
