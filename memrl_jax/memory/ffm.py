"""Fast and forgetful memory."""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from memrl_jax.checks import positive, typed
from memrl_jax.memory.base import from_monoid
from memrl_jax.memory.monoid import COMPLEX, Complex, Scan, constantly
from memrl_jax.types import Array, NeuralMemory


class _Cell(nn.Module):
    features: int
    traces: int
    contexts: int
    max_period: int

    def setup(self) -> None:
        periods = jnp.linspace(1.0, self.max_period, self.contexts, dtype=jnp.float32)
        rates = jnp.linspace(1e-6, 0.5, self.traces, dtype=jnp.float32)
        self.log_rate = self.param("log_rate", lambda _: jnp.log(rates))
        self.frequency = self.param("frequency", lambda _: 2 * math.pi / periods)
        self.content = nn.Dense(self.traces)
        self.gate_in = nn.Dense(self.traces)
        self.gate_out = nn.Dense(self.features)
        self.mix = nn.Dense(self.features)
        self.skip = nn.Dense(self.features)
        self.norm = nn.LayerNorm(epsilon=1e-5, use_bias=False, use_scale=False)

    def lift(self, x: Array) -> Any:
        trace = self.content(x) * nn.sigmoid(self.gate_in(x))
        real = jnp.broadcast_to(trace[..., None], (*trace.shape, self.contexts))
        modulus = jnp.exp(-jnp.exp(self.log_rate))
        decay = Complex.polar(modulus[:, None], self.frequency[None])
        return constantly(decay, Complex(real, jnp.zeros_like(real)))

    def read(self, state: Complex, x: Array) -> Array:
        z = jnp.concatenate(state, axis=-1)
        z = self.mix(z.reshape(*z.shape[:-2], -1))
        gate = nn.sigmoid(self.gate_out(x))
        return self.norm(z * gate) + self.skip(x) * (1 - gate)


@typed
def ffm(
    features: int = 64,
    traces: int = 32,
    contexts: int = 4,
    max_period: int = 1024,
    scan: Scan = "auto",
) -> NeuralMemory:
    """Fast and forgetful memory: state two of [traces, contexts], output [features].

    Every trace decays at its own rate and rotates at every context's frequency, with periods from 1
    to `max_period` steps; it is advanced step by step, not by powers of the elapsed time, so that
    nothing overflows. The logarithms of decay rates are learned, so that slow ones stay slow and
    none gets stuck: the paper has |alpha|, which begins at 1e-6 and moves by whole learning rates;
    the authors' code has -min(alpha, -1e-6), which has no gradient once alpha is above -1e-6.
    `scan`: how sequences are unrolled (see `from_monoid`).
    Morad et al. (2023), equations 4 to 13.
    """
    positive("max_period", max_period)
    shape = positive("traces", traces), positive("contexts", contexts)
    cell = _Cell(positive("features", features), *shape, max_period)
    return from_monoid(COMPLEX, cell, lambda: Complex.zeros(*shape), scan)
