"""Planning with a known model of the environment."""

from typing import Any

import jax
import jax.numpy as jnp

from memrl_jax import checks
from memrl_jax.spaces import masked
from memrl_jax.types import Array


def value_iteration(
    transition: Array,
    reward: Array,
    discount: Array | float,
    legal: Any = (),
    tolerance: float = 1e-6,
) -> tuple[Array, Array]:
    """Return the values under the best policy, of states [S] and of actions [S, A].

    `transition` [S, A, S] are probabilities of the next state; where they add up to less than 1,
    the episode terminates with the rest. `reward` [S, A] is the expected reward; `legal` [S, A]
    says which actions are allowed, () all. Stops when no value changes by more than `tolerance`
    times max(1, the largest absolute value): errors are up to discount / (1 - discount) times that.
    The value of an illegal action is that of taking it once. Raises ValueError for shapes that do
    not fit and a discount outside [0, 1].
    Sutton & Barto (2018), equation 4.10.
    """
    states, actions = jnp.shape(reward)
    if jnp.shape(transition) != (states, actions, states):
        raise ValueError(
            f"transition: {jnp.shape(transition)} are not [S, A, S] of reward's "
            f"[S, A] = {jnp.shape(reward)}"
        )
    checks.within("discount", discount, 0, 1)

    def values(v: Array) -> Array:
        return reward + discount * jnp.einsum("sat,t->sa", transition, v)

    def unsettled(pair: tuple[Array, Array]) -> Array:
        v, change = pair
        return change > tolerance * jnp.maximum(1.0, jnp.max(jnp.abs(v)))

    def sweep(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        v = jnp.max(masked(values(pair[0]), legal), axis=-1)
        return v, jnp.max(jnp.abs(v - pair[0]))

    v, _ = jax.lax.while_loop(
        unsettled, sweep, (jnp.zeros(states, jnp.float32), jnp.float32(jnp.inf))
    )
    return v, values(v)
