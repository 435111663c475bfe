"""Lanes: every seed at every point of a sweep, side by side in one program."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import parallel, tree
from memrl_jax.types import Array, Key

Varied = Mapping[str, Sequence[float]]  # setting -> its value at every point [P]
NOTHING: Varied = MappingProxyType({})

# First numbers of streams of keys (`parallel.seed_keys`): no two purposes share keys. Training's is
# 0; an EVALUATION during training adds its timestep; the others are `memrl evaluate` and `watch`.
EVALUATION, EVALUATE, WATCH = 1, 2, 3


class Lanes(NamedTuple):
    """The lanes [S] of a program: all seeds of the first point, then all of the next one.

    A lane has a row for each of its shards: states are [R, ...].
    """

    seed: int
    seeds: int
    varied: Varied = NOTHING
    shards: int = 1

    @property
    def points(self) -> int:
        """The number of points; one if nothing varies."""
        return len(next(iter(self.varied.values()))) if self.varied else 1

    @property
    def size(self) -> int:
        """The number of lanes."""
        return self.points * self.seeds

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.size * self.shards

    def keys(self, *stream: int) -> Key:
        """Return a key for every row, [R]: a seed has the same one at all points."""
        keys = parallel.seed_keys(self.seed, self.seeds, *stream)
        keys = keys[jnp.arange(self.size) % self.seeds] if self.varied else keys
        return self.repeated(keys)

    def settings(self) -> dict[str, Array]:
        """Return the settings that vary, [R] each."""
        return {
            name: jnp.asarray(np.repeat(np.asarray(x, np.float32), self.seeds * self.shards))
            for name, x in self.varied.items()
        }

    def repeated(self, xs: Any) -> Any:
        """Return what is for every lane, [S, ...], for every row, [R, ...]."""
        if self.shards == 1:
            return xs
        return jax.tree.map(lambda x: x[jnp.arange(self.rows) // self.shards], xs)

    def first(self, xs: Any) -> Any:
        """Return the first row of every lane, [S, ...], of [R, ...] or more."""
        return tree.at(xs, slice(0, self.rows, self.shards))

    def joined(self, x: Any) -> Any:
        """Return what the rows of a lane have one after another, [S, shards x n], of [R, n]."""
        return x[: self.rows].reshape(self.size, -1)

    def pad(self, states: Any) -> Any:
        """Shard states [R, ...] over the devices, padded."""
        return parallel.pad(states, self.size, self.shards)

    def told(self, lane: int) -> str:
        """Name the seed of a lane, and its settings."""
        point, seed = divmod(lane, self.seeds)
        varied = [f"{name} = {x[point]:g}" for name, x in self.varied.items()]
        return f"seed {seed}{' with ' * bool(varied)}{', '.join(varied)}"
