"""Neural memories: what an agent carries from step to step."""

import inspect
from collections.abc import Callable

from memrl_jax import checks
from memrl_jax.memory.base import from_cell, from_monoid, from_step
from memrl_jax.memory.deltanet import deltanet
from memrl_jax.memory.dnc import dnc
from memrl_jax.memory.ffm import ffm
from memrl_jax.memory.frame_stack import frame_stack
from memrl_jax.memory.gru import gru
from memrl_jax.memory.gtrxl import gtrxl
from memrl_jax.memory.kv_memory import kv_memory
from memrl_jax.memory.linear_attention import linear_attention
from memrl_jax.memory.lru import lru
from memrl_jax.memory.lstm import lstm
from memrl_jax.memory.memn2n import memn2n
from memrl_jax.memory.memory_trace import memory_trace
from memrl_jax.memory.mingru import mingru
from memrl_jax.memory.mlstm import mlstm
from memrl_jax.memory.monoid import COMPLEX, DIAGONAL, Complex, Monoid
from memrl_jax.memory.mqn import frmqn, mqn, rmqn
from memrl_jax.memory.none import none
from memrl_jax.memory.ntm import ntm
from memrl_jax.memory.s5 import s5
from memrl_jax.memory.shm import shm
from memrl_jax.memory.stack import stack
from memrl_jax.types import NeuralMemory


@checks.typed
def _stack(
    layer: str = "lru", count: int = 2, features: int = 64, feedforward: int = 0
) -> NeuralMemory:
    """Stack `count` memories named `layer`, with default options except for `features`.

    From Python, `stack` takes any memories. Raises ValueError for an unknown `layer`.
    """
    constructor = MEMORIES[checks.known("layer", layer, MEMORIES)]
    sized = "features" in inspect.signature(constructor).parameters
    options = {"features": features} if sized else {}
    count = checks.positive("count", count, checks.UNROLLED)
    layers = [constructor(**options) for _ in range(count)]
    return stack(layers, features, feedforward)


MEMORIES: dict[str, Callable[..., NeuralMemory]] = {
    "none": none,
    "frame_stack": frame_stack,
    "memory_trace": memory_trace,
    "gru": gru,
    "lstm": lstm,
    "mingru": mingru,
    "mlstm": mlstm,
    "lru": lru,
    "s5": s5,
    "ffm": ffm,
    "shm": shm,
    "linear_attention": linear_attention,
    "deltanet": deltanet,
    "gtrxl": gtrxl,
    "ntm": ntm,
    "dnc": dnc,
    "memn2n": memn2n,
    "kv_memory": kv_memory,
    "mqn": mqn,
    "rmqn": rmqn,
    "frmqn": frmqn,
    "stack": _stack,
}

__all__ = ["COMPLEX", "DIAGONAL", "MEMORIES", "Complex", "Monoid"]
__all__ += ["from_cell", "from_monoid", "from_step", *MEMORIES]
