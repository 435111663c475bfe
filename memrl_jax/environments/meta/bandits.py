"""Bernoulli bandits, whose arms pay with chances of their own."""

from typing import Any

import jax.numpy as jnp

from memrl_jax import checks, draws
from memrl_jax.environments.base import Arrival, episodic
from memrl_jax.environments.trials import trials
from memrl_jax.spaces import Discrete
from memrl_jax.types import Array, Environment, Key


def bernoulli_bandit(arms: int = 5, pulls: int = 10) -> Environment:
    """Make bandits of which every trial of `pulls` pulls draws another one.

    An arm pays 1 with its chance, which is uniform in [0, 1], and else 0. Every pull is an inner
    episode of one step, so observations say no more than that a pull was made; which arm it was and
    whether it paid are the previous action and reward. Raises ValueError unless there are arms and
    pulls.
    Duan et al. (2016), section 3.1.
    """
    checks.positive("arms", arms)
    checks.positive("pulls", pulls)

    def chances(key: Key) -> Array:
        return draws.uniform(key, (arms,), jnp.float32)

    def of_chances(chance: Array) -> Environment:
        def first(key: Key) -> tuple[tuple[()], Array]:
            return (), jnp.int32(0)

        def step(key: Key, state: Any, arm: Array) -> Arrival:
            paid = draws.uniform(key, (), jnp.float32) < chance[arm]
            return Arrival((), jnp.int32(0), paid, terminated=True, truncated=False)

        return episodic(first, step, Discrete(1), Discrete(arms), horizon=1)

    return trials(of_chances, chances, pulls)
