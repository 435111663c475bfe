"""What PPO should learn, with every kind of action and with a memory."""

from collections.abc import Callable

import memrl_jax
from benchmarks.findings import Claim
from benchmarks.runs import Result, Returns
from memrl_jax.statistics import iqm


def score(returns: Returns, label: str) -> float:
    """Return the interquartile mean over seeds of their mean returns."""
    return float(iqm(returns[label].mean(axis=1)))


def at_least(returns: Returns, label: str, least: float) -> Claim:
    reached = score(returns, label)
    return Claim(f"{label}: IQM >= {least:g}", f"{reached:.1f}", reached >= least)


def cartpole() -> Result:
    runs = {"PPO": memrl_jax.presets["ppo"], "with GRU": memrl_jax.presets["recurrent-ppo"]}

    def claims(returns: Returns) -> list[Claim]:
        return [at_least(returns, label, 475) for label in runs]

    return Result("CartPole-v1", runs, claims, {})


def pendulum() -> Result:
    config = memrl_jax.presets["ppo"].replace(
        environment="Pendulum-v1",
        total_steps=1_000_448,  # 977 rollouts
        environments=32,
        rollout_length=32,
        minibatches=8,
        epochs=10,
        learning_rate=1e-3,
        discount=0.9,
        entropy_bonus=0.0,
        normalize_rewards=True,
    )

    def claims(returns: Returns) -> list[Claim]:
        return [at_least(returns, "PPO", -250)]

    return Result("Pendulum-v1", {"PPO": config}, claims, {})


RESULTS: dict[str, Callable[[], Result]] = {
    "ppo-cartpole": cartpole,
    "ppo-pendulum": pendulum,
}
