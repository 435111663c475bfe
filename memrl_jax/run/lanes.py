"""Lanes: every seed at every point of a sweep, side by side in one program."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from memrl_jax import parallel
from memrl_jax.types import Array, Key

Varied = Mapping[str, Sequence[float]]  # setting -> its value at every point [P]
NOTHING: Varied = MappingProxyType({})


class Lanes(NamedTuple):
    """The lanes [S] of a program: all seeds of the first point, then all of the next one."""

    seed: int
    seeds: int
    varied: Varied = NOTHING

    @property
    def points(self) -> int:
        """The number of points; one if nothing varies."""
        return len(next(iter(self.varied.values()))) if self.varied else 1

    @property
    def size(self) -> int:
        """The number of lanes."""
        return self.points * self.seeds

    def keys(self, *stream: int) -> Key:
        """Return a key for every lane, [S]: a seed has the same one at all points."""
        keys = parallel.seed_keys(self.seed, self.seeds, *stream)
        return keys[jnp.arange(self.size) % self.seeds] if self.varied else keys

    def settings(self) -> dict[str, Array]:
        """Return the settings that vary, [S] each."""
        return {
            name: jnp.asarray(np.repeat(np.asarray(x, np.float32), self.seeds))
            for name, x in self.varied.items()
        }

    def told(self, lane: int) -> str:
        """Name the seed of a lane, and its settings."""
        point, seed = divmod(lane, self.seeds)
        varied = [f"{name} = {x[point]:g}" for name, x in self.varied.items()]
        return f"seed {seed}{' with ' * bool(varied)}{', '.join(varied)}"
