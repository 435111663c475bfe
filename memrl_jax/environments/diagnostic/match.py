"""Delayed matching: is this symbol the one of n steps ago?"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import struct

from memrl_jax import checks, draws
from memrl_jax.environments.diagnostic.dials import bound
from memrl_jax.environments.gymnax import from_gymnax
from memrl_jax.environments.interface import Interface
from memrl_jax.spaces import Discrete
from memrl_jax.types import Array, Environment, Key

OTHER, SAME = 0, 1


@struct.dataclass
class Params:
    """What may vary between tasks without recompiling."""

    back: int | Array  # how many steps ago the symbol to compare with was shown, 1 .. furthest
    max_steps_in_episode: int


class Stream(NamedTuple):
    """The state of `DelayedMatch`."""

    shown: Array  # [furthest + 1] int32, the last symbols, the newest first; 0 of those before
    time: Array  # [] int32


@dataclass(frozen=True)
class DelayedMatch(Interface):
    """Say at every step whether the symbol is the one of `back` steps ago: the n-back task.

    Kirchner (1958). One of `symbols` is shown at each of `steps` steps. From the step on at which
    there is one to compare with, half of them are the same as that; a right answer is worth
    1 / (`steps` - `back`), a wrong one as much less, so that guessing returns 0. Observation: a
    symbol. Action: 1 for the same, 0 for another one. A `back` up to `furthest` may be traced.
    Raises ValueError for fewer than 2 symbols, and unless 1 <= `furthest` < `steps`.
    """

    furthest: int = 2
    symbols: int = 4
    steps: int = 50

    actions = Discrete(2)

    def __post_init__(self) -> None:
        checks.at_least("symbols", self.symbols, 2)
        checks.at_least("steps", self.steps, 2)
        checks.positive("furthest", self.furthest, self.steps - 1)

    @property
    def observations(self) -> Discrete:
        """Space of observations."""
        return Discrete(self.symbols)

    @property
    def default_params(self) -> Params:
        """Parameters of the hardest task."""
        return Params(self.furthest, self.steps)

    def reset_env(self, key: Key, params: Params) -> tuple[Array, Stream]:
        """Show the first symbol."""
        symbol = draws.randint(key, (), 0, self.symbols)
        shown = jnp.zeros(self.furthest + 1, jnp.int32).at[0].set(symbol)
        return symbol, Stream(shown, jnp.int32(0))

    def step_env(self, key: Key, state: Stream, action: Array, params: Params) -> Any:
        """Judge the answer and show the next symbol."""
        same = state.shown[0] == state.shown[params.back]
        answer = jnp.where((action == SAME) == same, 1.0, -1.0) / (self.steps - params.back)
        reward = jnp.where(state.time >= params.back, answer, 0.0)
        symbol = self._next(key, state, params)
        shown = jnp.append(symbol, state.shown[:-1])
        state = Stream(shown, state.time + 1)
        return symbol, state, reward, state.time == self.steps, {}

    def is_truncated(self, state: Stream, params: Params) -> Array:
        """Tell whether a time limit shorter than the episode has been reached, [] bool."""
        return (state.time >= params.max_steps_in_episode) & (state.time < self.steps)

    def _next(self, key: Key, state: Stream, params: Params) -> Array:
        """Draw a symbol: with even chances the one to compare with, or any other."""
        same_key, key = draws.split(key)
        compared = state.time + 1 >= params.back
        same = compared & draws.bernoulli(same_key)
        apart = draws.randint(key, (), jnp.where(compared, 1, 0), self.symbols)
        before = state.shown[params.back - 1]
        return jnp.where(same, before, (before + apart) % self.symbols)


def delayed_match(
    back: int | Array = 2, furthest: int | None = None, symbols: int = 4, steps: int = 50
) -> Environment:
    """Make the n-back task, n = `back` [], which may be traced if `furthest` limits it.

    See `DelayedMatch`.
    """
    task = DelayedMatch(bound("back", back, "furthest", furthest), symbols, steps)
    return from_gymnax(task, back=back)
