"""Training the groups of a sweep, each the lanes of one program, round by round.

Of several processes, all train, and the first one decides what is next and writes folders.
"""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from memrl_jax import points as of_points
from memrl_jax.points import Group
from memrl_jax.run import carving, experiment, files, history, rounds, stages
from memrl_jax.run import sweep as sweeps
from memrl_jax.run.loop import Progress, Report
from memrl_jax.run.processes import by_first
from memrl_jax.run.stages import Stage
from memrl_jax.run.sweep import Sweep


def train(stage: Stage) -> bool:
    """Train round by round; return whether all of them were finished."""
    sweep = stage.sweep
    last = len(sweep.budgets) - 1
    while True:
        decided = by_first(partial(sweeps.decisions, sweep))
        number = len(decided)
        if number:
            by_first(partial(_go_on, stage, decided))
        if not _round(stage, number, decided):
            return False
        if number == last:
            return True
        by_first(partial(_decide, sweep, number, decided))


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
        if not group.numbers or (final and by_first(partial(_parted, sweep, place, group))):
            continue
        stage.say(f"group {i}: {of_points.told(group.fixed) or 'all points'}")
        if not _grouped(stage, number, i, group):
            return False
        if final:
            by_first(partial(_part, stage, place, group, group.numbers))
    return True


def _parted(sweep: Sweep, place: Path, group: Group) -> bool:
    """Tell whether the group in a folder has become runs of its points, and is gone."""
    return not place.exists() and all(stages.whole(sweep.point(i)) for i in group.numbers)


def _part(stage: Stage, place: Path, group: Group, numbers: Sequence[int]) -> None:
    """Make these points of the group in a folder runs of their own, and remove it."""
    carving.part(stage, place, group, numbers)
    carving.remove(place)


def _grouped(stage: Stage, number: int, i: int, group: Group) -> bool:
    """Train the points of a group side by side, from where they stopped if they did."""
    sweep, place = stage.sweep, stage.sweep.group(number, i)
    report = _share(stage, number, i)
    if by_first(partial(_begun, place)):
        return experiment.resume(str(place), stage.say, report, {}, stage.prepare).finished
    config, run = stages.ending(sweep, group, number), replace(sweep.run, out=str(place), track=())
    told = stage.say, report
    begun = experiment.start(config, run, *told, None, group.varied, stage.prepare)
    return begun.finished


def _begun(place: Path) -> bool:
    """Tell whether a folder can be gone on from; if not, remove what there is of it."""
    whole = stages.whole(place)
    if not whole:
        shutil.rmtree(place, ignore_errors=True)
    return whole


def _share(stage: Stage, number: int, i: int) -> Report:
    """Return a `report` that counts the progress of a group as a part of the whole."""
    ends = [[0, *stages.ends(stage.sweep, group)] for group in stage.sweep.groups]
    total = sum(end[-1] for end in ends)
    others = [end[number + 1] if j < i else end[number] for j, end in enumerate(ends) if j != i]

    def report(progress: Progress) -> None:
        done = sum(others) + progress.timesteps
        stage.report(progress._replace(timesteps=done, total_steps=total))

    return report


def _decide(sweep: Sweep, number: int, decided: Sequence[dict[str, Any]]) -> None:
    """Decide how the points go on after a round, and write it down."""
    every = [*decided, _decision(sweep, number, decided)]
    files.write(sweep.folder / sweeps.ROUNDS, json.dumps(every, indent=2))


def _decision(sweep: Sweep, number: int, decided: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Decide by the last evaluations of a round."""
    groups = _groups(sweep, decided)
    found = [_scores(sweep, number, i, g) for i, g in enumerate(groups) if g.numbers]
    scores = [score for group in found for score in group]
    told = [None if score == -math.inf else score for score in scores]
    decision: dict[str, Any] = {"timestep": sweep.budgets[number], "scores": told}
    if sweep.rule.halve is not None:
        numbers = [n for group in groups for n in group.numbers]
        left = rounds.kept(scores, sweep.rule.halve)
        return decision | {"points": sorted(numbers[i] for i in left)}
    random = np.random.default_rng([sweep.run.seed, number])
    evolved = rounds.evolve(scores, groups[0].varied, sweep.rule.ranges, random)
    return decision | evolved._asdict()


def _scores(sweep: Sweep, number: int, i: int, group: Group) -> list[float]:
    """Return the score of the last evaluation of every point."""
    past = history.read(sweep.group(number, i) / "metrics.npz")
    last = past["evaluation_return"][:, -1].reshape(len(group.numbers), sweep.run.seeds)
    return [sweeps.score(x) for x in last]


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
        if new.numbers and not stages.whole(sweep.group(number, i)):
            out = sweep.group(number, i)
            config = stages.ending(sweep, new, number)
            carving.carve(stage, place, old, out, members, source, new.varied, config)
        _part(stage, place, old, [n for n in old.numbers if n not in new.numbers])
