"""A sweep under way: whom it tells, what it has compiled, and when its groups end."""

import json
from pathlib import Path
from typing import NamedTuple

from memrl_jax.config import Config, flat
from memrl_jax.points import Group
from memrl_jax.run import preparing, snapshot
from memrl_jax.run.lanes import Lanes, Varied
from memrl_jax.run.loop import Report, Say
from memrl_jax.run.preparing import Prepare
from memrl_jax.run.program import Program, Run
from memrl_jax.run.sweep import Sweep
from memrl_jax.run.taken import Taken


class Stage(NamedTuple):
    """A sweep under way, and whom it tells."""

    sweep: Sweep
    prepare: Prepare
    say: Say
    report: Report


def shared() -> Prepare:
    """Return a `preparing.prepared` that compiles once for what differs in floats or length."""
    made: dict[str, Program] = {}

    def prepare(config: Config, run: Run, varied: Varied, first: Taken | None = None) -> Program:
        lanes = Lanes(run.seed, run.seeds, varied, config.data_parallel)
        fixed = {k: x for k, x in flat(config).items() if k not in (*varied, "total_steps")}
        sizes = lanes.size, run.evaluate_episodes, run.max_gigabytes, [*varied]
        key = json.dumps([fixed, sizes], sort_keys=True)
        if key not in made:
            made[key] = preparing.prepared(config, run, varied, first)
        total = config.total_steps
        program = made[key]._replace(config=config, run=run, lanes=lanes, total_steps=total)
        return program._replace(strict=False)  # a point that diverges ends alone

    return prepare


def ending(sweep: Sweep, group: Group, number: int) -> Config:
    """Return the config of a group that ends when a round does."""
    return group.config.replace(total_steps=ends(sweep, group)[number])


def ends(sweep: Sweep, group: Group) -> list[int]:
    """Return the timesteps at which the rounds of a group end."""
    budgets = sweep.budgets
    return budgets if len(budgets) > 1 else [group.config.total_steps]


def whole(place: Path) -> bool:
    """Tell whether the folder of a run is there with all its files: a checkpoint is the last."""
    return place.exists() and bool(snapshot.checkpoints(place))
