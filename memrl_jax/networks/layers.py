"""Hidden layers: dense ones, and convolutions as one matrix product."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from memrl_jax.settings import LayersConfig
from memrl_jax.types import Array

WHOLE = 16_000_000  # bytes of shifted images up to which a batch is one matrix product
GROUP = 4_000_000  # bytes of shifted images at a time in larger batches
HIDDEN = 2**0.5  # scale of orthogonal kernels before a ReLU

PLAIN = LayersConfig()


def dense(width: int, layers: LayersConfig, scale: float) -> nn.Dense:
    """Make a dense layer, with orthogonal kernels of this scale if `layers` says so."""
    return nn.Dense(width, kernel_init=kernel_init(layers, scale), dot_general=_product)


def _product(x: Array, kernel: Array, _: Any, **options: Any) -> Array:
    """Multiply `x` [..., D] by a kernel [D, E], as one matrix: [..., E].

    The kernel's gradient is then a plain product too; with several axes, the errors would be
    transposed first.
    """
    y = jax.lax.dot(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), kernel, **options)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


def kernel_init(layers: LayersConfig, scale: float) -> Any:
    """Return the initializer of kernels: orthogonal of this scale, or LeCun's normal one."""
    return nn.initializers.orthogonal(scale) if layers.orthogonal else nn.linear.default_kernel_init


def activate(x: Array, layers: LayersConfig) -> Array:
    """Apply a ReLU, after a LayerNorm over the last axis if `layers` says so: [..., D]."""
    return nn.relu(nn.LayerNorm()(x) if layers.layer_norm else x)


class MLP(nn.Module):
    """Dense layers, each followed by a ReLU."""

    widths: tuple[int, ...]
    layers: LayersConfig = PLAIN

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return features [..., widths[-1]], or `x` [..., D] itself if there are no layers."""
        for width in self.widths:
            x = activate(dense(width, self.layers, HIDDEN)(x), self.layers)
        return x


def convolve(x: Array, stack: tuple[tuple[int, int, int, int], ...], layers: LayersConfig) -> Array:
    """Apply convolutions to images [..., H, W, C]: [..., H', W', D]; call within a linen module.

    Each layer of `stack` is (features, side of the square kernel, stride, zeros added on every
    side), followed by `activate`. Raises ValueError where a kernel is larger than the image.
    """
    for features, kernel, stride, padding in stack:
        height, width = x.shape[-3:-1]
        if kernel > min(height, width) + 2 * padding:
            image = f"an image of {height} x {width} with padding {padding}"
            raise ValueError(f"convolutions: a kernel of {kernel} does not fit in {image}")
        convolution = nn.Conv(
            features,
            (kernel, kernel),
            stride,
            padding,
            kernel_init=kernel_init(layers, HIDDEN),
            conv_general_dilated=shifted_products,
        )
        x = activate(convolution(x), layers)
    return x


def shifted_products(
    x: Array,
    kernel: Array,
    strides: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    **_: Any,
) -> Array:
    """Convolve images [B, H, W, C] with a kernel [h, w, C, D]: [B, H', W', D].

    Computed as one matrix product with h * w shifted copies of the images: inside a loop on a CPU
    its gradient takes a tenth of the time of `jax.lax.conv_general_dilated`'s. Where the copies
    would take more than WHOLE bytes, images are processed in groups and the gradient recomputes
    their copies: half the memory in the same time.
    """
    h, w, channels, features = kernel.shape
    down, right = strides
    (top, bottom), (left, after) = padding
    height = (x.shape[1] + top + bottom - h) // down + 1
    width = (x.shape[2] + left + after - w) // right + 1
    copies = h * w * height * width * channels * x.dtype.itemsize

    def shift(x: Array, i: int, j: int) -> Array:
        rows, columns = i + down * (height - 1) + 1, j + right * (width - 1) + 1
        return x[i:rows:down, j:columns:right]

    def product(x: Array) -> Array:
        x = jnp.pad(x, (*padding, (0, 0)))
        shifted = [shift(x, i, j) for i in range(h) for j in range(w)]
        return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(h * w * channels, features)

    if len(x) * copies <= WHOLE:
        return jax.vmap(product)(x)
    return jax.lax.map(jax.checkpoint(product), x, batch_size=max(1, GROUP // copies))
