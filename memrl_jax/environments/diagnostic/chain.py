"""bsuite's memory chain: bits seen first have to be repeated at the end."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct

from memrl_jax import checks, draws
from memrl_jax.environments.diagnostic.dials import bound
from memrl_jax.environments.gymnax import from_gymnax
from memrl_jax.environments.interface import Interface
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Array, Environment, Key

# The settings of bsuite's experiments memory_len and memory_size.
LENGTHS = (*range(1, 11), 12, 14, 17, 20, 25, *range(30, 101, 10))
SIZES = (*range(1, 11), 12, 14, 17, 20, 25, 30, 40)
LEARNED = 0.75  # bsuite's bound on the regret relative to guessing


@struct.dataclass
class Params:
    """What may vary between chains without recompiling."""

    length: int | Array  # steps between the bits and the answer, 1 .. longest
    bits: int | Array  # how many are shown, 1 .. widest
    max_steps_in_episode: int


class Chain(NamedTuple):
    """The state of `MemoryChain`."""

    context: Array  # [widest] int32, the bits, 0 or 1
    query: Array  # [] int32, the bit that is asked for
    time: Array  # [] int32


@dataclass(frozen=True)
class MemoryChain(Interface):
    """Say which value the bit had that is asked for at the end (Osband et al., 2020, bsuite).

    Bits are shown at first, and which of them is asked for `length` - 1 steps later. The next
    action answers: 1 for the right value, 0 or 1, and -1 for the wrong one; every other step is
    worth 0. As in bsuite, the first observation is shown twice, so that an episode has `length` + 1
    steps. Observation, float32 [2 + widest]: the share of the time that is left; the number of the
    bit asked for, or 0 before; the bits as -1 and 1, or 0 later. Lengths up to `longest` and
    numbers of bits up to `widest` may be traced; bits that are not used are shown as 0. Raises
    ValueError if either is below 1.
    """

    longest: int = 10
    widest: int = 1

    actions = Discrete(2)

    def __post_init__(self) -> None:
        checks.positive("longest", self.longest)
        checks.positive("widest", self.widest)

    @property
    def observations(self) -> Continuous:
        """Space of observations."""
        shape = (2 + self.widest,)
        low, high = np.full(shape, -1, np.float32), np.ones(shape, np.float32)
        low[:2], high[1] = 0, self.widest - 1
        return Continuous(shape, np.dtype(np.float32), low, high)

    @property
    def default_params(self) -> Params:
        """Parameters of the longest and widest chain."""
        return Params(self.longest, self.widest, self.longest + 1)

    def reset_env(self, key: Key, params: Params) -> tuple[Array, Chain]:
        """Draw the bits and the question."""
        context_key, query_key = draws.split(key)
        context = draws.bernoulli(context_key, shape=(self.widest,)).astype(jnp.int32)
        query = draws.randint(query_key, (), 0, params.bits)
        state = Chain(context, query, jnp.int32(0))
        return self._see(state, params), state

    def step_env(self, key: Key, state: Chain, action: Array, params: Params) -> Any:
        """Wait, or judge the answer; show what the time before this step shows."""
        over = state.time >= params.length
        answer = jnp.where(action == state.context[state.query], 1.0, -1.0)
        observation = self._see(state, params)
        state = state._replace(time=state.time + 1)
        return observation, state, jnp.where(over, answer, 0.0), over, {}

    def is_truncated(self, state: Chain, params: Params) -> Array:
        """Tell whether a time limit shorter than the episode has been reached, [] bool."""
        return (state.time >= params.max_steps_in_episode) & (state.time <= params.length)

    def _see(self, state: Chain, params: Params) -> Array:
        left = 1 - state.time / jnp.float32(params.length)
        query = jnp.where(state.time == params.length - 1, state.query, 0)
        shown = (state.time == 0) & (jnp.arange(self.widest) < params.bits)
        context = jnp.where(shown, 2 * state.context - 1, 0)
        return jnp.concatenate([jnp.stack([left, query]), context]).astype(jnp.float32)


def memory_length(length: int | Array = 10, longest: int | None = None) -> Environment:
    """Make the chain of bsuite's memory_len: one bit, and `length` from 1 to 100 in `LENGTHS`.

    `length` [] may be traced if `longest` says how long it is at most. See `MemoryChain`.
    """
    return from_gymnax(MemoryChain(bound("length", length, "longest", longest)), length=length)


def memory_size(bits: int | Array = 2, widest: int | None = None) -> Environment:
    """Make the chain of bsuite's memory_size: a length of 2, and `bits` from 1 to 40 in `SIZES`.

    `bits` [] may be traced if `widest` says how many there are at most. See `MemoryChain`.
    """
    return from_gymnax(MemoryChain(2, bound("bits", bits, "widest", widest)), bits=bits)


def score(wrong: Any) -> float:
    """Return bsuite's score of an experiment: the share of settings in which something was learned.

    `wrong` [settings] is the share of wrong answers over all episodes of training, of which bsuite
    takes 10,000. Something was learned if that is below `LEARNED` times that of a guess, one half.
    """
    return float(np.mean(np.asarray(wrong) / 0.5 < LEARNED))
