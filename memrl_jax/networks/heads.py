"""Heads: a network's outputs, computed from the memory's output `x` [..., D].

`widths` are a head's own dense layers before its output. `layers` are the options of its dense
layers: an agent passes `config.body.layers`, so that they are like the encoder's.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from memrl_jax.networks.layers import MLP, PLAIN, dense
from memrl_jax.settings import LayersConfig
from memrl_jax.types import Array

# Scales of orthogonal kernels of the output: Engstrom et al. (2020), Huang et al. (2022). A small
# one makes the initial policy nearly uniform.
VALUE, POLICY = 1.0, 0.01


class QHead(nn.Module):
    """Action values [..., A]; dueling splits them into value and advantage (Wang et al. 2016)."""

    actions: int
    widths: tuple[int, ...] = ()
    dueling: bool = False
    layers: LayersConfig = PLAIN

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return Q(x, a) [..., A] of all actions, from `x` [..., D]."""
        hidden = MLP(self.widths, self.layers)(x)
        advantage = dense(self.actions, self.layers, VALUE)(hidden)
        if not self.dueling:
            return advantage
        value = dense(1, self.layers, VALUE)(MLP(self.widths, self.layers)(x))
        return value + advantage - jnp.mean(advantage, axis=-1, keepdims=True)


class EmbeddingHead(nn.Module):
    """A key [..., size] for nearest-neighbour lookup."""

    size: int
    widths: tuple[int, ...] = ()
    layers: LayersConfig = PLAIN

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return the key [..., size], from `x` [..., D]."""
        return dense(self.size, self.layers, VALUE)(MLP(self.widths, self.layers)(x))


class PolicyHead(nn.Module):
    """Parameters [..., size] of a distribution over actions, `distributions.Distribution.size`."""

    size: int
    widths: tuple[int, ...] = ()
    layers: LayersConfig = PLAIN

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return parameters [..., size], from `x` [..., D]."""
        return dense(self.size, self.layers, POLICY)(MLP(self.widths, self.layers)(x))


class ValueHead(nn.Module):
    """The state value [...]."""

    widths: tuple[int, ...] = ()
    layers: LayersConfig = PLAIN

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return V(x) [...], from `x` [..., D]."""
        return dense(1, self.layers, VALUE)(MLP(self.widths, self.layers)(x))[..., 0]


class ActorCriticHead(nn.Module):
    """A policy and a value on the same memory output, each with its own dense layers."""

    size: int
    widths: tuple[int, ...] = ()
    layers: LayersConfig = PLAIN

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Return parameters [..., size] and V(x) [...], from `x` [..., D]."""
        parameters = PolicyHead(self.size, self.widths, self.layers)(x)
        return parameters, ValueHead(self.widths, self.layers)(x)


class CriticHead(nn.Module):
    """The value [...] of a continuous action."""

    widths: tuple[int, ...] = ()
    layers: LayersConfig = PLAIN

    @nn.compact
    def __call__(self, x: Array, action: Any) -> Array:
        """Return Q(x, a) [...], from `x` [..., D] and a pytree of floats [..., *shape]."""
        parts = [part.reshape(*x.shape[:-1], -1) for part in jax.tree.leaves(action)]
        return ValueHead(self.widths, self.layers)(jnp.concatenate([x, *parts], axis=-1))
