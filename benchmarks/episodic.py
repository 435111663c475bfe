"""Episodic control beside DQN.

DQN has the same task and, of the few settings tried on other seeds, those that solved it soonest.
"""

from collections.abc import Callable, Mapping
from typing import Any

import memrl_jax
from benchmarks.races import Race


def beside_dqn(environment: str, args: Mapping[str, Any], **own: Mapping[str, Any]) -> Any:
    """Return runs of MFEC, NEC and DQN on a task, each with settings of its own."""
    return {
        preset.upper(): memrl_jax.presets[preset].replace(
            environment=environment, environment_args=args, **own.get(preset, {})
        )
        for preset in ("mfec", "nec", "dqn")
    }


def cartpole() -> Race:
    dqn = {
        "total_steps": 100_000,
        "learning_starts": 1_000,
        "epsilon_steps": 10_000.0,
    }
    # Returns of all that is left of an episode hardly tell one action from another.
    mfec = {"total_steps": 20_032, "discount": 0.95}
    configs = beside_dqn("CartPole-v1", {}, mfec=mfec, dqn=dqn)
    return Race("CartPole-v1: episodic control", configs, 475.0, seeds=3)


def four_rooms() -> Race:
    # From the upper left room to the lower right one, through two doors; only the goal pays.
    args = {"fail_prob": 0.0, "max_steps_in_episode": 100}
    configs = beside_dqn(
        "FourRooms-misc",
        args,
        mfec={"total_steps": 30_080, "entries": 1_000},
        nec={"total_steps": 30_080, "entries": 5_000, "epsilon_end": 0.05},
        dqn={
            "environments": 8,
            "total_steps": 100_000,
            "learning_starts": 1_000,
            "capacity": 100_000,
            "epsilon_steps": 20_000.0,
            "updates": 2,
            "learning_rate": 5e-4,
        },
    )
    return Race("Four rooms, 100 steps at most", configs, 0.95, seeds=5)


def minatar(name: str) -> Callable[[], Race]:
    def make() -> Race:
        large = {"total_steps": 100_096, "entries": 30_000, "key_size": 32}
        dqn = {"total_steps": 100_000, "learning_starts": 1_000, "epsilon_steps": 20_000.0}
        configs = beside_dqn(f"{name}-MinAtar", {}, mfec=large, nec=large, dqn=dqn)
        return Race(f"{name} of MinAtar", configs, None, seeds=2)

    return make


RESULTS: dict[str, Callable[[], Race]] = {
    "episodic-cartpole": cartpole,
    "episodic-four-rooms": four_rooms,
    "episodic-breakout": minatar("Breakout"),
    "episodic-freeway": minatar("Freeway"),
}
