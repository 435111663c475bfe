"""What reads and writes an external memory."""

import jax.numpy as jnp
from flax import linen as nn

from memrl_jax.checks import known
from memrl_jax.types import Array, State

CLIP = 20.0
CONTROLLERS = ("lstm", "feedforward")


class Controller(nn.Module):
    """One hidden layer that sees the input and what was read, with or without a memory of its own.

    Raises ValueError for an unknown `kind`.
    """

    kind: str
    hidden: int

    def initial_state(self) -> State:
        """Return an LSTM's state of zeros, or nothing."""
        if known("controller", self.kind, CONTROLLERS) == "feedforward":
            return ()
        return jnp.zeros(self.hidden, jnp.float32), jnp.zeros(self.hidden, jnp.float32)

    @nn.compact
    def __call__(self, state: State, x: Array) -> tuple[State, Array]:
        """Return the next state and [hidden]."""
        if self.kind == "feedforward":
            return (), nn.relu(nn.Dense(self.hidden)(x))
        state, h = nn.OptimizedLSTMCell(self.hidden)(state, x)
        return state, h


def clipped(x: Array) -> Array:
    """Keep every number between -20 and 20, beyond which activations only saturate."""
    return jnp.clip(x, -CLIP, CLIP)
