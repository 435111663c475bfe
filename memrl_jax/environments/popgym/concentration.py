"""Concentration: find the pairs among cards that lie face down."""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from memrl_jax import checks
from memrl_jax.environments.interface import Interface
from memrl_jax.environments.popgym import cards
from memrl_jax.environments.popgym.base import Limit
from memrl_jax.environments.popgym.cards import DECK, KINDS
from memrl_jax.spaces import Discrete
from memrl_jax.types import Array, Key

UNSEEN = -1


class Table(NamedTuple):
    """The state of `Concentration`. What a card shows is drawn when it is first turned."""

    kind: Array  # [cards] int8, what every card shows; `UNSEEN` until it is turned
    up: Array  # [cards] bool: found, and face up for good
    left: Array  # [n] int32, cards of each kind among those unseen
    first: Array  # [] int32, the card turned first of two; -1 if none is
    time: Array  # [] int32


@dataclass(frozen=True)
class Concentration(Interface):
    """Turn cards, one a step, and find two of the same kind.

    52 `decks` cards lie face down. A pair stays face up and is worth 1 / (26 `decks`). Two cards
    that are no pair, or the same one twice, are turned back and cost 2 / T; touching a card that is
    face up already costs 1 / T, and 2 / T with another one turned before it, which is turned back.
    T, the time limit, is about what perfect play takes: twice the number of cards. An episode ends
    with the last pair. `kind` is what makes a pair: the same "colors" (n = 2) or "ranks" (13).

    Observation, int32 [cards]: what every card shows, 0 .. n - 1, or n face down; the two cards
    that were just turned are still seen. Action: a card.
    """

    decks: int = 1
    kind: Literal["colors", "ranks"] = "colors"

    def __post_init__(self) -> None:
        checks.positive("decks", self.decks)
        checks.known("kind", self.kind, ("colors", "ranks"))

    @property
    def count(self) -> int:
        """How many cards there are."""
        return DECK * self.decks

    @property
    def observations(self) -> Discrete:
        """Space of observations: what every card shows."""
        return Discrete(KINDS[self.kind] + 1, (self.count,))

    @property
    def actions(self) -> Discrete:
        """Space of actions: a card."""
        return Discrete(self.count)

    @property
    def default_params(self) -> Limit:
        """Parameters of an episode."""
        return Limit(math.ceil(2 * self.count - self.count / (2 * self.count - 1)))

    def reset_env(self, key: Key, params: Limit) -> tuple[Array, Table]:
        """Lay all cards face down."""
        state = Table(
            kind=jnp.full(self.count, UNSEEN, jnp.int8),
            up=jnp.zeros(self.count, bool),
            left=cards.fresh(KINDS[self.kind], self.decks),
            first=jnp.int32(-1),
            time=jnp.int32(0),
        )
        return self._seen(state.kind, state.up), state

    def step_env(self, key: Key, state: Table, action: Array, params: Limit) -> Any:
        """Turn a card; after two, keep a pair or turn both back."""
        place = jnp.arange(self.count)
        drawn, left = cards.draw(key, state.left)
        unseen = state.kind[action] == UNSEEN
        kind = jnp.where((place == action) & unseen, drawn.astype(jnp.int8), state.kind)
        turned = (place == action) | (place == state.first)
        second, touched = state.first >= 0, state.up[action]
        pair = second & ~touched & (action != state.first) & (kind[action] == kind[state.first])
        cost = jnp.where(second, 2.0, 1.0) / -params.max_steps_in_episode
        reward = jnp.where(touched | second, cost, 0.0)
        up = state.up | (pair & turned)
        state = Table(
            kind,
            up,
            left=jnp.where(unseen, left, state.left),
            first=jnp.where(second | touched, -1, action),
            time=state.time + 1,
        )
        reward = jnp.where(pair, 2.0 / self.count, reward)
        return self._seen(kind, up | turned), state, reward, jnp.all(up), {}

    def _seen(self, kind: Array, up: Array) -> Array:
        return jnp.where(up, kind.astype(jnp.int32), KINDS[self.kind])
