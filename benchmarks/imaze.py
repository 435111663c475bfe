"""The I-Maze: agents that learn in short corridors and play in long ones.

A grid-world with the maps, actions and rewards of the task, not Minecraft and its pixels.
Oh et al. (2016), section 5.1.
"""

import json
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import memrl_jax
from benchmarks import runs
from benchmarks.findings import Claim, Findings
from memrl_jax import checkpoint, commands, diagnose, experiment, parallel, plot
from memrl_jax.config import make, to_json
from memrl_jax.environments.mazes import success
from memrl_jax.folder import checkpoints
from memrl_jax.program import make_program
from memrl_jax.types import Array, Key, State

TRAINED = 5, 7, 9
LENGTHS = *TRAINED, 15, 20, 30, 40
HORIZON = 100  # steps to play in, as in the paper; to learn in, there are 50
FRAMES = 50  # that memories hold when they play, as in the paper


def study(console: Console, place: Path, quick: bool) -> Findings:
    """Train the agents, then play at all lengths; draw learning curves and success by length."""
    result = runs.shortened(imaze()) if quick else imaze()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        series, _ = runs.train(result, Path(scratch), console)
        found = {label: by_length(str(Path(scratch) / label)) for label in result.runs}
    minutes = (time.perf_counter() - began) / 60
    plot.curves(series, place / "curves.png", title=result.title, reference=result.reference)
    plot.extrapolation(
        LENGTHS,
        found,
        place / "extrapolation.png",
        trained=(TRAINED[0], TRAINED[-1]),
        chance=0.5,
        xlabel="length of the corridor",
        title=result.title,
    )
    figures = {
        "lengths": LENGTHS,
        "success": {label: x.round(4).tolist() for label, x in found.items()},
        "episodes": runs.EPISODES,
        "seeds": list(range(result.seeds)),
    }
    configs = {label: json.loads(to_json(config)) for label, config in result.runs.items()}
    table = commands.table({label: by_name(by) for label, by in found.items()})
    claims = [] if quick else result.claims(found)
    return Findings(result.title, claims, figures, minutes, configs, table)


def by_name(rates: np.ndarray) -> dict[str, np.ndarray]:
    """Turn rates of success [seeds, lengths] into columns of a table."""
    return {str(n): x for n, x in zip(LENGTHS, rates.T, strict=True)}


def imaze() -> runs.Result:
    """Return the three memory Q-networks and DQN with a window of 12 frames."""
    base = memrl_jax.presets["mqn"].replace(
        environment="IMaze", environment_args={"lengths": TRAINED}, total_steps=240_000
    )
    # A random walk finds a goal of length 9 in one episode of 700; an agent that hardly explores
    # finds it once it goes on where it can. Windows hold a whole episode from any beginning.
    agent = base.agent.replace(
        replay="prioritized",
        window=48,
        batch_size=8,
        updates=2,
        n_step=5,
        learning_rate=5e-4,
        decay_updates=11_900.0,
        epsilon_start=0.4,
        epsilon_end=0.4,
        epsilon_spread=5.0,
    )
    # Among fewer frames the one that tells is found sooner; 24 hold the way through every maze.
    base = base.replace(agent=agent, memory_args={"features": 64, "frames": 24})
    window = {"features": 64, "frames": 12}
    stack = base.replace(memory="frame_stack", memory_args=window, head=(64,))
    agents = {
        **{name.upper(): base.replace(memory=name) for name in ("mqn", "rmqn", "frmqn")},
        "DQN, 12 frames": stack,
    }
    return runs.Result("I-Maze (a grid-world)", agents, judge, {}, seeds=4)


def judge(rates: runs.Returns) -> list[Claim]:
    """Judge agents by their rates of success [seeds, lengths], means over seeds."""
    mean = {label: by_name(by.mean(axis=0)) for label, by in rates.items()}
    out = []
    for label in ("MQN", "RMQN", "FRMQN"):
        known, far = float(min(mean[label][str(n)] for n in TRAINED)), float(mean[label]["40"])
        out += [
            Claim(f"{label}: success >= 0.95 at trained lengths", f"{known:.3f}", known >= 0.95),
            Claim(f"{label}: success >= 0.90 at length 40", f"{far:.3f}", far >= 0.9),
        ]
    lost = float(max(mean["DQN, 12 frames"][str(n)] for n in LENGTHS if n > 12))
    return [*out, Claim("DQN: success <= 0.6 beyond length 12", f"{lost:.3f}", lost <= 0.6)]


def by_length(folder: str) -> np.ndarray:
    """Return the success of every seed of a run at every length, [S, lengths]."""
    _, config, run = experiment.read(folder)
    program = make_program(config, run)
    saved = checkpoint.load(checkpoints(Path(folder))[-1], program.shapes)
    states = jax.tree.map(jnp.asarray, saved.train.agent)
    keys = parallel.seed_keys(1, run.seeds)

    def play(length: int, key: Key, state: State) -> Array:
        trainer, _ = make(longer(config, length))
        played = trainer.evaluate(key, state, runs.EPISODES)
        return jnp.mean(success(played.total, played.length, HORIZON))

    return np.asarray(diagnose.extrapolation(play, LENGTHS, keys, states))


def longer(config: memrl_jax.Config, length: int) -> memrl_jax.Config:
    """Play at another length, and give a memory that can look further back more frames.

    No parameter of it depends on how many it holds. Those that are stacked cannot be more.
    """
    frames = {} if config.memory == "frame_stack" else {"frames": FRAMES}
    return config.replace(
        environment_args={"lengths": (length,), "max_steps_in_episode": HORIZON},
        memory_args={**config.memory_args, **frames},
    )
