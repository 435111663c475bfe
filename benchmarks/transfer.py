"""A memory that was trained on a short T-Maze, taken to one that is four times as long."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

import memrl_jax
from benchmarks import runs
from benchmarks.findings import Claim, Findings
from benchmarks.races import median, steps_to
from benchmarks.runs import Result, Returns
from memrl_jax.run import saved

ENOUGH = 0.95  # of a return of 1
SHORT, LONG = 8, 32
SOURCE, ANEW, TAKEN = "corridor of 8", "corridor of 32, anew", "corridor of 32, with its memory"
PARTS = "encoder", "memory"


def ppo(corridor: int, rollouts: int) -> memrl_jax.Config:
    """Return recurrent PPO, without the last action and reward, on rollouts of 8 x 64 timesteps.

    Of 8 x 64 and 16 x 32, training anew solved the long maze soonest with these.
    """
    return memrl_jax.presets["recurrent-ppo"].replace(
        environment="TMaze",
        environment_args={"corridor": corridor},
        memory_args={"features": 32},
        encoder=(32,),
        environments=8,
        rollout_length=64,
        total_steps=512 * rollouts,
        decay_updates=20.0 * rollouts,
    )


def result() -> Result:
    long = ppo(LONG, 400)
    configs = {SOURCE: ppo(SHORT, 200), ANEW: long, TAKEN: long.replace(freeze=PARTS)}
    lines = {"enough": ENOUGH}
    takes = {TAKEN: (SOURCE, PARTS)}
    return Result(
        "T-Maze, a memory taken", configs, lambda _: [], lines, 5, evaluations=80, takes=takes
    )


def study(console: Console, place: Path, quick: bool) -> Findings:
    """Train on the short maze, then on the long one, anew and with the memory of the short one."""
    wanted = runs.shortened(result()) if quick else result()
    series, returns, minutes = runs.train(wanted, place / "runs", console)
    runs.draw(series, wanted, place)
    steps = {label: steps_to(ENOUGH, curve) for label, curve in series.items()}
    args = {"corridor": LONG}
    untrained = saved.evaluate(
        str(place / "runs" / SOURCE), runs.EPISODES, 1, environment_args=args
    )
    more = {
        f"steps to {ENOUGH:g}": steps,
        "return of the short maze's agents in the long one": untrained.total.mean(axis=1).tolist(),
    }
    return runs.findings(wanted, returns, [] if quick else judged(returns, steps), minutes, **more)


def judged(returns: Returns, steps: Mapping[str, list[float | None]]) -> list[Claim]:
    """Judge how much sooner the long maze is solved, and whether it still is in the end."""
    anew, taken, before = (median(steps[label]) for label in (ANEW, TAKEN, SOURCE))
    worst = returns[TAKEN].mean(axis=1).min()
    figure = f"{taken:,.0f} against {anew:,.0f}, {taken / anew:.2f} (and {before:,.0f} before)"
    return [
        Claim(f"{TAKEN}: {ENOUGH:g} in at most half the steps", figure, taken <= anew / 2),
        Claim(f"{TAKEN}: return >= {ENOUGH:g} in every seed", f"{worst:.3f}", worst >= ENOUGH),
    ]
