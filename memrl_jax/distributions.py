"""Action distributions, made once from a space; their parameters are a head's output."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import checks, draws, spaces
from memrl_jax.spaces import Continuous, Discrete, masked
from memrl_jax.types import Array, Key

LOG_STD = (-20.0, 2.0)  # log standard deviations are clipped to this (Haarnoja et al. 2018, code)
NODES = 32  # quadrature nodes for the entropy of `tanh_normal`
WIDE = 2.0**31  # bounds this far apart say nothing of the actions that matter, and are ignored


class Distribution(NamedTuple):
    """A distribution of actions given float32 `parameters` [..., size]; any leading axes.

    `legal` says which actions are allowed, as in `TimeStep`: bool [..., n] for each discrete part,
    in a pytree like the action; () allows all. Illegal actions have probability 0: they are never
    drawn, their `log_prob` is -inf, and no gradient reaches their parameters.
    """

    size: int
    sample: Callable[..., Any]  # key, parameters, legal=() -> action [..., *shape]
    mode: Callable[..., Any]  # parameters, legal=() -> action [..., *shape]
    log_prob: Callable[..., Array]  # parameters, action, legal=() -> [...]
    entropy: Callable[..., Array]  # parameters, legal=() -> [...]
    # key, parameters, legal=() -> (action, log_prob [...]); reparametrised where it is continuous.
    sample_and_log_prob: Callable[..., tuple[Any, Array]]


def from_space(
    space: Any, continuous: Callable[[Continuous], Distribution] | None = None
) -> Distribution:
    """Return a distribution over an action space whose parts are independent.

    Discrete parts are `categorical`; `continuous` makes those of continuous parts, by default
    `normal`.
    """
    make = continuous or normal

    def distribution(part: Any) -> Distribution:
        return categorical(part.n) if isinstance(part, Discrete) else make(part)

    return product(spaces.over(distribution, space))


def categorical(n: int) -> Distribution:
    """Return the distribution over 0 .. n - 1 with logits [..., n]; actions are int32 [...]."""
    checks.positive("n", n)

    def log_probs(logits: Array, legal: Any) -> Array:
        return jax.nn.log_softmax(masked(logits, legal), axis=-1)

    def sample(key: Key, logits: Array, legal: Any = ()) -> Array:
        return draws.categorical(key, masked(logits, legal), axis=-1).astype(jnp.int32)

    def mode(logits: Array, legal: Any = ()) -> Array:
        return jnp.argmax(masked(logits, legal), axis=-1).astype(jnp.int32)

    def log_prob(logits: Array, action: Array, legal: Any = ()) -> Array:
        chosen = jax.nn.one_hot(action, n, dtype=jnp.bool_)
        return jnp.sum(jnp.where(chosen, log_probs(logits, legal), 0.0), axis=-1)

    def entropy(logits: Array, legal: Any = ()) -> Array:
        log_p = log_probs(logits, legal)
        # Select before multiplying: 0 * -inf is NaN.
        return -jnp.sum(jnp.exp(log_p) * jnp.where(jnp.isfinite(log_p), log_p, 0.0), axis=-1)

    return Distribution(n, sample, mode, log_prob, entropy, _then(sample, log_prob))


def product(parts: Any) -> Distribution:
    """Combine a pytree of independent distributions into one over pytrees of actions.

    The parameters [..., size] are those of the parts, concatenated in the order of the leaves.
    Log-probabilities and entropies are the sums over the parts.
    """
    structure: Any
    each, structure = jax.tree.flatten(parts, is_leaf=lambda x: isinstance(x, Distribution))
    ends = np.cumsum([part.size for part in each])[:-1]

    def split(parameters: Array, legal: Any) -> list[tuple[Distribution, Array, Any]]:
        of_parts = structure.flatten_up_to(legal) if jax.tree.leaves(legal) else [()] * len(each)
        return list(zip(each, jnp.split(parameters, ends, axis=-1), of_parts, strict=True))

    def sample(key: Key, parameters: Array, legal: Any = ()) -> Any:
        keys = draws.split(key, len(each))
        given = zip(keys, split(parameters, legal), strict=True)
        return structure.unflatten([part.sample(key, *x) for key, (part, *x) in given])

    def mode(parameters: Array, legal: Any = ()) -> Any:
        return structure.unflatten([part.mode(*x) for part, *x in split(parameters, legal)])

    def log_prob(parameters: Array, action: Any, legal: Any = ()) -> Array:
        actions = structure.flatten_up_to(action)
        given = zip(actions, split(parameters, legal), strict=True)
        return sum_of([part.log_prob(x, action, may) for action, (part, x, may) in given])

    def entropy(parameters: Array, legal: Any = ()) -> Array:
        return sum_of([part.entropy(*x) for part, *x in split(parameters, legal)])

    def sample_and_log_prob(key: Key, parameters: Array, legal: Any = ()) -> tuple[Any, Array]:
        keys = draws.split(key, len(each))
        given = zip(keys, split(parameters, legal), strict=True)
        drawn = [part.sample_and_log_prob(key, *x) for key, (part, *x) in given]
        actions, log_probs = zip(*drawn, strict=True)
        return structure.unflatten(actions), sum_of(list(log_probs))

    def sum_of(xs: list[Array]) -> Array:
        return jnp.sum(jnp.stack(xs), axis=0)

    size = sum(part.size for part in each)
    return Distribution(size, sample, mode, log_prob, entropy, sample_and_log_prob)


def normal(space: Continuous) -> Distribution:
    """Return the diagonal normal distribution over arrays [..., *shape].

    Its parameters [..., 2 prod(shape)] are the means, then the log standard deviations, clipped to
    LOG_STD. Both are in units in which the bounds are -1 and 1, or in the action's own units where
    there are no bounds, or they are about 2^31 or more apart. Samples are not clipped: pass
    `clip(space, action)` to the environment. Raises ValueError for a space of integers.
    """
    units = scale(space)

    def sample(key: Key, parameters: Array, legal: Any = ()) -> Array:
        mean, log_std = _mean_and_log_std(space, parameters)
        return units.outwards(mean + jnp.exp(log_std) * _noise(key, mean))

    def mode(parameters: Array, legal: Any = ()) -> Array:
        return units.outwards(_mean_and_log_std(space, parameters)[0])

    def log_prob(parameters: Array, action: Array, legal: Any = ()) -> Array:
        mean, log_std = _mean_and_log_std(space, parameters)
        x = _log_density((units.inwards(action) - mean) * jnp.exp(-log_std)) - log_std
        return _total(space, x) - units.log_volume

    def entropy(parameters: Array, legal: Any = ()) -> Array:
        _, log_std = _mean_and_log_std(space, parameters)
        return _total(space, log_std + 0.5 * math.log(2 * math.pi * math.e)) + units.log_volume

    size = 2 * math.prod(space.shape)
    return Distribution(size, sample, mode, log_prob, entropy, _then(sample, log_prob))


def tanh_normal(space: Continuous) -> Distribution:
    """Return the distribution of tanh(u), scaled to the bounds, for a diagonal normal u.

    Its parameters [..., 2 prod(shape)] are the means of u, then its log standard deviations,
    clipped to LOG_STD. log det = log(1 - tanh(u)^2) is computed as
    2 (log 2 - u - softplus(-2 u)), which neither over- nor underflows (Haarnoja et al. 2018,
    appendix C, has the plain form).

    float32 rounds tanh(u) to 1 beyond |u| = 9, so u cannot be recovered from such an action. To
    differentiate a density through a sample, use `sample_and_log_prob`, which knows u. `log_prob`
    replaces an action at or beyond a bound by the nearest one inside, tanh(u) = 1 - 2^-24 with
    |u| = 8.66: the result is finite there, and its gradient with respect to the action is 0. Inside
    the bounds it is as exact as u can be recovered from the action. `mode` is tanh of the mean of
    u, scaled. `entropy` is a Gauss-Hermite quadrature with NODES nodes, exact to 1e-5 for
    deviations of u up to 1, to 2e-2 up to the largest. Raises ValueError for a space of integers
    and for bounds that are infinite, or 2^31 or more apart.
    """
    units = scale(space)
    if not isinstance(units.bounded, jax.core.Tracer) and not np.all(units.bounded):
        bounds = checks.shown((space.low, space.high))
        raise ValueError(f"actions: tanh_normal needs finite bounds, which {bounds} are not")

    def outwards(u: Array) -> Array:
        return clip(space, units.outwards(jnp.tanh(u)))

    def density(u: Array, z: Array, log_std: Array) -> Array:
        return _total(space, _log_density(z) - log_std - _log_det(u)) - units.log_volume

    def sample_and_log_prob(key: Key, parameters: Array, legal: Any = ()) -> tuple[Array, Array]:
        mean, log_std = _mean_and_log_std(space, parameters)
        z = _noise(key, mean)
        u = mean + jnp.exp(log_std) * z
        return outwards(u), density(u, z, log_std)

    def sample(key: Key, parameters: Array, legal: Any = ()) -> Array:
        return sample_and_log_prob(key, parameters)[0]

    def mode(parameters: Array, legal: Any = ()) -> Array:
        return outwards(_mean_and_log_std(space, parameters)[0])

    def log_prob(parameters: Array, action: Array, legal: Any = ()) -> Array:
        mean, log_std = _mean_and_log_std(space, parameters)
        largest = 1 - float(jnp.finfo(jnp.float32).epsneg)
        u = jnp.arctanh(jnp.clip(units.inwards(action), -largest, largest))
        return density(u, (u - mean) * jnp.exp(-log_std), log_std)

    def entropy(parameters: Array, legal: Any = ()) -> Array:
        mean, log_std = _mean_and_log_std(space, parameters)
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        std, expected = jnp.exp(log_std), jnp.zeros_like(mean)
        for z, weight in zip(nodes, weights / weights.sum(), strict=True):
            expected += float(weight) * _log_det(mean + std * float(z))
        own = log_std + 0.5 * math.log(2 * math.pi * math.e)
        return _total(space, own + expected) + units.log_volume

    size = 2 * math.prod(space.shape)
    return Distribution(size, sample, mode, log_prob, entropy, sample_and_log_prob)


def clip(space: Any, action: Any) -> Any:
    """Clip the continuous parts of an action [..., *shape] to their bounds."""

    def clipped(part: Any, x: Array) -> Array:
        if isinstance(part, Discrete):
            return x
        low, high = (jnp.broadcast_to(jnp.asarray(y, x.dtype), x.shape) for y in part[2:])
        return jnp.clip(x, low, high)

    return spaces.over(clipped, space, action)


class Scale(NamedTuple):
    """Conversion between a space's own units and those in which its bounds are -1 and 1."""

    bounded: Any  # [*shape] bool
    outwards: Callable[[Array], Array]  # [..., *shape] -> [..., *shape], to the space's own units
    inwards: Callable[[Array], Array]  # [..., *shape] -> [..., *shape], its inverse
    log_volume: Array  # [] log determinant of the Jacobian of `outwards`


