"""The timesteps before a segment, for returns that are known only later.

A segment may end in the middle of episodes. Every action is kept, in time order, until all rewards
of its return have arrived: at the end of the episode, or after n steps. Returns are exact, whatever
the segments' lengths.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax import tree
from memrl_jax.episodic.tables import Tables, write
from memrl_jax.types import Array, State, TimeStep


class Lookup(NamedTuple):
    """What the agent looked up when it acted, kept for learning."""

    key: Array  # [B, D] float32
    value: Array  # [B] float32, of the best legal action


class Acted(NamedTuple):
    """Timesteps, the actions taken there, their keys, and the values estimated when acting."""

    timestep: TimeStep  # [T, B, ...]
    action: Array  # [T, B] int32
    key: Array  # [T, B, D] float32
    value: Array  # [T, B] float32, of the best legal action
    memory: State = ()  # [T, B, ...] the actor's before each timestep; () if not needed


def begin(example: Acted, steps: int) -> Acted:
    """Return an empty history, [steps, B, ...], with fields like those of an example [B, ...].

    All its timesteps are `last`, so the actions there do not count.
    """
    return forget(jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype), example))


def forget(history: Acted) -> Acted:
    """Drop actions whose returns are not known yet, e.g. because their keys are out of date."""
    last = jnp.ones_like(history.timestep.last)
    return history._replace(timestep=history.timestep._replace(last=last))


def join(history: Acted, acted: Acted) -> tuple[Acted, Acted]:
    """Append T timesteps to a history of S: return all [S + T, B, ...], and the last S of them."""
    both = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), history, acted)
    steps = acted.action.shape[0]
    return both, tree.at(both, slice(steps, None))


def completed(last: Array, new: int, n: int) -> Array:
    """Tell which returns of up to n steps become known with the latest `new` of R timesteps.

    Takes `last` [R, B]; returns bool [R - 1, B] for the actions at all timesteps but the latest:
    whether the timestep n steps later, or the episode's end if that comes first, is a new one. An
    action at a `last` timestep has no return.
    """
    rows = last.shape[0]
    time = jnp.arange(rows, dtype=jnp.int32)[:, None]
    end = jax.lax.cummin(jnp.where(last, time, rows), axis=0, reverse=True)[1:]
    known = jnp.minimum(time[:-1] + n, end)
    return ~last[:-1] & (rows - new <= known) & (known < rows)


def remember(
    tables: Tables,
    acted: Acted,
    returns: Array,
    new: int,
    n: int,
    merge: Callable[[Array, Array], Array],
) -> tuple[Tables, Array]:
    """Write the actions whose returns the latest `new` of R timesteps complete, the oldest first.

    `returns` [R - 1, B] are of up to `n` steps. Also returns which were written, bool [R - 1, B].
    """
    valid = completed(acted.timestep.last, new, n)
    entries = acted.action[:-1], acted.key[:-1], returns, valid
    action, key, value, valid = (x.reshape(-1, *x.shape[2:]) for x in entries)
    return write(tables, action, key, value, valid, merge), entries[3]
