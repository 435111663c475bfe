"""Training a sweep: rounds of groups, each group the lanes of one program."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from memrl_jax import points as of_points
from memrl_jax.config import Config, flat
from memrl_jax.points import Group
from memrl_jax.run import experiment, files, folder, history, lock, rounds, snapshot
from memrl_jax.run import sweep as sweeps
from memrl_jax.run.experiment import Prepare, Progress, Report, Say
from memrl_jax.run.lanes import NOTHING, Lanes, Varied
from memrl_jax.run.program import Carry, Program, Run
from memrl_jax.run.sweep import Sweep
from memrl_jax.run.taken import Taken
from memrl_jax.statistics import iqm


class Stage(NamedTuple):
    """A sweep under way, and whom it tells."""

    sweep: Sweep
    prepare: Prepare
    say: Say
    report: Report


def start(sweep: Sweep, say: Say, report: Report) -> bool:
    """Train all seeds at all points; return whether it was finished, not interrupted.

    `say` gets lines of text, `report` the progress over the whole. Raises like `experiment.start`,
    and leaves no folder behind if nothing was trained.
    """
    stage = Stage(sweep, shared(), say, report)
    folder.check_free(str(sweep.folder))
    _tell(stage)

    def fill(new: Path) -> None:
        (new / "groups").mkdir()
        (new / "points").mkdir()
        folder.write(new / sweeps.FILE, sweeps.describe(sweep, new))

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
    with lock.held(sweep.folder, say):
        sweeps.clean(sweep)
        _tell(stage)
        return _train(stage)


def shared() -> Prepare:
    """Return an `experiment.prepared` that compiles once for what differs in floats or length."""
    made: dict[str, Program] = {}

    def prepare(config: Config, run: Run, varied: Varied, first: Taken | None = None) -> Program:
        lanes = Lanes(run.seed, run.seeds, varied)
        fixed = {k: x for k, x in flat(config).items() if k not in (*varied, "total_steps")}
        sizes = lanes.size, run.evaluate_episodes, run.max_gigabytes, [*varied]
        key = json.dumps([fixed, sizes], sort_keys=True)
        if key not in made:
            made[key] = experiment.prepared(config, run, varied, first)
        total = config.total_steps
        return made[key]._replace(config=config, run=run, lanes=lanes, total_steps=total)

    return prepare


def _tell(stage: Stage) -> None:
    """Say how many programs there will be, what they are and how much memory they take."""
    sweep, groups, seeds = stage.sweep, stage.sweep.groups, stage.sweep.run.seeds
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


def _train(stage: Stage) -> bool:
    """Train round by round; return whether all of them were finished."""
    sweep = stage.sweep
    last = len(sweep.budgets) - 1
    while True:
        decided = sweeps.decisions(sweep)
        number = len(decided)
        if number:
            _go_on(stage, decided)
        if not _round(stage, number, decided):
            return False
        if number == last:
            return True
        decided.append(_decide(sweep, number, decided))
        folder.write(sweep.folder / sweeps.ROUNDS, json.dumps(decided, indent=2))


def _groups(sweep: Sweep, decided: Sequence[dict[str, Any]]) -> list[Group]:
    """Return the groups of the round after what was decided, with the points that are left."""
    groups = sweep.groups
    for decision in decided:
        if "varied" in decision:
            groups = [groups[0]._replace(varied=decision["varied"])]
        else:
            groups = [_only(group, decision["points"]) for group in groups]
    return groups


def _only(group: Group, numbers: Sequence[int]) -> Group:
    """Leave out of a group all points but those with these numbers."""
    left = [i for i, number in enumerate(group.numbers) if number in numbers]
    varied = {name: [values[i] for i in left] for name, values in group.varied.items()}
    return group._replace(varied=varied, numbers=[group.numbers[i] for i in left])


def _round(stage: Stage, number: int, decided: Sequence[dict[str, Any]]) -> bool:
    """Train every group up to the end of a round; return whether all got there."""
    sweep = stage.sweep
    for i, group in enumerate(_groups(sweep, decided)):
        place, final = sweep.group(number, i), number == len(sweep.budgets) - 1
        if not group.numbers or (final and _parted(sweep, group) and not place.exists()):
            continue
        stage.say(f"group {i}: {of_points.told(group.fixed) or 'all points'}")
        if not _grouped(stage, number, i, group):
            return False
        if final:
            _part(stage, place, group, group.numbers)
            _remove(place)
    return True


def _parted(sweep: Sweep, group: Group) -> bool:
    return all(_whole(sweep.point(i)) for i in group.numbers)


def _whole(place: Path) -> bool:
    """Tell whether the folder of a run is there with all its files: a checkpoint is the last."""
    return place.exists() and bool(snapshot.checkpoints(place))


def _grouped(stage: Stage, number: int, i: int, group: Group) -> bool:
    """Train the points of a group side by side, from where they stopped if they did."""
    sweep, place = stage.sweep, stage.sweep.group(number, i)
    report = _share(stage, number, i)
    if _whole(place):
        return experiment.resume(str(place), stage.say, report, {}, stage.prepare).finished
    shutil.rmtree(place, ignore_errors=True)
    config, run = _ending(sweep, group, number), Run(**vars(sweep.run) | {"out": str(place)})
    told = stage.say, report
    begun = experiment.start(config, run, *told, None, group.varied, stage.prepare)
    return begun.finished


def _ending(sweep: Sweep, group: Group, number: int) -> Config:
    """Return the config of a group that ends when a round does."""
    return group.config.replace(total_steps=_ends(sweep, group)[number])


def _ends(sweep: Sweep, group: Group) -> list[int]:
    ends = sweep.budgets
    return ends if len(ends) > 1 else [group.config.total_steps]


def _share(stage: Stage, number: int, i: int) -> Report:
    """Return a `report` that counts the progress of a group as a part of the whole."""
    ends = [[0, *_ends(stage.sweep, group)] for group in stage.sweep.groups]
    total = sum(end[-1] for end in ends)
    others = [end[number + 1] if j < i else end[number] for j, end in enumerate(ends) if j != i]

    def report(progress: Progress) -> None:
        done = sum(others) + progress.timesteps
        stage.report(progress._replace(timesteps=done, total_steps=total))

    return report


def _decide(sweep: Sweep, number: int, decided: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Decide, by the last evaluations, how the points go on after a round."""
    groups = _groups(sweep, decided)
    found = [_scores(sweep, number, i, g) for i, g in enumerate(groups) if g.numbers]
    scores = [score for group in found for score in group]
    decision: dict[str, Any] = {"timestep": sweep.budgets[number], "scores": scores}
    if sweep.rule.halve is not None:
        numbers = [n for group in groups for n in group.numbers]
        left = rounds.kept(scores, sweep.rule.halve)
        return decision | {"points": sorted(numbers[i] for i in left)}
    random = np.random.default_rng([sweep.run.seed, number])
    evolved = rounds.evolve(scores, groups[0].varied, sweep.rule.ranges, random)
    return decision | evolved._asdict()


