"""What soft actor-critic should learn of the pendulum, with its velocity shown and hidden."""

from collections.abc import Callable

import memrl_jax
from benchmarks.findings import Claim
from benchmarks.runs import Result, Returns, memoryless


def pendulum() -> Result:
    shown, gru = memrl_jax.presets["sac"], memrl_jax.presets["recurrent-sac"]
    hidden = memoryless(shown.replace(environment=gru.environment))
    runs = {"SAC": shown, "hidden, GRU": gru, "hidden, memoryless": hidden}

    def claims(returns: Returns) -> list[Claim]:
        mean = {label: x.mean() for label, x in returns.items()}
        short = {label: mean["SAC"] - mean[label] for label in runs}
        remembers, blind = short["hidden, GRU"], short["hidden, memoryless"]
        return [
            Claim("SAC: return >= -250", f"{mean['SAC']:.1f}", mean["SAC"] >= -250),
            Claim("hidden, GRU: at most 100 below SAC", f"{remembers:.1f}", remembers <= 100),
            Claim("hidden, memoryless: 300 or more below SAC", f"{blind:.1f}", blind >= 300),
        ]

    return Result("Pendulum-v1, its velocity shown and hidden", runs, claims, {}, seeds=4)


RESULTS: dict[str, Callable[[], Result]] = {"sac-pendulum": pendulum}
