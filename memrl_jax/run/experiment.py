"""Training runs on disk: begun, resumed, stored."""

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

from memrl_jax import checks
from memrl_jax.build import make_environment
from memrl_jax.config import Config, from_json, plain, to_json
from memrl_jax.environments import check, on_host
from memrl_jax.run import (
    folder,
    history,
    loop,
    measured,
    processes,
    saved,
    snapshot,
    software,
    taken,
    trackers,
)
from memrl_jax.run.history import History
from memrl_jax.run.lanes import NOTHING, Varied
from memrl_jax.run.loop import Report, Result, Say
from memrl_jax.run.preparing import Prepare, prepared
from memrl_jax.run.program import Carry, Program, Run, spacings
from memrl_jax.run.taken import Taken
from memrl_jax.run.telling import Tell, telling


def start(
    config: Config,
    run: Run,
    say: Say,
    report: Report,
    first: Taken | None = None,
    varied: Varied = NOTHING,
    prepare: Prepare = prepared,
) -> Result:
    """Train all seeds of a new run, which begins with parameters of another if `first` has any.

    Or of several runs that differ in floats, in `varied`: see `make_program`.

    `say` gets lines of text, `report` the progress after every chunk. Where there are several
    processes (`jax.distributed`), all of them call this alike, and the first one writes the folder,
    on a file system that they share. Raises ValueError for settings out of range and for parameters
    of other shapes, and MemoryError if the memory does not suffice, and then leaves no folder
    behind; later FloatingPointError if a reward or a loss is not finite.
    """
    config = from_json(to_json(config))  # train exactly what config.json will say
    if run.taken is not None:
        raise ValueError(f"taken: {checks.shown(run.taken)} is what `first` tells, and not given")
    run = Run(**{name: plain(name, x) for name, x in vars(run).items()})
    run = dataclasses.replace(run, taken=first.record if first else None)
    program = prepare(config, run, varied, first)
    trackers.check(run.track)
    processes.check_same("settings", [to_json(config), vars(run), dict(varied)])
    if processes.leads():
        folder.check_free(run.out)
    program.trace()
    if not on_host(config.environment):
        check(make_environment(config), jax.random.key(run.seed), name=config.environment)
    options = vars(run) | spacings(run, config.total_steps)
    more = partial(taken.save, taken=first)
    made = folder.created(run.out, config, options, varied, say, more)
    with (
        made if processes.leads() else nullcontext(Path(run.out)) as place,
        _telling(program, place, {}, say) as tell,
    ):
        say(program.estimate)
        carry = _first(program, place, first)
        return loop.train(program, place, carry, program.first_step, {}, say, report, tell)


def resume(
    path: str,
    say: Say,
    report: Report,
    changes: Mapping[str, Any] = MappingProxyType({}),
    prepare: Prepare = prepared,
) -> Result:
    """Resume a run from its last checkpoint, as if it had never stopped.

    Environments on the host begin new episodes, those under way count as truncated, and `say` is
    told so. `changes` are new values of settings in `folder.CHANGEABLE`, on which no number of the
    training depends. Raises like `start`, and ValueError if the folder or its files cannot be read,
    are not those of one run, or are being written by another process.
    """
    locked = folder.held(path, say) if processes.leads() else nullcontext(Path(path))
    with locked as place:
        _, config, run = saved.opened(path)
        config, run, changed = _changed(config, run, changes)
        trackers.check(run.track)
        program = prepare(config, run, folder.varied(place), None)
        anew = not snapshot.checkpoints(place) and not history.read(place / "metrics.npz")
        if anew:  # it was killed before its first checkpoint
            first = _kept(program, place)
            program = prepared(config, run, first=first) if first else program
            _first(program, place, first)
        carry, about = saved.load(program, place)
        if program.total_steps < about.timestep:
            done = f"{about.timestep}, the timesteps that are done"
            raise ValueError(f"total_steps: {program.total_steps} is below {done}")
        past = snapshot.measured(place, about)
        processes.check_same("settings", [to_json(config), vars(run), about])
        if processes.leads():
            _tidied(program, place, past, about.timestep, changed)
        say(f"{program.estimate}; going on from timestep {about.timestep:,}")
        if program.lost and not anew:
            say(program.lost)
        if others := software.changed(place):
            say(f"begun with others, so that numbers may differ: {', '.join(others)}")
        with _telling(program, place, past, say) as tell:
            return loop.train(program, place, carry, about.timestep, past, say, report, tell)


def _tidied(
    program: Program, place: Path, past: History, timestep: int, changed: dict[str, Any]
) -> None:
    """Bring a folder to where its last checkpoint is, and enter what was changed."""
    measured.cut_log(place, past, timestep)
    snapshot.remove_old(place)
    if changed:
        entries = [*folder.changes(place), {"timestep": timestep, "changed": changed}]
        run, varied = vars(program.run), program.lanes.varied
        folder.describe(place, program.config, run, varied, entries)


def _telling(
    program: Program, place: Path, past: History, say: Say
) -> AbstractContextManager[Tell]:
    """Tell trackers of a run, from the first process."""
    if processes.leads():
        return telling(program.config, program.run, place, past, say)
    return nullcontext(lambda past: None)


def _changed(
    config: Config, run: Run, changes: Mapping[str, Any]
) -> tuple[Config, Run, dict[str, Any]]:
    """Return the config and options with `changes`, and what differs: name -> [before, after]."""
    for name in changes:
        folder.check_changeable(name)
    given = vars(run) | spacings(run, config.total_steps) | {"total_steps": config.total_steps}
    before = {name: plain(name, x) for name, x in given.items()}
    after = before | {name: plain(name, x) for name, x in changes.items()}
    changed = {name: [before[name], x] for name, x in after.items() if before[name] != x}
    config = config.replace(total_steps=after.pop("total_steps"))
    return config, Run(**after), changed


def _kept(program: Program, place: Path) -> Taken | None:
    """Return the parameters that a run in a folder begins with, if it took any."""
    if program.run.taken is None:
        return None
    agents = jax.eval_shape(program.lanes.first, program.shapes.train.agent)
    shapes = jax.eval_shape(jax.vmap(program.params), agents)
    return taken.load(place, program.run.taken, shapes)


def _first(program: Program, place: Path, first: Taken | None) -> Carry:
    """Compile, warm up all seeds and save the first checkpoint."""
    loop.compiled(program)
    lanes = program.lanes
    params = lanes.repeated(first.params) if first else None
    carry = program.init(lanes.pad((lanes.keys(), lanes.settings(), params)))
    loop.save_checkpoint(program, place, program.first_step, carry, {})
    return carry


def store(
    config: Config,
    run: Run,
    varied: Varied,
    carry: Carry,
    past: History,
    timestep: int,
    say: Say,
) -> None:
    """Make the folder of a run that was trained up to a timestep as a part of another.

    One process does, even if several trained it.
    """
    options = vars(run) | spacings(run, config.total_steps)
    with folder.created(run.out, config, options, varied, say, lambda _: None) as place:
        measured.record(place, past)
        snapshot.store(place, timestep, carry, folder.settings(config, vars(run), varied), past)
