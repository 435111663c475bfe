"""Layers that several memories share."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn

from memrl_jax.memory.monoid import Complex
from memrl_jax.types import Array


class Heads(nn.Module):
    """A linear layer that is split among heads: [..., D] to [..., heads, features / heads]."""

    features: int
    heads: int
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return the heads' parts [..., heads, features / heads] of `x` [..., D]."""
        x = nn.Dense(self.features, use_bias=self.use_bias)(x)
        return x.reshape(*x.shape[:-1], self.heads, self.features // self.heads)


def outer(value: Array, key: Array) -> Array:
    """Return the outer product of a value and a key, [..., d] each: [..., d, d]."""
    return value[..., None] * key[..., None, :]


def lookup(matrix: Array, key: Array) -> Array:
    """Return the value [..., d] that a matrix memory [..., d, d] holds for a key [..., d]."""
    return jnp.sum(matrix * key[..., None, :], axis=-1)


class Skip(nn.Module):
    """A skip connection: elementwise scale if input and output have one size, else a linear map.

    The scale is the `D` of state space models.
    """

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return [..., features] from `x` [..., D]."""
        if x.shape[-1] != self.features:
            return nn.Dense(self.features, use_bias=False)(x)
        scale = self.param("scale", nn.initializers.normal(1.0), (self.features,))
        return jnp.broadcast_to(scale, x.shape) * x


class ToComplex(nn.Module):
    """A complex linear map of a real input: [..., D] to Complex [..., hidden].

    Its kernel holds real and imaginary parts side by side, [D, 2 hidden].
    """

    hidden: int
    kernel_init: Callable[..., Array]

    @nn.compact
    def __call__(self, x: Array, scale: Complex) -> Complex:
        """Return scale * (kernel x), [..., hidden], of `x` [..., D], with a scale [hidden].

        The scale is applied to the kernel, which is smaller than a sequence.
        """
        shape = x.shape[-1], 2 * self.hidden
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        scaled = Complex(*jnp.split(kernel, 2, axis=-1)) * Complex(*(part[None] for part in scale))
        return Complex(x @ scaled.real, x @ scaled.imag)


class RealPart(nn.Module):
    """The real part of a complex linear map: Complex [..., hidden] to [..., features].

    Its kernel holds real and imaginary parts one below the other, [2 hidden, features].
    """

    features: int
    kernel_init: Callable[..., Array]

    @nn.compact
    def __call__(self, h: Complex, times: float = 1.0) -> Array:
        """Return the real part [..., features] of `times` kernel h."""
        shape = 2 * h.real.shape[-1], self.features
        kernel = times * self.param("kernel", self.kernel_init, shape, jnp.float32)
        real, imag = jnp.split(kernel, 2)
        # Negating the kernel is cheaper than negating whole sequences.
        return h.real @ real + h.imag @ -imag


class Project(nn.Module):
    """A dense layer [T, D] -> [T, features]; rows that are not finite become NaN.

    Such rows reach neither other rows nor, through 0 * NaN, the gradients of the parameters.
    """

    features: int

    @nn.compact
    def __call__(self, xs: Array) -> Array:
        """Return [T, features] from rows [T, D]."""
        finite = all_finite(xs)
        ys = nn.Dense(self.features, name="dense")(jnp.where(finite, xs, 0))
        return jnp.where(finite, ys, jnp.nan)


def all_finite(xs: Array) -> Array:
    """Return whether the sum of squares of every row [..., D] is finite, bool [..., 1]."""
    return jnp.isfinite(jnp.sum(xs * xs, axis=-1, keepdims=True))


def newest(held: Array, episode: Array, count: int) -> Array:
    """Return the last `count` rows of `held` [M, D], zeros outside the last row's `episode` [M]."""
    last = len(held) - count
    return jnp.where(episode[last:, None] == episode[-1], held[last:], 0)
