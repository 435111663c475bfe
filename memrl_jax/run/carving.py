"""Runs made of some points of a group: points that are finished, and the groups of a next round."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memrl_jax import points as of_points
from memrl_jax.config import Config
from memrl_jax.points import Group
from memrl_jax.run import experiment, files, history, snapshot, stages, telling
from memrl_jax.run.lanes import NOTHING, Lanes, Varied
from memrl_jax.run.program import Carry, Run
from memrl_jax.run.stages import Stage


def part(stage: Stage, place: Path, group: Group, numbers: Sequence[int]) -> None:
    """Make points of a group runs of their own, and tell the trackers of each."""
    sweep, track = stage.sweep, stage.sweep.run.track
    for number in numbers:
        i, out = group.numbers.index(number), sweep.point(number)
        last = {name: values[i] for name, values in group.varied.items()}
        config = of_points.at(sweep.config, sweep.points[number] | last)
        if not stages.whole(out):
            carve(stage, place, group, out, [i], [i], NOTHING, config)
        name, run = f"{sweep.folder.name}-{out.name}", replace(sweep.run, out=str(out), track=track)
        failed = telling.tell_all(
            name, config, run, out, history.read(out / "metrics.npz"), stage.say
        )
        track = tuple(x for x in track if x not in failed)  # nobody waits for it again


def carve(
    stage: Stage,
    place: Path,
    group: Group,
    out: Path,
    members: Sequence[int],
    source: Sequence[int],
    varied: Varied,
    config: Config,
) -> None:
    """Make a run of some points of a group: of `members`, which go on from the states of `source`.

    They keep their metrics, their keys and, if so asked, their own experience.
    """
    sweep, run = stage.sweep, stage.sweep.run
    shutil.rmtree(out, ignore_errors=True)  # it was begun before the process was killed
    grouped = stages.ending(sweep, group, 0), run, group.varied, None
    carry, about = snapshot.load(place, stage.prepare(*grouped).shapes)
    rows = run.seeds * config.data_parallel  # of a point
    own, taken = (jax.tree.map(_of_points(x, rows), carry) for x in (members, source))
    train = taken.train._replace(key=own.train.key)
    if sweep.rule.own_replay:
        train = train._replace(agent=train.agent._replace(replay=own.train.agent.replay))
    options = Run(**vars(run) | {"out": str(out), "track": () if varied else run.track})
    settings = Lanes(run.seed, run.seeds, varied, config.data_parallel).settings()
    part = Carry(train, taken.sums, settings)
    past = history.of_seeds(history.read(place / "metrics.npz"), _of_points(members, run.seeds))
    experiment.store(config, options, varied, part, past, about.timestep, stage.say)


def _of_points(numbers: Sequence[int], each: int) -> Callable[[Any], Any]:
    """Return a function that takes the rows of these points, `each` of them, from arrays."""
    index = np.concatenate([np.arange(each) + i * each for i in numbers])
    return lambda x: x[index]


def remove(place: Path) -> None:
    """Remove a folder as one: a part of it is never taken for the whole."""
    gone = files.temporary(place)
    os.rename(place, gone)
    files.sync(gone.parent)
    shutil.rmtree(gone)
