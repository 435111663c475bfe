"""Sweeps in memory: all points and seeds side by side, one compile for what differs in floats."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from memrl_jax import checks, parallel, points
from memrl_jax.build import make_train
from memrl_jax.config import Config
from memrl_jax.points import Group, Range
from memrl_jax.run.lanes import Lanes
from memrl_jax.train import Metrics, TrainState
from memrl_jax.types import Array, Key


class Trained(NamedTuple):
    """All seeds at one point of a sweep."""

    point: Mapping[str, Any]  # setting -> value
    state: TrainState  # [seeds, ...]
    metrics: Metrics  # [seeds, 1 + steps] each, as of `make_train`


def sweep(
    config: Config,
    vary: Mapping[str, Sequence[Any] | Range | str],
    seeds: int = 1,
    seed: int = 0,
    draws: int = 1,
) -> list[Trained]:
    """Train `seeds` seeds at every combination of values, and return them in that order.

    `vary` maps settings, or options such as `memory_args.features`, to their values: a list, a
    `Range` or what the command line takes, such as "log:1e-5..1e-2"; each range is drawn from
    `draws` times, with `seed`. Points that differ in floats alone share a program, spread over the
    devices as `memrl train` spreads its seeds, and a seed has the same key at all points.
    Raises ValueError for settings out of range at any of the points, before anything is compiled.
    """
    checks.positive("seeds", seeds)
    read = {k: points.values(k, x) if isinstance(x, str) else x for k, x in vary.items()}
    found = points.grid(read, draws, seed)
    for point in found:
        make_train(points.at(config, point))
    trained = {
        number: x
        for group in points.groups(config, found)
        for number, x in zip(group.numbers, _group(group, seeds, seed), strict=True)
    }
    return [Trained(point, *trained[number]) for number, point in enumerate(found)]


def _group(group: Group, seeds: int, seed: int) -> list[tuple[TrainState, Metrics]]:
    """Train the points of a group in one program; return states and metrics [seeds] of each."""
    lanes = Lanes(seed, seeds, group.varied)

    def train(x: tuple[Key, dict[str, Array]]) -> tuple[TrainState, Metrics]:
        key, varied = x
        return make_train(group.config.replace(**varied))(key)

    every = parallel.over_seeds(train, lanes.size)
    done = every(parallel.pad((lanes.keys(), lanes.settings()), lanes.size))
    parts = [slice(i * seeds, (i + 1) * seeds) for i in range(lanes.points)]
    return [jax.tree.map(lambda x: x[part], done) for part in parts]  # noqa: B023
