"""Tasks of counting cards: how often was it seen, and will the next one be higher?"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from memrl_jax import checks
from memrl_jax.environments.popgym import cards
from memrl_jax.environments.popgym.base import DeckTask, right
from memrl_jax.environments.popgym.cards import DECK, KINDS, RANKS
from memrl_jax.spaces import Discrete
from memrl_jax.types import Array, Key


class Counts(NamedTuple):
    """The state of `CountRecall`."""

    shown: Array  # [n] int32, cards of each kind left in the deck that is counted
    asked: Array  # [n] int32, and in the deck of questions
    query: Array  # [] int32, the kind asked for now
    time: Array  # [] int32


@dataclass(frozen=True)
class CountRecall(DeckTask):
    """Say how many cards of a kind were shown so far, the present one among them.

    At every step a card is shown and a kind is asked for, which a card of another deck of the same
    size tells. `kind` is what tells cards apart: their "colors" (n = 2), "suits" (4) or "ranks"
    (13). N = 52 `decks`; an episode has N - 1 steps. A right answer is worth 1 / (N - 1), a wrong
    one -1 / (N - 1). Observation: (kind shown, kind asked for). Action: a number from 0 to N / n.
    """

    kind: Literal["colors", "suits", "ranks"] = "colors"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.known("kind", self.kind, KINDS)

    @property
    def kinds(self) -> int:
        """How many kinds of cards there are (n)."""
        return KINDS[self.kind]

    @property
    def observations(self) -> Any:
        """Space of observations: the kind shown, and that asked for."""
        return Discrete(self.kinds), Discrete(self.kinds)

    @property
    def actions(self) -> Discrete:
        """Space of actions: a count."""
        return Discrete(DECK * self.decks // self.kinds + 1)

    def reset_env(self, key: Key, params: Any) -> tuple[Any, Counts]:
        """Show the first card and ask the first question."""
        full = cards.fresh(self.kinds, self.decks)
        return self._next(key, Counts(full, full, jnp.int32(0), jnp.int32(-1)))

    def step_env(self, key: Key, state: Counts, action: Array, params: Any) -> Any:
        """Judge the answer, show the next card and ask the next question."""
        count = self.actions.n - 1 - state.shown[state.query]
        reward = right(action == count) / self.length
        observation, state = self._next(key, state)
        return observation, state, reward, state.time == self.length, {}

    def _next(self, key: Key, state: Counts) -> tuple[Any, Counts]:
        (value, query), (shown, asked) = cards.draw_each(key, state.shown, state.asked)
        return (value, query), Counts(shown, asked, query, state.time + 1)


class Guess(NamedTuple):
    """The state of `HigherLower`."""

    rank: Array  # [] int32, of the card shown
    left: Array  # [13] int32, cards of each rank in the deck
    time: Array  # [] int32


HIGHER, LOWER = 0, 1


@dataclass(frozen=True)
class HigherLower(DeckTask):
    """Say whether the next card will have a higher rank (0) than this one or a lower one (1).

    N = 52 `decks` cards are shown, one a step; an episode has N - 1 steps. A right guess is worth
    1 / N, a wrong one -1 / N, and nothing if both ranks are the same. Observation: a rank, from the
    ace, 0, to the king, 12.
    """

    observations = Discrete(RANKS)
    actions = Discrete(2)

    def reset_env(self, key: Key, params: Any) -> tuple[Array, Guess]:
        """Show the first card."""
        rank, left = cards.draw(key, cards.fresh(RANKS, self.decks))
        return rank, Guess(rank, left, jnp.int32(0))

    def step_env(self, key: Key, state: Guess, action: Array, params: Any) -> Any:
        """Show the next card and judge the guess."""
        rank, left = cards.draw(key, state.left)
        guess = right((rank > state.rank) == (action == HIGHER)) / (self.length + 1)
        reward = jnp.where(rank == state.rank, 0.0, guess)
        state = Guess(rank, left, state.time + 1)
        return rank, state, reward, state.time == self.length, {}
