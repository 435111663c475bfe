"""Gymnasium's autoreset modes, told apart: one stream of timesteps from any vector environment.

In this stream an episode's true last observation is a timestep of its own, and the step after it
begins the next episode. That is what the next-step mode does. Where the next episode begins in the
same step, or is left to the user (disabled), a copy whose episode is over can only be stepped along
with the others: its first step is thrown away, and the copy is reset once more.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from memrl_jax import tree


class Seen(NamedTuple):
    """What is seen in B copies, in arrays that nobody else writes to."""

    observation: Any  # [B, ...] in our types
    mask: Any  # [B, n] bool: actions said to be allowed; () if there are no masks


class Arrived(NamedTuple):
    """What a step of B copies leads to."""

    seen: Seen
    reward: Any  # [B]
    terminated: Any  # [B] bool
    truncated: Any  # [B] bool
    start: Any  # [B] bool: an episode begins here


def stream(
    vector: Any, mode: str, ours: Callable[[Any], Any], mask: Callable[[dict[str, Any]], Any]
) -> tuple[Callable[[int], Arrived], Callable[[Any], Arrived]]:
    """Return `reset(seed)` and `step(actions)` of the stream, both `Arrived` [B].

    `mode` is one of gymnasium's: NextStep, SameStep or Disabled; `ours` converts observations [...]
    of theirs, `mask` reads B masks from an info. Steps raise ValueError for a vector environment
    that gives no `final_obs` in same-step mode, or that does not keep to `reset_mask`.
    """
    over = np.zeros(vector.num_envs, bool)

    def reset(seed: int) -> Arrived:
        over[:] = False
        observation, info = vector.reset(seed=seed)
        seen = Seen(ours(observation), mask(info))
        return Arrived(seen, np.zeros(len(over)), np.copy(over), np.copy(over), ~over)

    def begin(rows: np.ndarray) -> Seen:
        observation, info = vector.reset(options={"reset_mask": rows.copy()})
        return Seen(ours(observation), mask(info))

    def finish(seen: Seen, rows: np.ndarray, info: dict[str, Any]) -> Seen:
        if "final_obs" not in info:
            raise ValueError("is in same-step mode and tells no final_obs")
        seen = jax.tree.map(np.copy, seen)
        for row in np.flatnonzero(rows):
            _write(seen.observation, row, ours(info["final_obs"][row]))
        _write(seen.mask, rows, tree.at(mask(info.get("final_info", {})), rows))
        return seen

    def step(action: Any) -> Arrived:
        start = over.copy()
        if mode == "Disabled" and start.any():
            begin(start)  # it may not be stepped otherwise
        observation, reward, terminated, truncated, info = vector.step(action)
        seen = stepped = Seen(ours(observation), mask(info))
        terminated, truncated = terminated & ~start, truncated & ~start
        over[:] = terminated | truncated
        if mode == "SameStep" and over.any():
            seen = finish(seen, over, info)
        if mode != "NextStep" and start.any():
            again = begin(start)
            _check_others(stepped.observation, again.observation, ~start)
            _write(seen, start, tree.at(again, start))
        return Arrived(seen, np.where(start, 0, reward), terminated, truncated, start)

    return reset, step


def _check_others(before: Any, after: Any, rows: np.ndarray) -> None:
    """Raise ValueError unless observations are the same in `rows` [B]."""
    for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        if not np.array_equal(x[rows], y[rows], equal_nan=x.dtype.kind == "f"):
            raise ValueError("does not keep to reset_mask: copies were reset that were not named")


def _write(into: Any, rows: Any, x: Any) -> None:
    """Write `x` into some rows of arrays."""
    for array, part in zip(jax.tree.leaves(into), jax.tree.leaves(x), strict=True):
        array[rows] = part
