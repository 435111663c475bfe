"""Simplified structured state space layer."""

import math
from functools import cache, partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from memrl_jax import draws
from memrl_jax.checks import above, divides, positive, typed
from memrl_jax.memory.base import from_monoid
from memrl_jax.memory.layers import RealPart, Skip, ToComplex
from memrl_jax.memory.monoid import COMPLEX, Complex, Scan, constantly
from memrl_jax.types import Array, Key, NeuralMemory


@cache  # linen runs a module's setup each time it is applied
def _hippo(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues [size] and eigenvectors [2 size, size] of HiPPO-LegS's normal part.

    Its eigenvalues are conjugate pairs, of which only those above the real axis are returned.
    Smith et al. (2023), appendix B.1.1.
    """
    root = np.sqrt(np.arange(2 * size) + 0.5)
    skew = np.tril(np.outer(root, root), -1)
    # A skew-symmetric matrix times -i is Hermitian, for which eigh is exact and ordered.
    frequencies, vectors = np.linalg.eigh(-1j * (skew.T - skew))
    return -0.5 + 1j * frequencies[size:], vectors[:, size:]


class _Cell(nn.Module):
    features: int
    hidden: int
    blocks: int
    step_min: float
    step_max: float

    def setup(self) -> None:
        eigenvalues, vectors = _hippo(self.hidden // self.blocks)
        eigenvalues = np.tile(eigenvalues, self.blocks)
        self.real = self.param("real", lambda _: jnp.asarray(eigenvalues.real, jnp.float32))
        self.imag = self.param("imag", lambda _: jnp.asarray(eigenvalues.imag, jnp.float32))
        low, high = math.log(self.step_min), math.log(self.step_max)
        self.log_step = self.param(
            "log_step", lambda key: draws.uniform(key, (self.hidden,), jnp.float32, low, high)
        )
        self.b = ToComplex(self.hidden, partial(_into, vectors, self.blocks))
        self.c = RealPart(self.features, partial(_out, vectors, self.blocks))
        self.d = Skip(self.features)

    def lift(self, x: Array) -> Any:
        step = jnp.exp(self.log_step)
        modulus, phase = jnp.exp(step * self.real), step * self.imag
        decay = Complex.polar(modulus, phase)
        # (decay - 1) / eigenvalue, the integral of the decay over one step.
        squared = self.real**2 + self.imag**2
        inverse = Complex(self.real / squared, -self.imag / squared)
        hold = Complex(decay.real - 1, decay.imag) * inverse
        return constantly(decay, self.b(x, hold))

    def read(self, state: Complex, x: Array) -> Array:
        # Twice the real part: the other halves of the conjugate pairs are not computed.
        return self.c(state, times=2.0) + self.d(x)


def _into(vectors: np.ndarray, blocks: int, key: Key, shape: Any, dtype: Any) -> Array:
    """Draw B as the paper does, in the basis of the eigenvectors: [D, 2 hidden]."""
    full = len(vectors)
    drawn = nn.initializers.lecun_normal()(key, (shape[0], blocks * full), dtype)
    blocked = drawn.reshape(shape[0], blocks, full)
    parts = [blocked @ jnp.asarray(v, dtype) for v in (vectors.real, -vectors.imag)]
    return jnp.concatenate([part.reshape(shape[0], -1) for part in parts], axis=-1)


def _out(vectors: np.ndarray, blocks: int, key: Key, shape: Any, dtype: Any) -> Array:
    """Draw C as the paper does, in the basis of the eigenvectors: [2 hidden, features]."""
    full = len(vectors)
    drawn = nn.initializers.lecun_normal()(key, (blocks * full, shape[1]), dtype)
    blocked = drawn.reshape(blocks, full, shape[1])
    parts = [jnp.asarray(v.T, dtype) @ blocked for v in (vectors.real, vectors.imag)]
    return jnp.concatenate([part.reshape(-1, shape[1]) for part in parts])


@typed
def s5(
    features: int = 64,
    hidden: int | None = None,
    blocks: int = 1,
    step_min: float = 0.001,
    step_max: float = 0.1,
    scan: Scan = "auto",
) -> NeuralMemory:
    """S5 layer: state two of [hidden], by default half the `features`; output [features].

    A diagonal linear system of conjugate pairs, discretized by zero-order hold. It begins as
    `blocks` copies of HiPPO-LegS, with step sizes drawn log-uniformly between `step_min` and
    `step_max`; a unit remembers about 1 / step inputs. The input is added to the output, scaled
    elementwise or, if of another size, by a linear map. `scan`: how sequences are unrolled (see
    `from_monoid`). Raises ValueError if `blocks` does not divide `hidden` and for steps that are
    not 0 < step_min <= step_max.
    Smith et al. (2023), equations 2, 5 and 6, appendix B.
    """
    if not 0 < step_min <= above("step_max", step_max, 0):
        raise ValueError(f"step_min: {step_min} is not between 0 and step_max = {step_max}")
    size = max(positive("features", features) // 2, 1) if hidden is None else hidden
    divides("hidden", positive("hidden", size), "blocks", positive("blocks", blocks))
    cell = _Cell(features, size, blocks, step_min, step_max)
    return from_monoid(COMPLEX, cell, lambda: Complex.zeros(size), scan)
