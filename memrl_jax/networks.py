"""Networks of timesteps: an encoder, a memory and a head.

Linen is used here and in `memory/` only, and only through `init` and `apply`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from memrl_jax.memory.states import checked
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Array, Key, Network, NeuralMemory, State, TimeStep

WHOLE = 16_000_000  # bytes of shifted images up to which a batch of them is one matrix product
GROUP = 4_000_000  # bytes of shifted images at a time in larger batches


class Encoder(nn.Module):
    """Turn a timestep into a vector; any leading axes.

    Observations may be any pytree: `Discrete` parts are one-hot, floats as they are, integers
    scaled by their declared bounds (see `features`), images [H, W, C] go through a small
    convolution. `widths` are the dense layers after it. The previous action is one-hot; it and the
    previous reward are zero where an episode starts. Raises ValueError for an observation unlike
    the declared ones.
    """

    observations: Any
    actions: Discrete | Continuous
    widths: tuple[int, ...] = ()
    previous_action: bool = False
    previous_reward: bool = False

    @nn.compact
    def __call__(self, timestep: TimeStep) -> Array:
        """Return features [..., D]."""
        batch = timestep.reward.shape
        specs = _named(self.observations)
        leaves = _named(timestep.observation)
        if specs.keys() != leaves.keys():
            raise ValueError(f"observation: parts {[*leaves]} are not the declared {[*specs]}")
        parts = [features(specs[name], x, len(batch)) for name, x in leaves.items()]
        # A window may begin inside an episode; there, too, nothing came before.
        before = ~timestep.start[..., None]
        if self.previous_action:
            parts.append(before * features(self.actions, timestep.action, len(batch)))
        if self.previous_reward:
            parts.append(before * timestep.reward[..., None])
        return MLP(self.widths)(jnp.concatenate(parts, axis=-1))


def _named(observation: Any) -> dict[str, Any]:
    """Return the leaves by their path; linen freezes its own dictionaries, so types may differ."""
    leaves = jax.tree_util.tree_leaves_with_path(
        observation, is_leaf=lambda x: isinstance(x, Discrete | Continuous)
    )
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def features(space: Discrete | Continuous, x: Array, batch_axes: int) -> Array:
    """Return one part of an observation as a vector [..., D] of float32; call within a module.

    A `Discrete` is one-hot, and zero where it is not one of 0 .. n - 1. Floats are taken as they
    are. Integers and booleans are scaled by their declared bounds, element by element, to [0, 1] by
    (x - low) / (high - low), or to [-1, 1] by x / max(-low, high) where 0 is between the bounds:
    0 stays 0. Bounds are first cut to what the dtype can hold. Bounds that are infinite, or
    2^31 - 1 or more apart, tell nothing of the integers that occur: those are taken as they are,
    except that uint8 then is x / 255. An image [H, W, C] goes through a convolution.
    """
    if isinstance(space, Discrete):
        return jax.nn.one_hot(x, space.n, dtype=jnp.float32)
    batch = x.shape[:batch_axes]
    x = x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else scaled(space, x)
    if x.ndim - batch_axes == 3:
        x = nn.relu(nn.Conv(16, (3, 3), conv_general_dilated=shifted_products)(x))
    return x.reshape(*batch, -1)


def scaled(space: Continuous, x: Array) -> Array:
    """Scale integers by their declared bounds; see `features`."""
    kind = x.dtype
    limits = None if jnp.issubdtype(kind, jnp.bool_) else jnp.iinfo(kind)
    least, most = (limits.min, limits.max) if limits else (0, 1)
    bounds = space.low, space.high
    array: Any = jnp if any(isinstance(bound, jax.core.Tracer) for bound in bounds) else np
    low, high = (array.asarray(bound, float) for bound in bounds)
    untold = (high - low >= 2**31 - 1) & (kind != jnp.uint8)
    low = array.ceil(array.maximum(low, least))
    high = array.floor(array.minimum(high, most))
    zero = array.where(untold | ((low < 0) & (high > 0)), 0, low)
    span = array.where(untold, 1, array.maximum(high - zero, zero - low))
    # Integers are subtracted as such: float32 does not tell large ones apart. Small ones are
    # widened first, for their differences may not fit.
    x = x if kind.itemsize >= 4 else x.astype(jnp.int32)
    above = (x - jnp.broadcast_to(jnp.asarray(zero, x.dtype), x.shape)).astype(jnp.float32)
    span = jnp.asarray(array.where(span == 0, 1, span), jnp.float32)
    return above / jnp.broadcast_to(span, x.shape)


def shifted_products(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
    """Convolve images [B, H, W, C] with an odd kernel [h, w, C, D], padded to the same size.

    As one matrix product with the h w shifted images side by side: inside a loop on a CPU its
    gradient takes a tenth of the time of `jax.lax.conv_general_dilated`'s. Where the copies would
    take more than WHOLE bytes, groups of images take turns and the gradient makes their copies
    anew: half the memory in the same time.
    """
    height, width = x.shape[-3:-1]
    h, w, channels, features = kernel.shape
    copies = h * w * height * width * channels * x.dtype.itemsize

    def product(x: Array) -> Array:
        x = jnp.pad(x, ((h // 2, h // 2), (w // 2, w // 2), (0, 0)))
        shifted = [x[i : i + height, j : j + width] for i in range(h) for j in range(w)]
        return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(h * w * channels, features)

    if len(x) * copies <= WHOLE:
        return jax.vmap(product)(x)
    return jax.lax.map(jax.checkpoint(product), x, batch_size=max(1, GROUP // copies))


class MLP(nn.Module):
    """Dense layers, each followed by a ReLU."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return features [..., widths[-1]], or `x` itself if there are no layers."""
        for width in self.widths:
            x = nn.relu(nn.Dense(width)(x))
        return x