def scale(space: Continuous) -> Scale:
    """Return the scale of a space; raises ValueError for one of integers.

    Numbers without bounds, or with bounds about 2^31 or more apart, are left as they are.
    """
    if not jnp.issubdtype(space.dtype, jnp.floating):
        raise ValueError(f"actions: {jnp.dtype(space.dtype)} is not a floating dtype")
    array: Any = jnp if any(isinstance(x, jax.core.Tracer) for x in space[2:]) else np
    low, high = (array.broadcast_to(array.asarray(x, jnp.float32), space.shape) for x in space[2:])
    bounded = high / 2 - low / 2 < WIDE / 2  # halved first: high - low may overflow
    low, high = array.where(bounded, low, -1.0), array.where(bounded, high, 1.0)
    middle, half = (low + high) / 2, (high - low) / 2

    def like(x: Array, y: Any) -> Array:
        return jnp.broadcast_to(jnp.asarray(y), x.shape)

    def outwards(x: Array) -> Array:
        return (like(x, middle) + like(x, half) * x).astype(space.dtype)

    def inwards(x: Array) -> Array:
        return (x.astype(jnp.float32) - like(x, middle)) / like(x, half)

    return Scale(bounded, outwards, inwards, jnp.sum(jnp.log(half)))


def _then(sample: Callable[..., Any], log_prob: Callable[..., Array]) -> Callable[..., Any]:
    def sample_and_log_prob(key: Key, parameters: Array, legal: Any = ()) -> tuple[Any, Array]:
        action = sample(key, parameters, legal)
        return action, log_prob(parameters, action, legal)

    return sample_and_log_prob


def _mean_and_log_std(space: Continuous, parameters: Array) -> tuple[Array, Array]:
    """Split parameters [..., 2 prod(shape)] into mean and clipped log_std, [..., *shape] each."""
    shape = (*parameters.shape[:-1], *space.shape)
    mean, log_std = jnp.split(parameters, 2, axis=-1)
    return mean.reshape(shape), jnp.clip(log_std.reshape(shape), *LOG_STD)


def _noise(key: Key, like: Array) -> Array:
    return draws.normal(key, like.shape, like.dtype)


def _log_density(z: Array) -> Array:
    """Return the logarithm of the standard normal density, element by element."""
    return -0.5 * (z**2 + math.log(2 * math.pi))


def _log_det(u: Array) -> Array:
    """Return log(1 - tanh(u)^2), element by element."""
    return 2 * (math.log(2) - u - jax.nn.softplus(-2 * u))


def _total(space: Continuous, x: Array) -> Array:
    """Sum over the axes of one action: [..., *shape] -> [...]."""
    return jnp.sum(x, axis=tuple(range(-len(space.shape), 0)))
