"""bsuite's memory experiments: how long, and how many bits, memories can remember.

Osband et al. (2020). All settings of an experiment are one program, for they are traced; each is
trained until 10,000 episodes have ended, and every answer on the way counts.
"""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import memrl_jax
from benchmarks.findings import Claim, Findings
from memrl_jax import build, parallel, plot
from memrl_jax.commands import shown
from memrl_jax.config import to_json
from memrl_jax.environments.diagnostic import LENGTHS, SIZES, score
from memrl_jax.types import Array, Key

EPISODES, SEEDS = 10_000, 2
MEMORIES = {"GRU": "gru", "LSTM": "lstm", "LRU": "lru", "S5": "s5", "mLSTM": "mlstm"}


class Experiment(NamedTuple):
    """One of bsuite's, and what varies in it."""

    title: str
    environment: str
    dial: str
    limit: str
    values: tuple[int, ...]
    environments: int
    rollout_length: int  # holds the longest episode


def config(experiment: Experiment, memory: str) -> memrl_jax.Config:
    """Return recurrent PPO, with updates after few steps: easy settings have but 20,000 of them."""
    return memrl_jax.presets["recurrent-ppo"].replace(
        environment=experiment.environment,
        environments=experiment.environments,
        rollout_length=experiment.rollout_length,
        total_steps=2**20,
        memory=memory,
        normalize_rewards=False,
    )


def wrong_answers(experiment: Experiment, memory: str, episodes: int, seeds: int) -> np.ndarray:
    """Train in every setting; return the share of wrong answers, [seeds, settings]."""
    longest = max(experiment.values)

    def one(lane: tuple[Key, Array]) -> Array:
        key, value = lane
        args = {experiment.dial: value, experiment.limit: longest}
        trainer, _ = build.make(config(experiment, memory).replace(environment_args=args))
        state, _ = trainer.init(key)

        def step(carry: Any) -> Any:
            state, ended, total = carry
            state, metrics = trainer.step(state)
            return state, ended + metrics["episodes"], total + metrics["return_sum"]

        carry = state, jnp.int32(0), jnp.float32(0)
        _, ended, total = jax.lax.while_loop(lambda carry: carry[1] < episodes, step, carry)
        return (1 - total / ended) / 2

    values = np.tile(np.array(experiment.values, np.int32), (seeds, 1))
    keys = parallel.seed_keys(0, values.size)
    order = spread(values.ravel())
    lanes = parallel.pad((keys[order], jnp.asarray(values.ravel()[order])), values.size)
    wrong = np.asarray(parallel.over_seeds(one, values.size)(lanes))[: values.size]
    return wrong[np.argsort(order)].reshape(values.shape)


def spread(values: np.ndarray) -> np.ndarray:
    """Return an order in which every device, which gets a block of it, has as much to do."""
    devices = jax.device_count()
    ranked = np.argsort(values, kind="stable")
    return np.concatenate([ranked[i::devices] for i in range(devices)])


def study(experiment: Experiment, console: Console, place: Path, quick: bool) -> Findings:
    """Train all memories in all settings; draw the share of right answers."""
    episodes, seeds = (EPISODES // 20, 1) if quick else (EPISODES, SEEDS)
    kept, wrong, seconds = place / "runs", {}, {}
    kept.mkdir(exist_ok=True)
    for label, memory in MEMORIES.items():
        path = kept / f"{memory}.npz"
        if not path.exists():
            console.print(f"{label}: {experiment.title}, {len(experiment.values)} settings")
            began = time.perf_counter()
            found = wrong_answers(experiment, memory, episodes, seeds)
            np.savez(path, wrong=found, seconds=time.perf_counter() - began)
        with np.load(path) as stored:
            wrong[label], seconds[label] = stored["wrong"], float(stored["seconds"])
    scores = {label: np.array([score(x) for x in found]) for label, found in wrong.items()}
    plot.extrapolation(
        experiment.values,
        {label: 1 - x for label, x in wrong.items()},
        place / "curves.png",
        chance=0.5,
        xlabel=experiment.dial,
        ylabel=f"right answers in {episodes:,} episodes of training",
        title=experiment.title,
    )
    figures = {
        "score": {label: x.round(4).tolist() for label, x in scores.items()},
        "wrong": {label: x.round(4).tolist() for label, x in wrong.items()},
        "settings": list(experiment.values),
        "episodes": episodes,
        "seeds": list(range(seeds)),
    }
    configs = {
        label: json.loads(to_json(config(experiment, name))) for label, name in MEMORIES.items()
    }
    table = shown.table({label: {"score": x} for label, x in scores.items()}, "bsuite")
    claims: list[Claim] = []
    minutes = sum(seconds.values()) / 60
    return Findings(experiment.title, claims, figures, minutes, configs, table)


RESULTS = {
    "memory-length": Experiment(
        "bsuite's memory_len", "MemoryLength", "length", "longest", LENGTHS, 2, 128
    ),
    "memory-size": Experiment("bsuite's memory_size", "MemorySize", "bits", "widest", SIZES, 8, 16),
}
