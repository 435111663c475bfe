"""Tasks of repeating cards: the first one, the one of k steps ago, or all of them in reverse."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import struct

from memrl_jax import checks
from memrl_jax.environments.popgym import cards
from memrl_jax.environments.popgym.base import DeckTask, right
from memrl_jax.environments.popgym.cards import DECK, SUITS
from memrl_jax.spaces import Discrete
from memrl_jax.types import Array, Key


class First(NamedTuple):
    """The state of `RepeatFirst`."""

    first: Array  # [] int32, suit of the first card
    left: Array  # [4] int32, cards of each suit in the deck
    time: Array  # [] int32


@dataclass(frozen=True)
class RepeatFirst(DeckTask):
    """Say at every step which suit the first card had.

    N = 52 `decks` cards are shown, one a step; an episode has N - 1 steps. A right answer is worth
    1 / (N - 1), a wrong one -1 / (N - 1). Observation and action: a suit.
    """

    observations = actions = Discrete(SUITS)

    def reset_env(self, key: Key, params: Any) -> tuple[Array, First]:
        """Show the first card."""
        suit, left = cards.draw(key, cards.fresh(SUITS, self.decks))
        return suit, First(suit, left, jnp.int32(0))

    def step_env(self, key: Key, state: First, action: Array, params: Any) -> Any:
        """Judge the answer and show the next card."""
        reward = right(action == state.first) / self.length
        suit, left = cards.draw(key, state.left)
        state = First(state.first, left, state.time + 1)
        return suit, state, reward, state.time == self.length, {}


class Seen(NamedTuple):
    """The state of `RepeatPrevious` and `Autoencode`."""

    suits: Array  # [N] int8, of the cards in the order in which they are shown; 0 of those to come
    left: Array  # [4] int32, cards of each suit in the deck
    time: Array  # [] int32


def _begin(key: Key, decks: int) -> tuple[Array, Seen]:
    """Show the first card: its suit, and the state."""
    suit, left = cards.draw(key, cards.fresh(SUITS, decks))
    rest = jnp.zeros(DECK * decks - 1, jnp.int8)
    return suit, Seen(jnp.append(suit.astype(jnp.int8), rest), left, jnp.int32(0))


def _go_on(key: Key, state: Seen) -> tuple[Array, Seen]:
    """Show the next card, if there is one: its suit, and the state."""
    time = state.time + 1
    suit, left = cards.draw(key, state.left)
    now = jnp.arange(state.suits.shape[0]) == time
    return suit, Seen(jnp.where(now, suit.astype(jnp.int8), state.suits), left, time)


@struct.dataclass
class Back:
    """Parameters of `RepeatPrevious`; `k` may be traced."""

    k: int | Array
    max_steps_in_episode: int


@dataclass(frozen=True)
class RepeatPrevious(DeckTask):
    """Say which suit the card of `k` steps ago had; the newest one is of one step ago.

    N = 52 `decks` cards are shown, one a step; an episode has N - 1 steps. From the k-th step on, a
    right answer is worth 1 / (N - k), a wrong one -1 / (N - k). Observation and action: a suit.
    """

    k: int = 4

    observations = actions = Discrete(SUITS)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.positive("k", self.k, DECK * self.decks - 1)

    @property
    def default_params(self) -> Any:
        """Parameters as the task was constructed."""
        return Back(self.k, self.length)

    def reset_env(self, key: Key, params: Back) -> tuple[Array, Seen]:
        """Show the first card."""
        return _begin(key, self.decks)

    def step_env(self, key: Key, state: Seen, action: Array, params: Back) -> Any:
        """Judge the answer and show the next card."""
        place = state.time + 1 - params.k
        answer = right(action == state.suits[place]) / (self.length + 1 - params.k)
        reward = jnp.where(place >= 0, answer, 0.0)
        suit, state = _go_on(key, state)
        return suit, state, reward, state.time == self.length, {}


WATCH, PLAY = 1, 0


@dataclass(frozen=True)
class Autoencode(DeckTask):
    """See all cards, then say their suits in reverse.

    N = 52 `decks` cards are shown, one a step. Then each of N answers, beginning with the last
    card, is worth 1 / N if it is right and -1 / N if it is wrong; an episode has 2 N - 1 steps.
    Observation: (whether cards are still shown, suit); the last card comes with the first
    question, and after it the suit is 0. Action: a suit, which counts only as an answer.
    """

    observations = (Discrete(2), Discrete(SUITS))
    actions = Discrete(SUITS)

    @property
    def length(self) -> int:
        """Steps in an episode."""
        return 2 * DECK * self.decks - 1

    def reset_env(self, key: Key, params: Any) -> tuple[Any, Seen]:
        """Show the first card."""
        suit, state = _begin(key, self.decks)
        return (jnp.int32(WATCH), suit), state

    def step_env(self, key: Key, state: Seen, action: Array, params: Any) -> Any:
        """Show the next card, or judge the answer."""
        count = DECK * self.decks
        asked = state.time >= count - 1
        answer = right(action == state.suits[self.length - 1 - state.time]) / count
        suit, state = _go_on(key, state)
        mode = jnp.where(state.time < count - 1, WATCH, PLAY)
        reward = jnp.where(asked, answer, 0.0)
        return (mode, jnp.where(asked, 0, suit)), state, reward, state.time == self.length, {}
