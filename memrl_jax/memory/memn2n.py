"""End-to-end memory network."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from memrl_jax.checks import UNROLLED, known, positive, typed
from memrl_jax.memory.hops import HopTrace, Window, attend, hop, over_past
from memrl_jax.types import Array, NeuralMemory

Tying = Literal["adjacent", "layerwise"]
TYINGS = ("adjacent", "layerwise")
EMBED = nn.initializers.normal(0.1)


def position_encoding(features: int, words: int) -> np.ndarray:
    """Return the weight of each word of a sentence in each feature, [words, features] float32.

    1 + 4 (i - (d + 1) / 2) (j - (J + 1) / 2) / (d J) for feature i of d and word j of J, both from
    1. This is the formula of the authors' code; that of the paper (section 4.1) is about half of
    it, with j and i shifted by one half.
    """
    i = np.arange(1, features + 1) - (features + 1) / 2
    j = np.arange(1, words + 1)[:, None] - (words + 1) / 2
    return (1 + 4 * i * j / (features * words)).astype(np.float32)


class MemN2N(nn.Module):
    """All hops of an end-to-end memory network over a window."""

    features: int
    hops: int
    tying: Tying
    relu: bool

    @nn.compact
    def __call__(self, window: Window, now: Array) -> HopTrace:
        """Return the trace of the questions `now` [N, C, F]."""
        square, slots = (self.features, self.features), window.filled.shape[-1]
        adjacent = self.tying == "adjacent"
        # Adjacent: B = A_1, C_1 = A_2, ..., C_K. Layer-wise: A and C; B and H are separate.
        distinct = self.hops + 1 if adjacent else 2
        maps = self.param("maps", EMBED, (distinct, *square), jnp.float32)
        times = self.param("times", EMBED, (distinct, slots, self.features), jnp.float32)
        query = maps[0] if adjacent else self.param("query", EMBED, square, jnp.float32)
        carry = None if adjacent else self.param("carry", EMBED, square, jnp.float32)

        def join(u: Array, o: Array) -> Array:
            u = o + (u if carry is None else u @ carry)
            return nn.relu(u) if self.relu else u

        pairs = [(k, k + 1) if adjacent else (0, 1) for k in range(self.hops)]
        hops = [hop(window, maps[a], maps[c], (times[a], times[c]), join) for a, c in pairs]
        return attend(now @ query, hops)


@typed
def memn2n(
    features: int = 64,
    slots: int = 32,
    hops: int = 3,
    tying: Tying = "adjacent",
    relu: bool = False,
) -> NeuralMemory:
    """End-to-end memory network over the last `slots` inputs: output [features], state `Past`.

    A dense layer maps every input to [features]. The present one is the question; those before it
    are the memory, each with a learned vector for its age. As in the authors' code, slots from
    before the episode's start stay in the softmax with keys and values of zero, and so take weight
    from the others. `tying` is "adjacent" (the values of one hop are the keys of the next) or
    "layerwise" (all hops share their maps, with a linear map H of the query between them); `relu`
    applies a ReLU to the query after each hop. Weights begin as 0.1 N(0, 1). Raises ValueError for
    sizes below 1 or another `tying`.
    Sukhbaatar et al. (2015), sections 2 and 4.1.
    """
    known("tying", tying, TYINGS)
    reader = MemN2N(features, positive("hops", hops, UNROLLED), tying, relu)
    return over_past(reader, features, slots)
