"""Heads: what a network says of the memory's output `x` [..., D].

`widths` are dense layers of their own before the output. `layers` is how all dense layers are made:
an agent passes on `config.body.layers`, so that the head's are like the encoder's.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from memrl_jax.networks.layers import MLP, PLAIN, dense
from memrl_jax.settings import LayersConfig
from memrl_jax.types import Array

# Scales of orthogonal kernels of the output: Engstrom et al. (2020), Huang et al. (2022). Small
# ones make a policy nearly uniform at first.
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
    """A key [..., size] by which what is alike can be found."""

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
    """The value [...] of where the agent is."""

    widths: tuple[int, ...] = ()
    layers: LayersConfig = PLAIN

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return V(x) [...], from `x` [..., D]."""
        return dense(1, self.layers, VALUE)(MLP(self.widths, self.layers)(x))[..., 0]


class ActorCriticHead(nn.Module):
    """A policy and a value of one memory's output, each with dense layers of its own."""

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
