"""The encoder: a timestep as a vector of features."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from memrl_jax import checks, spaces
from memrl_jax.networks.layers import MLP, PLAIN, convolve
from memrl_jax.settings import BodyConfig, LayersConfig
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Array, Spec, TimeStep

Stack = tuple[tuple[int, int, int, int], ...]  # features, kernel, stride, padding

STACKS: dict[str, Stack] = {
    "small": ((16, 3, 1, 1),),
    "nature": ((32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0)),
}


def encoder(config: BodyConfig, spec: Spec) -> "Encoder":
    """Make the encoder for a spec's timesteps; raises ValueError for settings out of range.

    Raises it also for convolutions or channels that are set although no observation is an image.
    """
    checks.widths("encoder", config.encoder)
    stack = _stack(config.convolutions)
    if config.channels is not None:
        checks.at_least("channels", config.channels, -3, 2)
    images = any(map(_has_three_axes, spaces.parts(spec.observations)))
    seen = {"convolutions": images and config.channels is not None, "channels": images}
    for field, used in seen.items():
        given = getattr(config, field)
        if not used and given != getattr(BodyConfig(), field):
            raise ValueError(f"{field}: {checks.shown(given)}, but there is no image to be seen")
    return Encoder(
        spec.observations,
        spec.actions,
        config.encoder,
        config.previous_action,
        config.previous_reward,
        stack,
        config.channels,
        config.layers,
    )


def _stack(convolutions: str | Stack) -> Stack:
    """Return the layers of a stack, given as such or by name; check their ranges."""
    if isinstance(convolutions, str):
        return STACKS[checks.known("convolutions", convolutions, STACKS)]
    if not convolutions:
        raise ValueError("convolutions: () has no layers; channels = None sees images as vectors")
    for *sizes, padding in convolutions:
        for size in sizes:
            checks.positive("convolutions", size)
        checks.at_least("convolutions", padding, 0)
    return convolutions


def _has_three_axes(space: Any) -> bool:
    return isinstance(space, Continuous) and len(space.shape) == 3


class Encoder(nn.Module):
    """Turn a timestep into a vector; any leading axes.

    Observations may be any pytree; its parts are encoded by `features` and concatenated. Parts with
    three axes are images: `channels` says which axis has the channels, or None that there are no
    images. They go through `convolutions`, each (features, kernel, stride, padding). `widths` are
    the dense layers after that. The previous action is encoded like an observation; it and the
    previous reward are zero where `start` is true. Raises ValueError for an observation or an
    action whose parts are not the declared ones.
    """

    observations: Any
    actions: Any
    widths: tuple[int, ...] = ()
    previous_action: bool = False
    previous_reward: bool = False
    convolutions: Stack = STACKS["small"]
    channels: int | None = -1
    layers: LayersConfig = PLAIN

    @nn.compact
    def __call__(self, timestep: TimeStep) -> Array:
        """Return features [..., D]."""
        batch = timestep.reward.ndim
        seen = _paired("observation", self.observations, timestep.observation)
        parts = [self.see(space, x, batch) for space, x in seen]
        # A window that begins inside an episode has `start` there too: nothing before it is shown.
        before = ~timestep.start[..., None]
        if self.previous_action:
            done = _paired("action", self.actions, timestep.action)
            parts += [before * features(space, x, batch) for space, x in done]
        if self.previous_reward:
            parts.append(before * timestep.reward[..., None])
        return MLP(self.widths, self.layers)(jnp.concatenate(parts, axis=-1))

    def see(self, space: Any, x: Array, batch_axes: int) -> Array:
        """Return one part of an observation as a vector [..., D]."""
        if self.channels is None or not _has_three_axes(space):
            return features(space, x, batch_axes)
        axis = range(batch_axes, x.ndim)[self.channels]
        image = jnp.moveaxis(to_float(space, x), axis, -1)
        return _flat(convolve(image, self.convolutions, self.layers), batch_axes)


def _paired(name: str, declared: Any, given: Any) -> list[tuple[Any, Any]]:
    """Pair the parts of a declared space with the given leaves, by path.

    Not by tree structure: Linen freezes its dictionaries, so their types may differ.
    """
    specs, leaves = _named(declared), _named(given)
    if specs.keys() != leaves.keys():
        raise ValueError(f"{name}: parts {[*leaves]} are not the declared {[*specs]}")
    return [(specs[path], x) for path, x in leaves.items()]


def _named(x: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(x, is_leaf=spaces.is_part)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def features(space: Discrete | Continuous, x: Array, batch_axes: int) -> Array:
    """Return one part of an observation or an action as a vector [..., D] of float32.

    Every number of a `Discrete` is one-hot, and all zeros outside 0 .. n - 1. Other arrays are
    scaled by `to_float`. Both are flattened.
    """
    if isinstance(space, Discrete):
        return _flat(jax.nn.one_hot(x, space.n, dtype=jnp.float32), batch_axes)
    return _flat(to_float(space, x), batch_axes)


def _flat(x: Array, batch_axes: int) -> Array:
    return x.reshape(*x.shape[:batch_axes], -1)


def to_float(space: Continuous, x: Array) -> Array:
    """Return `x` [..., *shape] as float32: floats as they are, integers and booleans scaled.

    Scaled by the declared bounds, element by element: to [0, 1] by (x - low) / (high - low), or,
    where low < 0 < high, to [-1, 1] by x / max(-low, high), so that 0 stays 0. Bounds are first
    clipped to the dtype's range. Bounds that are infinite, or 2^31 - 1 or more apart, say nothing
    of the integers that occur: these are not scaled, except that uint8 becomes x / 255.
    """
    return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else _scaled(space, x)


def _scaled(space: Continuous, x: Array) -> Array:
    """Scale integers by their declared bounds; see `to_float`."""
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
    # Subtract as integers: float32 does not tell large ones apart. Small dtypes are widened first,
    # because differences may not fit.
    x = x if kind.itemsize >= 4 else x.astype(jnp.int32)
    above = (x - jnp.broadcast_to(jnp.asarray(zero, x.dtype), x.shape)).astype(jnp.float32)
    span = jnp.asarray(array.where(span == 0, 1, span), jnp.float32)
    return above / jnp.broadcast_to(span, x.shape)