class QHead(nn.Module):
    """Action values [..., A]; dueling splits them into value and advantage (Wang et al. 2016)."""

    actions: int
    widths: tuple[int, ...] = ()
    dueling: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return Q(x, a) of all actions."""
        advantage = nn.Dense(self.actions)(MLP(self.widths)(x))
        if not self.dueling:
            return advantage
        value = nn.Dense(1)(MLP(self.widths)(x))
        return value + advantage - jnp.mean(advantage, axis=-1, keepdims=True)


def recurrent(encoder: nn.Module, memory: NeuralMemory, head: nn.Module) -> Network:
    """Put a memory between an encoder of timesteps and a head; with `none`, feed-forward.

    The memory's states are checked as by `memory.states.checked`.
    """
    memory = checked(memory)

    def init(key: Key, timestep: TimeStep) -> Any:
        encoder_key, memory_key, head_key = jax.random.split(key, 3)
        encoder_params = encoder.init(encoder_key, timestep)
        x = encoder.apply(encoder_params, timestep)
        memory_params = memory.init(memory_key, x[0])
        _, y = memory.step(memory_params, memory.initial_state(), x[0], timestep.start[0])
        head_params = head.init(head_key, y)
        return {"encoder": encoder_params, "memory": memory_params, "head": head_params}

    def initial_state(batch: int) -> State:
        state = memory.initial_state()
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *x.shape)), state)

    def step(params: Any, state: State, timestep: TimeStep) -> tuple[State, Any]:
        x = encoder.apply(params["encoder"], timestep)
        over_batch = jax.vmap(memory.step, in_axes=(None, 0, 0, 0))
        state, y = over_batch(params["memory"], state, x, timestep.start)
        return state, head.apply(params["head"], y)

    def unroll(params: Any, state: State, timestep: TimeStep) -> tuple[State, Any]:
        xs = encoder.apply(params["encoder"], timestep)
        over_batch = jax.vmap(memory.unroll, in_axes=(None, 0, 1, 1), out_axes=(0, 1))
        state, ys = over_batch(params["memory"], state, xs, timestep.start)
        return state, head.apply(params["head"], ys)

    def inspect(params: Any, state: State, timestep: TimeStep) -> dict[str, Array]:
        x = encoder.apply(params["encoder"], timestep)
        over_batch = jax.vmap(memory.inspect, in_axes=(None, 0, 0, 0))
        return over_batch(params["memory"], state, x, timestep.start)

    return Network(init, initial_state, step, unroll, inspect)
