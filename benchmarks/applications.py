"""What agents should learn of the applications: with a memory, and without."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import memrl_jax
from benchmarks.findings import Claim
from benchmarks.runs import Result, Returns, memoryless
from memrl_jax.environments.applications import APPLICATIONS, Recommender

EVERYTHING = "knows everything"


def known(name: str, episodes: int = 1000) -> float:
    """Return the mean return of an application's `best`, where all episodes have one length."""
    task = APPLICATIONS[name]()
    params = task.default_params

    def episode(key: Any) -> Any:
        reset_key, key = jax.random.split(key)

        def step(state: Any, key: Any) -> Any:
            _, state, reward, *_ = task.step_env(key, state, task.best(state, params), params)
            return state, reward

        _, state = task.reset_env(reset_key, params)
        return jax.lax.scan(step, state, jax.random.split(key, task.steps))[1].sum()

    keys = jax.random.split(jax.random.key(1), episodes)
    return float(jnp.mean(jax.jit(jax.vmap(episode))(keys)))


def with_memory(environment: str, steps: int, **more: Any) -> memrl_jax.Config:
    """Return PPO with a GRU."""
    return memrl_jax.presets["recurrent-ppo"].replace(
        environment=environment, total_steps=steps, environments=32, minibatches=4, **more
    )


def recommender() -> Result:
    gru = with_memory("Recommender", 802_816, discount=0.9, decay_updates=31_360.0)
    best, steps = known("Recommender"), Recommender().steps

    def claims(returns: Returns) -> list[Claim]:
        regret = {label: (best - x.mean()) / steps for label, x in returns.items()}
        share = regret["with GRU"] / regret["memoryless"]
        each = " / ".join(f"{x:.3f}" for x in regret.values())
        figure = f"{share:.2f} ({each} clicks a step)"
        return [Claim("regret with GRU / memoryless: <= 0.5", figure, share <= 0.5)]

    runs = {"with GRU": gru, "memoryless": memoryless(gru)}
    title = "A recommender, to users whose taste drifts"
    return Result(title, runs, claims, {EVERYTHING: best}, seeds=4)


def robot() -> Result:
    gru = with_memory("HiddenRobot", 2_000_896, decay_updates=78_160.0)
    best = known("HiddenRobot")

    def claims(returns: Returns) -> list[Claim]:
        trips = {label: x.mean() for label, x in returns.items()}
        remembers, blind = trips["with GRU"], trips["memoryless"]
        figure = f"{remembers:.1f} against {blind:.1f}, of {best:.1f}"
        return [Claim("trips with GRU: twice the memoryless", figure, remembers >= 2 * blind)]

    runs = {"with GRU": gru, "memoryless": memoryless(gru)}
    title = "A robot whose goal and velocity are hidden"
    return Result(title, runs, claims, {EVERYTHING: best}, seeds=4)


def instructions() -> Result:
    args = {"objects": 3, "named": 1, "sight": 4}
    gru = with_memory("Instructions", 2_000_896, environment_args=args, decay_updates=78_160.0)

    def claims(returns: Returns) -> list[Claim]:
        right = {label: x.mean() for label, x in returns.items()}
        remembers, guesses = right["with GRU"], right["memoryless"]
        return [
            Claim("with GRU: right object >= 0.9", f"{remembers:.2f}", remembers >= 0.9),
            Claim("memoryless: right object <= 0.4", f"{guesses:.2f}", guesses <= 0.4),
        ]

    runs = {"with GRU": gru, "memoryless": memoryless(gru)}
    title = "Instructions: one of three objects"
    return Result(title, runs, claims, {EVERYTHING: 1.0, "a guess": 1 / 3}, seeds=4)


RESULTS: dict[str, Callable[[], Result]] = {
    "recommender": recommender,
    "robot": robot,
    "instructions": instructions,
}
