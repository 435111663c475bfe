"""Random Markov decision processes of few states."""

from typing import NamedTuple

import jax.numpy as jnp

from memrl_jax import checks, draws
from memrl_jax.environments.base import Arrival, episodic
from memrl_jax.environments.trials import trials
from memrl_jax.spaces import Discrete
from memrl_jax.types import Array, Environment, Key


class MDP(NamedTuple):
    """A Markov decision process of S states and A actions."""

    reward: Array  # [S, A] float32, on average; what is earned is normal, with deviation 1
    chance: Array  # [S, A, S] float32, of every next state


class Place(NamedTuple):
    """Where an episode is; both are int32 scalars."""

    state: Array
    time: Array  # steps taken


def tabular_mdp(
    states: int = 10, actions: int = 5, horizon: int = 10, episodes: int = 10
) -> Environment:
    """Make Markov decision processes of which every trial draws another one.

    A trial has `episodes` episodes of `horizon` steps, all from state 0. Mean rewards are drawn
    from a normal distribution of mean and deviation 1, the chances of the next state from a flat
    Dirichlet distribution; a step earns its mean reward plus normal noise of deviation 1. The
    observation is the state. Raises ValueError for a number below 1.
    Duan et al. (2016), section 3.2.
    """
    given = {"states": states, "actions": actions, "horizon": horizon, "episodes": episodes}
    for name, number in given.items():
        checks.positive(name, number)

    def drawn(key: Key) -> MDP:
        return random_mdp(key, states, actions)

    def of_mdp(mdp: MDP) -> Environment:
        def first(key: Key) -> tuple[Place, Array]:
            return Place(jnp.int32(0), jnp.int32(0)), jnp.int32(0)

        def step(key: Key, place: Place, action: Array) -> Arrival:
            noise_key, state_key = draws.split(key)
            noise = draws.normal(noise_key, (), jnp.float32)
            reward = mdp.reward[place.state, action] + noise
            state = categorical(state_key, mdp.chance[place.state, action])
            time = place.time + 1
            return Arrival(Place(state, time), state, reward, False, time >= horizon)

        return episodic(first, step, Discrete(states), Discrete(actions), horizon)

    return trials(of_mdp, drawn, episodes)


def random_mdp(key: Key, states: int, actions: int) -> MDP:
    """Draw an `MDP`: rewards [S, A] and chances [S, A, S]."""
    reward_key, chance_key = draws.split(key)
    reward = 1 + draws.normal(reward_key, (states, actions), jnp.float32)
    # Exponential numbers over their sum are distributed as a flat Dirichlet distribution says.
    u = draws.uniform(chance_key, (states, actions, states), jnp.float32)
    weight = -jnp.log1p(-u)
    return MDP(reward, weight / jnp.sum(weight, axis=-1, keepdims=True))


def categorical(key: Key, chance: Array) -> Array:
    """Draw one of n categories, int32 [], with the chances [n]; takes a single random number."""
    u = draws.uniform(key, (), jnp.float32)
    return jnp.sum(u >= jnp.cumsum(chance)[:-1], dtype=jnp.int32)
