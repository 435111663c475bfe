"""One restart with a fresh network: early learning can keep a network from learning more."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax import checks, draws, tree
from memrl_jax.types import Agent, Array, Key, Segment, State, TimeStep

MOST = 500_000_000  # most updates before the restart, and to hold after it


class Restarting(NamedTuple):
    """The state of an agent that restarts."""

    agent: State
    updates: Array  # [] int32 so far; stays at its largest value
    spare: Any  # the parameters to restart with; after the restart, the old ones


def restarting(agent: Agent, after: int, hold: int = 0) -> Agent:
    """Restart an agent once, after `after` updates, with all its experience kept.

    Parameters, targets and optimizer are fresh then; the old parameters go on acting for `hold`
    updates. Updates are counted after each `learn`. Raises ValueError for numbers out of range.
    Nikishin et al. (2022), section 4.
    """
    checks.positive("restart", after, MOST)
    checks.at_least("restart_hold", hold, 0, MOST)

    def init(key: Key, timestep: TimeStep) -> Restarting:
        key, spare_key = draws.split(key)
        spare = agent.params(agent.init(spare_key, timestep))
        return Restarting(agent.init(key, timestep), jnp.int32(0), spare)

    def acting(state: Restarting) -> State:
        """Return the state to act with: for `hold` updates after the restart, the old network's."""
        since = state.updates - after
        held = (since >= 0) & (since < hold)
        params = tree.where(held, state.spare, agent.params(state.agent))
        return agent.with_params(state.agent, params)

    def act(
        key: Key, state: Restarting, memory: State, timestep: TimeStep, explore: bool = True
    ) -> Any:
        return agent.act(key, acting(state), memory, timestep, explore)

    def observe(state: Restarting, segment: Segment) -> Restarting:
        return state._replace(agent=agent.observe(state.agent, segment))

    def learn(key: Key, state: Restarting, segment: Segment) -> tuple[Restarting, Any]:
        learned, metrics = agent.learn(key, state.agent, segment)
        updates = tree.count(state.updates, metrics["updates"])
        now = (state.updates < after) & (updates >= after)
        fresh = agent.with_params(learned, state.spare)
        spare = tree.where(now, agent.params(learned), state.spare)
        return Restarting(chosen(now, fresh, learned), updates, spare), metrics

    def params(state: Restarting) -> Any:
        return agent.params(acting(state))

    def with_params(state: Restarting, params: Any) -> Restarting:
        return state._replace(agent=agent.with_params(state.agent, params))

    def inspect(state: Restarting, memory: State, timestep: TimeStep) -> dict[str, Array]:
        return agent.inspect(acting(state), memory, timestep)

    return agent._replace(
        init=init,
        act=act,
        observe=observe,
        learn=learn,
        params=params,
        with_params=with_params,
        inspect=inspect,
    )


def chosen(condition: Array, x: Any, y: Any) -> Any:
    """Choose one of two states by a condition [].

    An array that is the same object in both, e.g. a replay memory's, is passed on untouched.
    """
    return jax.tree.map(lambda x, y: x if x is y else jnp.where(condition, x, y), x, y)
