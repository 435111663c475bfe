"""Returns of one sequence; batch with vmap.

Time is in the names: `r_t`, `discount_t`, `v_t` [T] belong to the timestep that follows the
action at t - 1, so element i of the result is the return of action i. `discount_t` is gamma times
the timestep's discount. `cut_t` (bool) marks timesteps beyond which a return must not look: it
bootstraps from `v_t` there, as it should at a time limit.
"""

import jax
import jax.numpy as jnp

from memrl_jax.types import Array


def lambda_returns(
    r_t: Array, discount_t: Array, v_t: Array, lambda_t: Array | float = 1.0
) -> Array:
    """Lambda-returns [T], G_i = r + discount ((1 - lambda) v + lambda G_{i+1}), of inputs [T].

    The last one bootstraps from `v_t[-1]`. To cut returns at a timestep, set `lambda_t = 0` there.
    Sutton & Barto (2018), equation 12.20.
    """
    lambda_t = jnp.broadcast_to(jnp.asarray(lambda_t, v_t.dtype), v_t.shape)

    def step(g: Array, x: tuple[Array, ...]) -> tuple[Array, Array]:
        r, discount, v, lam = x
        # Beyond a cut is another episode, whose return may be NaN: 0 * NaN is NaN.
        g = r + discount * jnp.where(lam == 0, v, (1 - lam) * v + lam * g)
        return g, g

    return jax.lax.scan(step, v_t[-1], (r_t, discount_t, v_t, lambda_t), reverse=True)[1]


def advantages(r_t: Array, discount_t: Array, v: Array, lambda_t: Array | float = 1.0) -> Array:
    """Generalized advantages [T] of T actions, from values `v` [T + 1] and other inputs [T].

    `v[i]` is the value before action i and `v[i + 1]` after it. At a time limit set `lambda_t = 0`:
    the advantage bootstraps from the value there and looks no further; at a termination
    `discount_t = 0`. Schulman et al. (2016), equation 16, as lambda-returns minus values.
    """
    return lambda_returns(r_t, discount_t, v[1:], lambda_t) - v[:-1]


def n_step_returns(
    r_t: Array, discount_t: Array, v_t: Array, n: int, cut_t: Array | None = None
) -> Array:
    """n-step returns [T] of inputs [T], shorter where a cut or the end of the sequence comes first.

    Sutton & Barto (2018), equation 7.1. Raises ValueError when `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"n: {n} is below 1")
    end = jnp.arange(v_t.shape[0]) == v_t.shape[0] - 1
    cut = end if cut_t is None else end | cut_t

    def one_more(_: int, g: Array) -> Array:
        # Put one more reward in front of every return.
        return jnp.where(cut, v_t, jnp.roll(r_t + discount_t * g, -1))

    return r_t + discount_t * jax.lax.fori_loop(0, n - 1, one_more, v_t, unroll=8)


def rescale(x: Array, epsilon: Array | float) -> Array:
    """Squash values [...]: h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x.

    Pohlen et al. (2018), section 3.2; written without the difference, which rounds small x away.
    """
    return x / (jnp.sqrt(jnp.abs(x) + 1) + 1) + epsilon * x


def unscale(x: Array, epsilon: Array | float) -> Array:
    """Return the values [...] that `rescale` maps to `x` [...].

    Pohlen et al. (2018), proposition A.2, solved for sqrt(|y| + 1) - 1. The published form loses
    three digits in float32 at epsilon = 1e-3, more at a smaller epsilon, and all at epsilon = 0.
    """
    root = jnp.sqrt(1 + 4 * epsilon * (jnp.abs(x) + 1 + epsilon))
    shifted = 2 * x / (root + 1 + 2 * epsilon)
    return shifted * (2 + jnp.abs(shifted))
