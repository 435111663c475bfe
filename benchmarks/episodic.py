"""Episodic control beside DQN: steps until a task is solved, and final returns.

A task counts as solved at the first greedy evaluation that returns enough; the median of these
steps over seeds is compared. DQN has, of the few settings tried on other seeds, those that solved
the task soonest.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

import memrl_jax
from benchmarks import runs
from benchmarks.findings import Claim, Findings
from benchmarks.runs import Curve, Result, Returns
from memrl_jax import commands
from memrl_jax.config import to_json
from memrl_jax.statistics import iqm


class Race(NamedTuple):
    """Runs on one task, and the return that solves it; None if they are not judged by it."""

    title: str
    runs: Mapping[str, memrl_jax.Config]
    enough: float | None
    seeds: int


def study(make: Callable[[], Race], console: Console, place: Path, quick: bool) -> Findings:
    """Train the runs of a race; draw their curves and count the steps that they took."""
    race = make()
    lines = {} if race.enough is None else {"solved": race.enough}
    result = Result(race.title, race.runs, lambda returns: [], lines, race.seeds)
    result = runs.shortened(result) if quick else result
    series, returns, minutes = runs.train(result, place / "runs", console)
    runs.draw(series, result, place)
    means = {label: x.mean(axis=1) for label, x in returns.items()}
    figures: dict[str, Any] = {
        "return": {label: x.round(4).tolist() for label, x in means.items()},
        "episodes": runs.EPISODES,
        "seeds": list(range(result.seeds)),
    }
    claims: list[Claim] = []
    if race.enough is not None:
        taken = {label: steps_to(race.enough, curve) for label, curve in series.items()}
        figures["steps to solve"] = taken
        claims = [] if quick else judged(race.enough, returns, taken)
    configs = {label: json.loads(to_json(config)) for label, config in result.runs.items()}
    table = commands.table({k: {"return": x} for k, x in means.items()}, "evaluation")
    return Findings(result.title, claims, figures, minutes, configs, table)


def steps_to(enough: float, curve: Curve) -> list[float | None]:
    """Return the steps of every seed until an evaluation first returned enough, or None."""
    steps, values = curve
    solved = values >= enough
    return [float(steps[np.argmax(x)]) if x.any() else None for x in solved]


def median(steps: list[float | None]) -> float:
    """Return the median, where seeds that never solved the task count as infinite."""
    return float(np.median([np.inf if x is None else x for x in steps]))


def judged(enough: float, returns: Returns, taken: Mapping[str, list[float | None]]) -> list[Claim]:
    """Judge whether episodic control solves a task, still does in the end, and sooner than DQN."""
    claims = []
    for label in taken.keys() - {"DQN"}:
        score = float(iqm(returns[label].mean(axis=1)))
        text = f"{label}: IQM of the last evaluation >= {enough:g}"
        claims.append(Claim(text, f"{score:.2f}", score >= enough))
        solved = [x is not None for x in taken[label]]
        text = f"{label}: >= {enough:g} in an evaluation of every seed"
        claims.append(Claim(text, f"{sum(solved)} of {len(solved)}", all(solved)))
        own, others = median(taken[label]), median(taken["DQN"])
        text = f"{label}: solved in fewer steps than by DQN"
        claims.append(Claim(text, f"{own:,.0f} against {others:,.0f}", own < others))
    return sorted(claims)


def beside_dqn(environment: str, args: Mapping[str, Any], **own: Mapping[str, Any]) -> Any:
    """Return runs of MFEC, NEC and DQN on a task, each with settings of its own."""
    return {
        preset.upper(): memrl_jax.presets[preset].replace(
            environment=environment, environment_args=args, **own.get(preset, {})
        )
        for preset in ("mfec", "nec", "dqn")
    }


def cartpole() -> Race:
    dqn = {
        "total_steps": 100_000,
        "learning_starts": 1_000,
        "epsilon_steps": 10_000.0,
    }
    configs = beside_dqn("CartPole-v1", {}, dqn=dqn)
    return Race("CartPole-v1: episodic control", configs, 475.0, seeds=3)


def four_rooms() -> Race:
    # From the upper left room to the lower right one, through two doors; only the goal pays.
    args = {"fail_prob": 0.0, "max_steps_in_episode": 100}
    configs = beside_dqn(
        "FourRooms-misc",
        args,
        mfec={"total_steps": 30_080, "entries": 1_000},
        nec={"total_steps": 30_080, "entries": 5_000, "epsilon_end": 0.05},
        dqn={
            "environments": 8,
            "total_steps": 100_000,
            "learning_starts": 1_000,
            "capacity": 100_000,
            "epsilon_steps": 20_000.0,
            "updates": 2,
            "learning_rate": 5e-4,
        },
    )
    return Race("Four rooms, 100 steps at most", configs, 0.95, seeds=5)


def minatar(name: str) -> Callable[[], Race]:
    def make() -> Race:
        large = {"total_steps": 100_096, "entries": 30_000, "key_size": 32}
        dqn = {"total_steps": 100_000, "learning_starts": 1_000, "epsilon_steps": 20_000.0}
        configs = beside_dqn(f"{name}-MinAtar", {}, mfec=large, nec=large, dqn=dqn)
        return Race(f"{name} of MinAtar", configs, None, seeds=2)

    return make


RESULTS: dict[str, Callable[[], Race]] = {
    "episodic-cartpole": cartpole,
    "episodic-four-rooms": four_rooms,
    "episodic-breakout": minatar("Breakout"),
    "episodic-freeway": minatar("Freeway"),
}
