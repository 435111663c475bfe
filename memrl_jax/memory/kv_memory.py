"""Key-value memory network: attention in which keys and values have maps of their own."""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from memrl_jax.checks import UNROLLED, positive, typed
from memrl_jax.memory.hops import HopTrace, Window, attend, hop, over_past
from memrl_jax.memory.memn2n import EMBED
from memrl_jax.types import Array, NeuralMemory


class KeyValue(nn.Module):
    """All hops of a key-value memory network over a window."""

    features: int
    hops: int

    @nn.compact
    def __call__(self, window: Window, now: Array) -> HopTrace:
        """Return the trace of the questions `now` [N, C, F]."""
        square, slots = (self.features, self.features), window.filled.shape[-1]
        maps = {name: self.param(name, EMBED, square, jnp.float32) for name in MAPS}
        times = self.param("times", EMBED, (2, slots, self.features), jnp.float32)
        turns = self.param("turns", TURN, (self.hops, *square), jnp.float32)
        hops = [
            hop(window, maps["key"], maps["value"], (times[0], times[1]), partial(_turn, turn))
            for turn in turns
        ]
        return attend(now @ maps["query"], hops)


MAPS = ("query", "key", "value")
TURN = nn.initializers.lecun_normal(batch_axis=(0,))


def _turn(turn: Array, u: Array, o: Array) -> Array:
    return (u + o) @ turn


@typed
def kv_memory(features: int = 64, slots: int = 32, hops: int = 3) -> NeuralMemory:
    """Key-value memory network over the last `slots` inputs: output [features], state `Past`.

    A dense layer maps every input to [features]. The present input is the question; two linear
    maps, shared by all hops, give the keys and values of the earlier ones. A matrix R_j maps the
    sum of query and reading to the query of hop j + 1. Keys and values have a learned vector for
    their age added, unlike in the paper, whose memories are unordered. The paper has one matrix A
    for question, keys and values, whose hand-made features differ. Empty slots stay in the
    softmax, as in `memn2n`. Raises ValueError for sizes below 1.
    Miller et al. (2016), section 3.1.
    """
    return over_past(KeyValue(features, positive("hops", hops, UNROLLED)), features, slots)
