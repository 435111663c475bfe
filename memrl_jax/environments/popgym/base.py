"""What the tasks share."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import struct

from memrl_jax import checks
from memrl_jax.environments.interface import Interface
from memrl_jax.environments.popgym.cards import DECK
from memrl_jax.types import Array


@struct.dataclass
class Limit:
    """The time limit, which is all that may vary in tasks without other parameters."""

    max_steps_in_episode: int


@dataclass(frozen=True)
class DeckTask(Interface):
    """A task that ends with its deck, of N = 52 `decks` cards; that is no time limit."""

    decks: int = 1

    def __post_init__(self) -> None:
        checks.positive("decks", self.decks)

    @property
    def length(self) -> int:
        """Steps in an episode."""
        return DECK * self.decks - 1

    @property
    def default_params(self) -> Any:
        """Parameters: a time limit that does not matter."""
        return Limit(self.length)

    def is_truncated(self, state: Any, params: Limit) -> Array:
        """Tell whether a time limit shorter than the episode has been reached, [] bool."""
        return (state.time >= params.max_steps_in_episode) & (state.time < self.length)


def right(answer: Array) -> Array:
    """Return 1 for a right answer and -1 for a wrong one, float32 []."""
    return jnp.where(answer, 1.0, -1.0)
