"""Environments with known values, which every agent has to solve in seconds.

Each asks for one thing more than the one before it: that values are learned at all, that they
depend on what is seen, that they are discounted, that actions matter, that they do as seen, and
that something is remembered. All probes for one kind of action have the same shapes, and what
tells them apart may be traced: one program trains on all of them at once.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import spaces, tree
from memrl_jax.environments import Arrival, episodic
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Array, Environment, Key

STEPS = 3  # of the longest episode
BRIBE = 10.0  # what an illegal action pays


class Probe(NamedTuple):
    """An episode of `length` steps; the reward comes with the last one. Cues are 0 and 1."""

    length: Any  # [] int32
    cued: Any  # [] bool: either cue is as likely, and seen at the first step; otherwise it is 1
    pays: Any  # [2] float32: what the end pays with each cue, if all actions there are right
    acts: Any  # [] bool: whether it matters which they are; wrong ones pay -1


def _probe(length: int, cued: bool, pays: tuple[float, float], acts: bool = False) -> Probe:
    return Probe(np.int32(length), np.bool_(cued), np.array(pays, np.float32), np.bool_(acts))


PROBES = {
    "constant": _probe(1, False, (1, 1)),
    "seen": _probe(1, True, (-1, 1)),
    "later": _probe(STEPS, False, (-1, -1)),  # below what untrained values are: see `KINDS`
    "acted": _probe(1, False, (1, 1), acts=True),
    "both": _probe(1, True, (1, 1), acts=True),
    "remembered": _probe(STEPS, True, (1, 1), acts=True),
}

# The actions there are. Of four numbers one is illegal, which one depends on the cue; it would pay
# most, ends the episode and is counted, and its value is never learned, so that an agent that
# maximises over it finds more than the -1 that comes in "later".
KINDS: dict[str, Any] = {
    "discrete": Discrete(3),
    "multi-discrete": (Discrete(2), Discrete(3)),
    "masked": Discrete(4),
    "masked multi-discrete": (Discrete(2), {"dial": Discrete(4)}),
    "continuous": Continuous((2,), jnp.dtype(jnp.float32), -1.0, 1.0),
}


class State(NamedTuple):
    """The state of a probe."""

    cue: Array  # [] int32
    time: Array  # [] int32
    illegal: Array  # [] int32: illegal actions ever taken, in all episodes


def environment(probe: Probe, kind: str) -> Environment:
    """Make an environment of a probe for a kind of actions; `probe` may be traced.

    Observations are one integer: 0 or 1 where the cue is seen, else 2 + the steps taken. Right is,
    of every discrete action, the number of the cue, and a continuous one of 0.5 for cue 1 and -0.5
    for cue 0. Several actions pay the mean of what each would: 1 or -1, and 1 - distance ** 2 for a
    continuous one.
    """
    actions = KINDS[kind]
    probe = jax.tree.map(jnp.asarray, probe)

    def first(key: Key) -> tuple[State, Array]:
        cue = jnp.where(probe.cued, jax.random.bernoulli(key), True).astype(jnp.int32)
        state = State(cue, jnp.int32(0), jnp.int32(0))
        return state, observe(state)

    def restart(key: Key, state: State) -> tuple[State, Array]:
        fresh = first(key)[0]._replace(illegal=state.illegal)
        return fresh, observe(fresh)

    def observe(state: State) -> Array:
        return jnp.where(probe.cued & (state.time == 0), state.cue, 2 + state.time)

    def legal(state: State) -> Any:
        return spaces.over(lambda part: _mask(part, state.cue), actions)

    def step(key: Key, state: State, action: Any) -> Arrival:
        illegal = _any(spaces.over(_forbidden, actions, legal(state), action))
        score = spaces.over(lambda part, a: _score(part, state.cue, a), actions, action)
        score = jnp.mean(jnp.stack(jax.tree.leaves(score)))
        after = State(state.cue, state.time + 1, tree.count(state.illegal, illegal))
        ends = after.time == probe.length
        earned = jnp.where(ends, jnp.where(probe.acts, score, 1.0) * probe.pays[state.cue], 0.0)
        reward = jnp.where(illegal, BRIBE, earned)
        return Arrival(after, observe(after), reward, ends | illegal, False)

    masks = legal if kind.startswith("masked") else None
    return episodic(first, step, Discrete(3 + STEPS), actions, STEPS, masks, restart=restart)


def value(probe: Probe, cue: Any, time: Any, discount: float) -> Any:
    """Return what the best policy earns from `time` on, discounted; arrays of any shape."""
    return probe.pays[cue] * discount ** (probe.length - 1 - time)


def _mask(space: Any, cue: Array) -> Any:
    if not isinstance(space, Discrete):
        return ()
    return (jnp.arange(space.n) != cue + 2) | (space.n < 4)


def _forbidden(space: Any, mask: Any, action: Array) -> Array:
    return ~mask[action] if isinstance(space, Discrete) else jnp.bool_(False)


def _any(flags: Any) -> Array:
    return jnp.any(jnp.stack(jax.tree.leaves(flags)))


def _score(space: Any, cue: Array, action: Array) -> Array:
    if isinstance(space, Discrete):
        return jnp.where(action == cue, 1.0, -1.0)
    distance = jnp.clip(action, space.low, space.high) - (cue - 0.5)
    return jnp.mean(1 - jnp.square(distance))
