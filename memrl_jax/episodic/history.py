"""The timesteps before a segment, for returns that are known only later.

A segment ends in the middle of episodes. What was done is kept, in time order, until all rewards
that its return has are there: at the end of the episode, or after n steps. All is exact, whatever
the segments' lengths.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax import tree
from memrl_jax.episodic.tables import Tables, write
from memrl_jax.types import Array, TimeStep


class Lookup(NamedTuple):
    """What acting looked up, and learning takes from there."""

    key: Array  # [B, D] float32
    value: Array  # [B] float32, of the best legal action


class Acted(NamedTuple):
    """A timestep, what was done there, its key and how good it seemed."""

    timestep: TimeStep  # [T, B, ...]
    action: Array  # [T, B] int32
    key: Array  # [T, B, D] float32
    value: Array  # [T, B] float32, of the best legal action


def begin(example: Acted, steps: int) -> Acted:
    """Return the history of `steps` timesteps before the first one, from an example [B, ...].

    Nothing was done there, for all are `last`.
    """
    return forget(jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype), example))


def forget(history: Acted) -> Acted:
    """Drop what is not completed, e.g. because its keys mean nothing any more."""
    last = jnp.ones_like(history.timestep.last)
    return history._replace(timestep=history.timestep._replace(last=last))


def join(history: Acted, acted: Acted) -> tuple[Acted, Acted]:
    """Put T timesteps behind a history of S: both of them [S + T, B, ...], and the new history."""
    both = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), history, acted)
    steps = acted.action.shape[0]
    return both, tree.at(both, slice(steps, None))


def completed(last: Array, new: int, n: int) -> Array:
    """Tell which returns of up to n steps are known since the latest `new` of R timesteps.

    From `last` [R, B]: whether the action of each timestep but the latest, [R - 1, B], has its n
    steps or its episode's end among the new ones, and among the old ones neither. What is done at a
    `last` timestep has no return.
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
    """Write what was done and is completed by the latest `new` of R timesteps, the oldest first.

    `returns` [R - 1, B] are of up to `n` steps. Also returns which are written, [R - 1, B].
    """
    valid = completed(acted.timestep.last, new, n)
    entries = acted.action[:-1], acted.key[:-1], returns, valid
    action, key, value, valid = (x.reshape(-1, *x.shape[2:]) for x in entries)
    return write(tables, action, key, value, valid, merge), entries[3]