def _scores(sweep: Sweep, number: int, i: int, group: Group) -> list[float]:
    """Return the interquartile mean over seeds of the last evaluation of every point."""
    past = history.read(sweep.group(number, i) / "metrics.npz")
    last = past["evaluation_return"][:, -1].reshape(len(group.numbers), sweep.run.seeds)
    return [float(iqm(x)) for x in last]


def _go_on(stage: Stage, decided: Sequence[dict[str, Any]]) -> None:
    """Make the groups of the next round of those of the last, as was decided."""
    sweep, number = stage.sweep, len(decided)
    before, after = _groups(sweep, decided[:-1]), _groups(sweep, decided)
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        place = sweep.group(number - 1, i)
        if not place.exists():
            continue
        members = [old.numbers.index(n) for n in new.numbers]
        source = decided[-1].get("source", members)
        if new.numbers and not _whole(sweep.group(number, i)):
            out = sweep.group(number, i)
            _carve(stage, place, old, out, members, source, new.varied, _ending(sweep, new, number))
        _part(stage, place, old, [n for n in old.numbers if n not in new.numbers])
        _remove(place)


def _part(stage: Stage, place: Path, group: Group, numbers: Sequence[int]) -> None:
    """Make points of a group runs of their own."""
    for number in numbers:
        i = group.numbers.index(number)
        last = {name: values[i] for name, values in group.varied.items()}
        config = of_points.at(stage.sweep.config, stage.sweep.points[number] | last)
        if not _whole(stage.sweep.point(number)):
            _carve(stage, place, group, stage.sweep.point(number), [i], [i], NOTHING, config)


def _carve(
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
    grouped = _ending(sweep, group, 0), run, group.varied, None
    carry, about = snapshot.load(place, stage.prepare(*grouped).shapes)
    own = jax.tree.map(_lanes(members, run.seeds), carry)
    taken = jax.tree.map(_lanes(source, run.seeds), carry)
    train = taken.train._replace(key=own.train.key)
    if sweep.rule.own_replay:
        train = train._replace(agent=train.agent._replace(replay=own.train.agent.replay))
    options = Run(**vars(run) | {"out": str(out)})
    settings = Lanes(run.seed, run.seeds, varied).settings()
    part = Carry(train, taken.sums, settings)
    past = history.of_seeds(history.read(place / "metrics.npz"), _lanes(members, run.seeds))
    experiment.store(config, options, varied, part, past, about.timestep, stage.say)


def _lanes(numbers: Sequence[int], seeds: int) -> Callable[[Any], Any]:
    """Return a function that takes the lanes of these points from an array [S, ...]."""
    index = np.concatenate([np.arange(seeds) + i * seeds for i in numbers])
    return lambda x: x[index]


def _remove(place: Path) -> None:
    """Remove a folder as one: a part of it is never taken for the whole."""
    gone = files.temporary(place)
    os.rename(place, gone)
    files.sync(gone.parent)
    shutil.rmtree(gone)
