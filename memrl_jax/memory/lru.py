"""Linear recurrent unit."""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from memrl_jax import draws
from memrl_jax.checks import positive, typed, within
from memrl_jax.memory.base import from_monoid
from memrl_jax.memory.layers import RealPart, Skip, ToComplex
from memrl_jax.memory.monoid import COMPLEX, Complex, Scan, constantly
from memrl_jax.types import Array, Key, NeuralMemory

variance = nn.initializers.variance_scaling


class _Cell(nn.Module):
    features: int
    hidden: int
    r_min: float
    r_max: float
    max_phase: float

    def setup(self) -> None:
        def nu(key: Key) -> Array:
            # At radii of exactly 0 and 1 the logarithms below have no finite gradient.
            u = draws.uniform(key, (self.hidden,), jnp.float32, 1e-6, 1 - 1e-6)
            squared = u * (self.r_max**2 - self.r_min**2) + self.r_min**2
            return jnp.log(-0.5 * jnp.log(squared))

        def theta(key: Key) -> Array:
            return jnp.log(self.max_phase * draws.uniform(key, (self.hidden,), jnp.float32))

        self.nu = self.param("nu", nu)
        self.theta = self.param("theta", theta)
        # Inputs of variance 1 then give states of about variance 1, however slowly they decay.
        self.gamma = self.param("gamma", lambda _: 0.5 * jnp.log1p(-jnp.exp(-2 * jnp.exp(self.nu))))
        self.b = ToComplex(self.hidden, variance(0.5, "fan_in", "normal"))
        self.c = RealPart(self.features, variance(2.0, "fan_in", "normal"))
        self.d = Skip(self.features)

    def lift(self, x: Array) -> Any:
        modulus, phase = jnp.exp(-jnp.exp(self.nu)), jnp.exp(self.theta)
        addend = self.b(x, Complex(jnp.exp(self.gamma), jnp.zeros_like(self.gamma)))
        return constantly(Complex.polar(modulus, phase), addend)

    def read(self, state: Complex, x: Array) -> Array:
        return self.c(state) + self.d(x)


@typed
def lru(
    features: int = 64,
    hidden: int | None = None,
    r_min: float = 0.0,
    r_max: float = 1.0,
    max_phase: float = 2 * math.pi,
    scan: Scan = "auto",
) -> NeuralMemory:
    """Linear recurrent unit: state two of [hidden], by default `features`; output [features].

    Eigenvalues begin uniform in area on the ring between the radii `r_min` and `r_max`, at angles
    up to `max_phase`; a unit's state shrinks by the factor of its radius at each step. The input is
    added to the output, scaled elementwise or, if of another size, by a linear map. `scan`: how
    sequences are unrolled (see `from_monoid`). Raises ValueError for radii that are not
    0 <= r_min < r_max <= 1 and for a `max_phase` outside [0, 2 pi].
    Orvieto et al. (2023), section 3 and appendix A.
    """
    within("r_max", r_max, 0, 1)
    within("max_phase", max_phase, 0, 2 * math.pi)
    if not 0 <= r_min < r_max:
        raise ValueError(f"r_min: {r_min} is not between 0 and r_max = {r_max}")
    size = positive("features", features) if hidden is None else positive("hidden", hidden)
    cell = _Cell(features, size, r_min, r_max, max_phase)
    return from_monoid(COMPLEX, cell, lambda: Complex.zeros(size), scan)
