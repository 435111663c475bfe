"""What agents learn: `python -m benchmarks.results NAME [--quick] [--out FOLDER]`.

Each result trains its agents from scratch, evaluates them greedily in fresh environments, says of
every claim whether it was reached, and writes curves, figures, configs and seeds to a folder.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from rich.console import Console

import memrl_jax
from memrl_jax import commands, experiment, plot
from memrl_jax.checks import known
from memrl_jax.cli import use_every_core
from memrl_jax.config import to_json
from memrl_jax.folder import versions, write
from memrl_jax.memory import MEMORIES
from memrl_jax.program import Run
from memrl_jax.statistics import iqm

EPISODES = 100  # per seed, in the evaluation that the figures come from
Returns = Mapping[str, np.ndarray]  # label -> [seeds, EPISODES]


class Claim(NamedTuple):
    """Something a result should show."""

    text: str
    figure: str
    reached: bool


class Result(NamedTuple):
    """Runs to train and what they should show."""

    title: str
    runs: Mapping[str, memrl_jax.Config]
    claims: Callable[[Returns], list[Claim]]
    reference: Mapping[str, float]  # lines to draw across the curves
    seeds: int = 8


def memoryless(config: memrl_jax.Config) -> memrl_jax.Config:
    """Take the memory out, and the previous action and reward, in which a bit can be kept."""
    return config.replace(
        memory="none", memory_args={}, previous_action=False, previous_reward=False
    )


def tmaze() -> Result:
    drqn = memrl_jax.presets["drqn"].replace(environment="TMaze", total_steps=60_000)
    drqn = drqn.replace(previous_action=False, previous_reward=False)

    def claims(returns: Returns) -> list[Claim]:
        # Only the right arm gives a return above zero.
        success = {label: np.mean(x > 0, axis=1) for label, x in returns.items()}
        worst, guess = success["DRQN"].min(), success["memoryless"].mean()
        return [
            Claim(
                "DRQN: success >= 0.98 in every seed", f"{worst:.3f} in the worst", worst >= 0.98
            ),
            Claim("memoryless: success 0.5 +- 0.1", f"{guess:.3f}", abs(guess - 0.5) <= 0.1),
        ]

    runs = {"DRQN": drqn, "memoryless": memoryless(drqn)}
    return Result("T-Maze, corridor of 8", runs, claims, {"chance": 0.5})


def tmaze_50() -> Result:
    r2d2 = memrl_jax.presets["r2d2"].replace(
        environment="TMaze",
        environment_args={"corridor": 50},
        memory_args={"horizon": 100},
        total_steps=300_000,
        previous_action=False,
        previous_reward=False,
    )
    # Long enough to hold an episode from the cue to the choice wherever it begins.
    agent = r2d2.agent.replace(window=100, updates=4, learning_rate=5e-4, decay_updates=5_900.0)
    r2d2 = r2d2.replace(agent=agent)

    def claims(returns: Returns) -> list[Claim]:
        success = np.mean(returns["R2D2"] > 0, axis=1)
        figure = f"{success.min():.3f} in the worst"
        return [Claim("R2D2: success >= 0.95 in every seed", figure, success.min() >= 0.95)]

    return Result("T-Maze, corridor of 50", {"R2D2": r2d2}, claims, {"chance": 0.5}, seeds=5)


def memory_chain_30() -> Result:
    r2d2 = memrl_jax.presets["r2d2"].replace(
        environment="MemoryChain-bsuite",
        environment_args={"memory_length": 30},
        memory_args={"horizon": 60},
        total_steps=150_000,
        previous_action=False,
        previous_reward=False,
    )
    r2d2 = r2d2.replace(
        agent=r2d2.agent.replace(updates=4, learning_rate=5e-4, decay_updates=2_900.0)
    )

    def claims(returns: Returns) -> list[Claim]:
        worst = returns["R2D2"].mean(axis=1).min()
        figure = f"{worst:.2f} in the worst"
        return [Claim("R2D2: return >= 0.95 of 1 in every seed", figure, worst >= 0.95)]

    return Result("MemoryChain, length 30", {"R2D2": r2d2}, claims, {"chance": 0.0}, seeds=5)


def cartpole() -> Result:
    def claims(returns: Returns) -> list[Claim]:
        score = float(iqm(returns["DQN"].mean(axis=1)))
        return [Claim("DQN: IQM of the last evaluation >= 475", f"{score:.1f}", score >= 475)]

    return Result("CartPole-v1", {"DQN": memrl_jax.presets["dqn"]}, claims, {})


def cartpole_positions() -> Result:
    # Windows much shorter than episodes leave the memory adrift after them: with 8 and 16 actions
    # fewer seeds keep their balance. The replay memory keeps the whole run; with a tenth of it,
    # what was learned was forgotten. With steps that stay as large, balance comes and goes.
    drqn = memrl_jax.presets["drqn"].replace(environment="CartPole-positions")
    agent = drqn.agent.replace(
        window=32,
        batch_size=16,
        capacity=500_000,
        epsilon_steps=100_000.0,
        decay_updates=12_500.0,
    )
    drqn = drqn.replace(agent=agent)
    runs = {"DRQN": drqn, "memoryless": memoryless(drqn)}

    def claims(returns: Returns) -> list[Claim]:
        score, blind = (float(iqm(returns[label].mean(axis=1))) for label in runs)
        return [
            Claim("DRQN: IQM >= 475 (solved)", f"{score:.1f}", score >= 475),
            Claim("memoryless: IQM < 100", f"{blind:.1f}", blind < 100),
        ]

    return Result("CartPole-v1 without velocities", runs, claims, {})


def memory_chain() -> Result:
    drqn = memrl_jax.presets["drqn"].replace(
        environment="MemoryChain-bsuite",
        environment_args={"memory_length": 10},
        total_steps=60_000,
        previous_action=False,
        previous_reward=False,
    )
    runs = {"DRQN": drqn, "memoryless": memoryless(drqn)}

    def claims(returns: Returns) -> list[Claim]:
        mean = {label: x.mean(axis=1) for label, x in returns.items()}
        worst, guess = mean["DRQN"].min(), mean["memoryless"].mean()
        return [
            Claim(
                "DRQN: return >= 0.95 of 1 in every seed",
                f"{worst:.2f} in the worst",
                worst >= 0.95,
            ),
            Claim("memoryless: return 0 +- 0.2 (chance)", f"{guess:.2f}", abs(guess) <= 0.2),
        ]

    return Result("MemoryChain, length 10", runs, claims, {"chance": 0.0})


def memories() -> Result:
    drqn = memrl_jax.presets["drqn"].replace(
        environment="MemoryChain-bsuite",
        environment_args={"memory_length": 5},
        total_steps=40_000,
        previous_action=False,
        previous_reward=False,
    )
    # The cue is 5 steps back when it is asked for; what is stacked has to reach it.
    args = {"frame_stack": {"features": 16, "frames": 6}}
    runs = {name: drqn.replace(memory=name, memory_args=args.get(name, {})) for name in MEMORIES}

    def claims(returns: Returns) -> list[Claim]:
        worst = {label: x.mean(axis=1).min() for label, x in returns.items()}
        guess = returns["none"].mean()
        return [
            Claim(
                f"{name}: return >= 0.95 of 1 in every seed",
                f"{worst[name]:.2f}",
                worst[name] >= 0.95,
            )
            for name in worst
            if name != "none"
        ] + [Claim("none: return 0 +- 0.2 (chance)", f"{guess:.2f}", abs(guess) <= 0.2)]

    return Result("MemoryChain, length 5: every memory", runs, claims, {"chance": 0.0}, seeds=5)


RESULTS: dict[str, Callable[[], Result]] = {
    "tmaze": tmaze,
    "cartpole": cartpole,
    "cartpole-positions": cartpole_positions,
    "memory-chain": memory_chain,
    "tmaze-50": tmaze_50,
    "memory-chain-30": memory_chain_30,
    "memories": memories,
}


@dataclass(frozen=True)
class Options:
    """Train, evaluate and judge one of the results of this project."""

    name: tyro.conf.Positional[str]
    """Which: tmaze, cartpole, cartpole-positions, memory-chain, tmaze-50, memory-chain-30 or
    memories."""
    out: str = ""
    """Folder to write to; by default benchmarks/results/NAME."""
    quick: bool = False
    """Two seeds and a few steps, to see that it runs; claims are not judged."""


def main(arguments: list[str] | None = None) -> int:
    use_every_core()
    console = Console()
    given = tyro.cli(Options, args=arguments, prog="python -m benchmarks.results")
    result = RESULTS[known("name", given.name, RESULTS)]()
    if given.quick:
        result = shortened(result)
    place = Path(given.out or f"benchmarks/results/{given.name}{'-quick' * given.quick}")
    place.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        series, returns = train(result, Path(scratch), console)
    minutes = (time.perf_counter() - began) / 60
    plot.curves(series, place / "curves.png", title=result.title, reference=result.reference)
    claims = [] if given.quick else result.claims(returns)
    console.print(commands.table({k: {"return": x.mean(axis=1)} for k, x in returns.items()}))
    for claim in claims:
        console.print(
            f"{'reached' if claim.reached else 'NOT REACHED':>11}  {claim.text}: {claim.figure}"
        )
    write(place / "result.json", report(result, returns, claims, minutes))
    console.print(f"{minutes:.1f} minutes; curves: {place / 'curves.png'}")
    return 0


def train(result: Result, scratch: Path, console: Console) -> tuple[dict, dict]:
    """Train every run; return curves for the plot, and returns [seeds, EPISODES] at the end."""
    series, returns = {}, {}
    for label, config in result.runs.items():
        console.print(f"{label}: {config.environment}, {result.seeds} seeds")
        run = Run(out=str(scratch / label), seeds=result.seeds)
        with commands.progress_bar(console) as progress:
            done = experiment.start(config, run, console.print, progress)
        if not done.finished:
            raise KeyboardInterrupt
        past = done.history
        series[label] = past["evaluation_step"], past["evaluation_return"]
        returns[label] = experiment.evaluate(run.out, EPISODES, seed=1).total
    return series, returns


def shortened(result: Result) -> Result:
    """Take two seeds and a tenth of the steps."""
    runs = {}
    for label, config in result.runs.items():
        part = config.environments * config.rollout_length
        runs[label] = config.replace(total_steps=config.total_steps // 10 // part * part)
    return result._replace(runs=runs, seeds=2)


def report(result: Result, returns: Returns, claims: list[Claim], minutes: float) -> str:
    """Write figures, claims, configs and seeds as JSON text."""
    return json.dumps(
        {
            "title": result.title,
            "claims": [claim._asdict() | {"reached": bool(claim.reached)} for claim in claims],
            "return": {label: x.mean(axis=1).round(4).tolist() for label, x in returns.items()},
            "episodes": EPISODES,
            "seeds": list(range(result.seeds)),
            "minutes": round(minutes, 2),
            "cores": len(os.sched_getaffinity(0)),
            "versions": versions(),
            "configs": {label: json.loads(to_json(c)) for label, c in result.runs.items()},
        },
        indent=2,
    )


if __name__ == "__main__":
    sys.exit(main())
