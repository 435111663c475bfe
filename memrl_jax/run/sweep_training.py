"""Training a sweep: its folder, which one process writes, and what is said before it begins."""

import shutil
from contextlib import nullcontext
from pathlib import Path

import jax

from memrl_jax import parallel
from memrl_jax import points as of_points
from memrl_jax.run import files, folder, group_training, lock, processes, search_training
from memrl_jax.run import sweep as sweeps
from memrl_jax.run.loop import Report, Say
from memrl_jax.run.stages import Stage, shared
from memrl_jax.run.sweep import Sweep


def start(sweep: Sweep, say: Say, report: Report) -> bool:
    """Train all seeds at all points; return whether it was finished, not interrupted.

    `say` gets lines of text, `report` the progress over the whole. Several processes call this
    alike. Raises like `experiment.start`, and leaves no folder behind if nothing was trained.
    """
    stage = Stage(sweep, shared(), say, report)
    processes.check_same("settings", sweeps.describe(sweep))
    if processes.leads():
        folder.check_free(str(sweep.folder))
    _tell(stage)
    if not processes.leads():
        return _train(stage)

    def fill(new: Path) -> None:
        (new / "groups").mkdir()
        (new / "points").mkdir()
        files.write(new / sweeps.FILE, sweeps.describe(sweep))

    with folder.made(str(sweep.folder), fill, say) as place:
        try:
            return _train(stage)
        except BaseException:
            if not any(any((place / part).iterdir()) for part in ("groups", "points")):
                shutil.rmtree(place, ignore_errors=True)
            raise


def resume(sweep: Sweep, say: Say, report: Report) -> bool:
    """Go on with a sweep as if it had never stopped; raises ValueError if it cannot be read."""
    stage = Stage(sweep, shared(), say, report)
    processes.check_same("settings", sweeps.describe(sweep))
    with lock.held(sweep.folder, say) if processes.leads() else nullcontext():
        if processes.leads():
            sweeps.clean(sweep)
        _tell(stage)
        return _train(stage)


def _train(stage: Stage) -> bool:
    search = stage.sweep.search
    return search_training.train(stage, search) if search else group_training.train(stage)


def _tell(stage: Stage) -> None:
    """Say how many programs there will be, what they are and how much memory they take."""
    if search := stage.sweep.search:
        stage.say(f"{search.trials} trials, {search.at_once} at once; of these:")
        stage = stage._replace(sweep=search_training.sample(stage.sweep, search))
    sweep, groups, seeds = stage.sweep, stage.sweep.groups, stage.sweep.run.seeds
    _check_halves(sweep)
    stage.say(
        f"{len(sweep.points)} points x {seeds} seeds = {len(sweep.points) * seeds} lanes in "
        f"{len(groups)} group{'s' * (len(groups) > 1)}, one compile each"
    )
    for number, group in enumerate(groups):
        program = stage.prepare(group.config, sweep.run, group.varied, None)
        varied = ", ".join(f"{len(x)} x {name}" for name, x in group.varied.items())
        what = "; ".join(x for x in (of_points.told(group.fixed), varied) if x)
        stage.say(f"group {number}: {what}: {program.estimate}")
    if len(sweep.budgets) > 1:
        stage.say(f"rounds end after {', '.join(f'{x:,}' for x in sweep.budgets)} timesteps")


def _check_halves(sweep: Sweep) -> None:
    """Raise ValueError if halving may leave a process without a device that has a lane."""
    if sweep.rule.halve is None:
        return
    for left in range(1, len(sweep.points) + 1):
        where = parallel.mesh(left * sweep.run.seeds, sweep.config.data_parallel)
        if len({device.process_index for device in where.devices.flat}) < jax.process_count():
            lanes = f"{left} x {sweep.run.seeds} lanes on {where.size} devices"
            said = f"may leave {lanes}, too few for {jax.process_count()} processes"
            raise ValueError(f"halve: {sweep.rule.halve} {said}")
