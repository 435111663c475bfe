"""Mazes of Oh et al. (2016): agents train in some and are evaluated in others as well.

A grid-world with the maps, actions and rewards of the tasks, not Minecraft and its pixels.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from rich.console import Console

import memrl_jax
from benchmarks import runs
from benchmarks.findings import Claim, Findings
from memrl_jax import diagnose, parallel, plot
from memrl_jax.build import make, make_environment
from memrl_jax.commands import shown
from memrl_jax.config import to_json
from memrl_jax.environments.mazes import success
from memrl_jax.run import saved
from memrl_jax.settings import named
from memrl_jax.types import Array, Key, State

TRAINED = 5, 7, 9
LENGTHS = *TRAINED, 15, 20, 30, 40
HORIZON = 100  # steps of an episode in evaluation, as in the paper; in training, there are 50
FRAMES = 50  # that memories hold in evaluation, as in the paper
SEEN, UNSEEN = "PatternMatching", "PatternMatchingTest"


class Plan(NamedTuple):
    """Agents to train, and places in which they are then evaluated."""

    result: runs.Result  # its claims take success rates [seeds, places]
    places: tuple[Any, ...]
    at: Callable[[memrl_jax.Config, Any], memrl_jax.Config]  # a run's config, a place
    episodes: int  # that every seed plays in each place
    draw: Callable[..., None] | None = None  # places, success rates, file


def study(plan: Callable[[], Plan], console: Console, place: Path, quick: bool) -> Findings:
    """Train the agents, evaluate them in all places, and draw the results."""
    result, places, at, episodes, draw = plan()
    result = runs.shortened(result) if quick else result
    kept = place / "runs"
    series, _, minutes = runs.train(result, kept, console)
    found = {label: rates(str(kept / label), places, at, episodes) for label in result.runs}
    runs.draw(series, result, place)
    if draw:
        draw(places, found, place / "success.png")
    figures = {
        "places": places,
        "success": {label: x.astype(float).round(4).tolist() for label, x in found.items()},
        "episodes": episodes,
        "seeds": list(range(result.seeds)),
    }
    configs = {label: json.loads(to_json(config)) for label, config in result.runs.items()}
    table = shown.table({label: by_place(places, x) for label, x in found.items()}, "evaluation")
    claims = [] if quick else result.claims(found)
    return Findings(result.title, claims, figures, minutes, configs, table)


def by_place(places: tuple[Any, ...], rates: np.ndarray) -> dict[str, np.ndarray]:
    """Turn success rates [seeds, places] into columns."""
    return {str(at): x for at, x in zip(places, rates.T, strict=True)}


def rates(folder: str, places: tuple[Any, ...], at: Callable, episodes: int) -> np.ndarray:
    """Return the success rate of every seed of a run in every place, [S, places]."""
    config, run, states = saved.trained(folder)

    def play(place: Any, key: Key, state: State) -> Array:
        there = at(config, place)
        trainer, _ = make(there)
        played = trainer.evaluate(key, state, episodes)
        limit = make_environment(there).horizon
        return jnp.mean(success(played.total, played.length, limit))

    keys = parallel.seed_keys(1, run.seeds)
    return np.asarray(diagnose.extrapolation(play, places, keys, states))


def networks(
    environment: str,
    args: dict[str, Any],
    steps: int,
    copies: int,
    length: int,
    epsilon: float,
    **agent: Any,
) -> dict[str, memrl_jax.Config]:
    """Return the runs of three memory Q-networks and of DQN with a window of 12 frames.

    They act for `length` steps in `copies` of the environment, then learn; `agent` says how.
    Epsilon stays constant.
    """
    # Windows hold nearly all of an episode, which has at most 50 steps.
    preset = memrl_jax.presets["mqn"].replace(
        window=48, epsilon_start=epsilon, epsilon_end=epsilon, **agent
    )
    given = named(preset)
    updates = given["updates"] * (steps - given["learning_starts"]) / (copies * length)
    updates -= given["restart"] or 0
    base = preset.replace(
        environment=environment,
        environment_args=args,
        # Among fewer frames, the one with the cue is found sooner; 24 cover the way through a maze.
        memory_args={"features": 64, "frames": 24},
        environments=copies,
        rollout_length=length,
        total_steps=steps,
        decay_updates=updates,
    )
    window = {"features": 64, "frames": 12}
    stack = base.replace(memory="frame_stack", memory_args=window, head=(64,))
    return {
        **{name.upper(): base.replace(memory=name) for name in ("mqn", "rmqn", "frmqn")},
        "DQN, 12 frames": stack,
    }


def imaze() -> Plan:
    """Learn in short corridors and play in long ones. Oh et al. (2016), section 5.1."""
    # A random walk reaches the goal of a corridor of 9 in one episode of 700; an agent that hardly
    # explores reaches it once it prefers to go on. Few updates on many steps cost no more than many
    # updates on few steps.
    agents = networks(
        "IMaze",
        {"lengths": TRAINED},
        steps=1_536_000,
        copies=32,
        length=8,
        epsilon=0.4,
        replay="prioritized",
        capacity=512_000,
        batch_size=16,
        updates=2,
        learning_rate=5e-4,
        n_step=5,
        epsilon_spread=3.0,
    )
    # Without an LSTM, a learning rate of 5e-4 did not teach it to look around before it goes.
    agents["MQN"] = agents["MQN"].replace(learning_rate=1e-3)

    def judge(found: runs.Returns) -> list[Claim]:
        mean = {label: by_place(LENGTHS, x.mean(axis=0)) for label, x in found.items()}
        out = []
        for label in ("MQN", "RMQN", "FRMQN"):
            known, far = min(mean[label][str(n)] for n in TRAINED), mean[label]["40"]
            out += [
                at_least(f"{label}: success >= 0.95 at trained lengths", float(known), 0.95),
                at_least(f"{label}: success >= 0.90 at length 40", float(far), 0.9),
            ]
        lost = float(max(mean["DQN, 12 frames"][str(n)] for n in LENGTHS if n > 12))
        return [*out, Claim("DQN: success <= 0.6 beyond length 12", f"{lost:.3f}", lost <= 0.6)]

    title = "I-Maze (a grid-world)"

    def draw(lengths: tuple[int, ...], found: runs.Returns, path: Path) -> None:
        trained = TRAINED[0], TRAINED[-1]
        name = "length of the corridor"
        plot.extrapolation(
            lengths, found, path, trained=trained, chance=0.5, xlabel=name, title=title
        )

    return Plan(runs.Result(title, agents, judge, {}, seeds=4), LENGTHS, longer, 100, draw)


def longer(config: memrl_jax.Config, length: int) -> memrl_jax.Config:
    """Return the config for another length, with more frames in a memory that can hold them.

    No parameter of such a memory depends on their number. Stacked frames cannot be more.
    """
    given = named(config)
    frames = {} if given["memory"] == "frame_stack" else {"frames": FRAMES}
    return config.replace(
        environment_args={"lengths": (length,), "max_steps_in_episode": HORIZON},
        memory_args={**given["memory_args"], **frames},
    )


def at_least(text: str, figure: float, bound: float) -> Claim:
    """Claim that a figure is not below a bound."""
    return Claim(text, f"{figure:.3f}", figure >= bound)


def pattern_matching() -> Plan:
    """Learn to tell whether two rooms look the same. Oh et al. (2016), section 5.2, table 1.

    On the original maps, in the folder that the environment variable MEMRL_MAZES names.
    """
    # An agent that goes straight to the goals hardly ever sees both rooms, and has no reason to
    # look before that pays; one that repeats its turns sees both in one episode of three. Rewards
    # of the others are noise, which one-step targets keep from all values but the last. Even so,
    # networks that first learned the way mostly did not learn to compare the rooms: in the one
    # inspected, a third of the encoder's units were dead in rooms. A fresh network does, from the
    # experience of an old one that knows the way.
    agents = networks(
        "OriginalMaze",
        {"path": "$MEMRL_MAZES", "task": SEEN},
        steps=49_152_000,
        copies=64,
        length=16,
        epsilon=0.1,
        persistence=0.5,
        replay="uniform",
        capacity=131_072,
        batch_size=32,
        n_step=1,
        learning_rate=1e-3,
        target_rate=0.02,
        restart=4_000,
        restart_hold=5_000,
    )
    # Between the goals, both sides look the same: only the last action tells which one is ahead.
    agents = {label: config.replace(previous_action=True) for label, config in agents.items()}

    def judge(found: runs.Returns) -> list[Claim]:
        seen = float(found["FRMQN"][:, 0].mean())
        return [at_least("FRMQN: success >= 0.98 in seen mazes", seen, 0.98)]

    def at(config: memrl_jax.Config, task: str) -> memrl_jax.Config:
        return config.replace(environment_args={**config.environment_args, "task": task})

    title = "Pattern matching (a grid-world)"
    # One seed only, so 100 episodes would leave its rates uncertain by several per cent.
    return Plan(runs.Result(title, agents, judge, {}, seeds=1), (SEEN, UNSEEN), at, 1_000)


RESULTS: dict[str, Callable[[], Plan]] = {"imaze": imaze, "pattern-matching": pattern_matching}
