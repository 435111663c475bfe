"""A recommender: only clicks tell what a user likes, and that drifts."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from memrl_jax import checks, draws
from memrl_jax.environments.interface import Interface
from memrl_jax.kinds import FLOAT32
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Array, Key


@struct.dataclass
class Params:
    """Parameters of `Recommender`; all but the time limit may be traced."""

    drift: float | Array
    sharpness: float | Array
    offset: float | Array
    max_steps_in_episode: int


class User(NamedTuple):
    """The state of `Recommender`."""

    preference: Array  # [features] float32, of length 1
    time: Array  # [] int32


@dataclass(frozen=True)
class Recommender(Interface):
    """Recommend one of some items at every step, to a user whose taste is hidden and drifts.

    Items are fixed vectors of length 1, drawn with `seed`. The user's preference is one too, drawn
    when an episode begins; after every step normal noise is added to it, of standard deviation
    `drift` in each dimension, and its length made 1 again. The user clicks with the chance
    sigmoid(`sharpness` * <preference, item> - `offset`), and a click is worth 1. An episode is
    truncated after `steps` steps.

    Observation, float32 [1 + features]: whether the last item was clicked, and what item that was;
    zeros at first. Action: an item. `info["regret"]`, float32 []: how much higher the chance of the
    best item was.

    Clicks per step, with the default numbers: whoever knows the preference 0.64, a running average
    of what was clicked 0.49, the best function found of the last item and click 0.31, the best
    single item 0.19.
    """

    items: int = 20
    features: int = 3
    steps: int = 200
    drift: float = 0.03
    sharpness: float = 4.0
    offset: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        checks.at_least("items", self.items, 2)
        checks.at_least("features", self.features, 2)
        checks.positive("steps", self.steps)
        checks.within("drift", self.drift, 0, FLOAT32)
        checks.within("sharpness", self.sharpness, 0, FLOAT32)
        checks.within("offset", self.offset, -FLOAT32, FLOAT32)
        checks.at_least("seed", self.seed, 0)

    @property
    def catalogue(self) -> np.ndarray:
        """All items, float32 [items, features]."""
        drawn = np.random.default_rng(self.seed).normal(size=(self.items, self.features))
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)

    @property
    def observations(self) -> Continuous:
        """Space of observations."""
        low = np.append(0, np.full(self.features, -1)).astype(np.float32)
        return Continuous(low.shape, low.dtype, low, np.float32(1))

    @property
    def actions(self) -> Discrete:
        """Space of actions: an item."""
        return Discrete(self.items)

    @property
    def default_params(self) -> Params:
        """Parameters as the task was constructed."""
        return Params(self.drift, self.sharpness, self.offset, self.steps)

    def reset_env(self, key: Key, params: Params) -> tuple[Array, User]:
        """Draw a user."""
        preference = _unit(draws.normal(key, (self.features,), jnp.float32))
        return jnp.zeros(1 + self.features, jnp.float32), User(preference, jnp.int32(0))

    def step_env(self, key: Key, state: User, action: Array, params: Params) -> Any:
        """Show an item; then the user's taste drifts."""
        click_key, drift_key = draws.split(key)
        chance = self.chances(state, params)
        clicked = draws.bernoulli(click_key, chance[action]).astype(jnp.float32)
        seen = jnp.append(clicked, jnp.asarray(self.catalogue)[action])
        noise = params.drift * draws.normal(drift_key, state.preference.shape, jnp.float32)
        state = User(_unit(state.preference + noise), state.time + 1)
        regret = jnp.max(chance) - chance[action]
        return seen, state, clicked, jnp.bool_(False), {"regret": regret}

    def chances(self, state: User, params: Params) -> Array:
        """Return the chance of a click on every item, float32 [items]."""
        liking = jnp.asarray(self.catalogue) @ state.preference
        return jax.nn.sigmoid(params.sharpness * liking - params.offset)

    def best(self, state: User, params: Params) -> Array:
        """Return the item with the highest chance, int32 []."""
        return jnp.argmax(self.chances(state, params)).astype(jnp.int32)


def _unit(x: Array) -> Array:
    return x / jnp.linalg.norm(x)
