"""What PPO should learn, with every kind of action and with a memory."""

from collections.abc import Callable

import memrl_jax
from benchmarks.findings import Claim
from benchmarks.runs import Result, Returns, memoryless
from memrl_jax.statistics import iqm


def score(returns: Returns, label: str) -> float:
    """Return the interquartile mean over seeds of their mean returns."""
    return float(iqm(returns[label].mean(axis=1)))


def at_least(returns: Returns, label: str, least: float) -> Claim:
    reached = score(returns, label)
    return Claim(f"{label}: IQM >= {least:g}", f"{reached:.4g}", reached >= least)


def with_memory(environment: str) -> memrl_jax.Config:
    """Return the recurrent preset, half as long; without learning rate decay, balance is lost."""
    return memrl_jax.presets["recurrent-ppo"].replace(
        environment=environment,
        total_steps=250_368,
        decay_updates=9_780.0,
        normalize_observations=True,
    )


def cartpole() -> Result:
    runs = {"PPO": memrl_jax.presets["ppo"], "with GRU": with_memory("CartPole-v1")}

    def claims(returns: Returns) -> list[Claim]:
        return [at_least(returns, label, 475) for label in runs]

    return Result("CartPole-v1", runs, claims, {})


def cartpole_on_host() -> Result:
    config = memrl_jax.presets["ppo"].replace(
        environment="gymnasium:CartPole-v1", total_steps=200_000
    )

    def claims(returns: Returns) -> list[Claim]:
        return [at_least(returns, "PPO", 475)]

    return Result("gymnasium's CartPole-v1", {"PPO": config}, claims, {}, seeds=4)


def cartpole_positions() -> Result:
    gru = with_memory("CartPole-positions")
    runs = {"with GRU": gru, "memoryless": memoryless(gru)}

    def claims(returns: Returns) -> list[Claim]:
        blind = score(returns, "memoryless")
        return [
            at_least(returns, "with GRU", 475),
            Claim("memoryless: IQM < 100", f"{blind:.1f}", blind < 100),
        ]

    return Result("CartPole-v1 without velocities", runs, claims, {})


def pendulum() -> Result:
    shown = memrl_jax.presets["ppo"].replace(
        environment="Pendulum-v1",
        total_steps=499_712,
        environments=32,
        rollout_length=32,
        minibatches=8,
        epochs=10,
        learning_rate=1e-3,
        discount=0.9,
        entropy_bonus=0.0,
        normalize_rewards=True,
    )
    # With larger steps, or steps that stay as large, what was learned comes and goes.
    gru = shown.replace(
        environment="Pendulum-positions",
        memory="gru",
        memory_args={"features": 64},
        encoder=(64,),
        head=(64,),
        previous_action=True,
        learning_rate=3e-4,
        total_steps=999_424,
        decay_updates=78_080.0,
    )
    runs = {"PPO": shown, "hidden, GRU": gru, "hidden, memoryless": memoryless(gru)}

    def claims(returns: Returns) -> list[Claim]:
        short = {label: score(returns, "PPO") - score(returns, label) for label in runs}
        remembers, blind = short["hidden, GRU"], short["hidden, memoryless"]
        return [
            at_least(returns, "PPO", -250),
            Claim("hidden, GRU: at most 100 below PPO", f"{remembers:.1f}", remembers <= 100),
            Claim("hidden, memoryless: 300 or more below PPO", f"{blind:.1f}", blind >= 300),
        ]

    return Result("Pendulum-v1, its velocity shown and hidden", runs, claims, {}, seeds=4)


RESULTS: dict[str, Callable[[], Result]] = {
    "ppo-cartpole": cartpole,
    "ppo-cartpole-gymnasium": cartpole_on_host,
    "ppo-cartpole-positions": cartpole_positions,
    "ppo-pendulum": pendulum,
}
