"""What PPO with a memory should learn of POPGym's easy tasks; the published returns are PPO's too.

Morad et al. (2023), table 2: the best mean return of 15 million steps, a GRU's.
"""

from collections.abc import Callable
from functools import partial

import memrl_jax
from benchmarks.findings import Claim
from benchmarks.policies import at_least
from benchmarks.runs import Result, Returns, memoryless

PUBLISHED = {
    "RepeatPreviousEasy": 1.0,
    "RepeatFirstEasy": 1.0,
    "PositionOnlyCartPoleEasy": 1.0,
    "HigherLowerEasy": 0.529,
}


def ppo(environment: str, steps: int, **more: float) -> memrl_jax.Config:
    """Return recurrent PPO on rollouts that hold a whole episode of a deck of cards."""
    values = {"discount": 0.99, "gae_lambda": 0.95} | more
    return memrl_jax.presets["recurrent-ppo"].replace(
        environment=environment,
        environments=32,
        rollout_length=64,
        total_steps=steps,
        minibatches=4,
        epochs=4,
        **values,
    )


def task(environment: str, steps: int, enough: float, **more: float) -> Result:
    gru = ppo(environment, steps, **more)
    runs = {"with GRU": gru, "memoryless": memoryless(gru)}

    def claims(returns: Returns) -> list[Claim]:
        return [at_least(returns, "with GRU", enough)]

    return Result(environment, runs, claims, {"published": PUBLISHED[environment]}, seeds=4)


# What is guessed does not change the next card, so only the guess's own reward counts. The best
# that can be done without a memory is 0.498, and by counting cards 0.528, as 20,000 shuffles tell.
GUESS = {"discount": 0.0, "gae_lambda": 0.0, "decay_updates": 32_768.0}

RESULTS: dict[str, Callable[[], Result]] = {
    "repeat-previous": partial(task, "RepeatPreviousEasy", 2**20, 0.98),
    "repeat-first": partial(task, "RepeatFirstEasy", 2**19, 0.98),
    "position-only": partial(task, "PositionOnlyCartPoleEasy", 2**19, 0.98),
    "higher-lower": partial(task, "HigherLowerEasy", 2**22, 0.50, **GUESS),
}
