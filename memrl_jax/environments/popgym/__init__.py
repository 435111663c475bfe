"""POPGym's tasks, exactly: fourteen at three levels, in gymnax's interface.

Morad, Kortvelesy, Bettini, Liwicki & Prorok (2023), "POPGym: Benchmarking Partially Observable
Reinforcement Learning", as in release 1.0.7. `TASKS` has them by POPGym's names, such as
`RepeatPreviousEasy`; `register` makes them known to `gymnax.make`. Observations are integers where
POPGym's are. Differences: `VelocityOnlyCartPole` does not show positions at first (`faithful=True`
does), and Labyrinth is left out, which its authors say can be solved without memory.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from memrl_jax.environments.popgym.bandit import MultiarmedBandit
from memrl_jax.environments.popgym.boards import Battleship, MineSweeper
from memrl_jax.environments.popgym.concentration import Concentration
from memrl_jax.environments.popgym.control import CartPole, Pendulum
from memrl_jax.environments.popgym.counting import CountRecall, HigherLower
from memrl_jax.environments.popgym.render import text
from memrl_jax.environments.popgym.repeat import Autoencode, RepeatFirst, RepeatPrevious

TASKS: dict[str, Any] = {
    "AutoencodeEasy": Autoencode(1),
    "AutoencodeMedium": Autoencode(2),
    "AutoencodeHard": Autoencode(3),
    "BattleshipEasy": Battleship(8),
    "BattleshipMedium": Battleship(10),
    "BattleshipHard": Battleship(12),
    "ConcentrationEasy": Concentration(1, "colors"),
    "ConcentrationMedium": Concentration(2, "colors"),
    "ConcentrationHard": Concentration(1, "ranks"),
    "CountRecallEasy": CountRecall(1, "colors"),
    "CountRecallMedium": CountRecall(2, "suits"),
    "CountRecallHard": CountRecall(4, "ranks"),
    "HigherLowerEasy": HigherLower(1),
    "HigherLowerMedium": HigherLower(2),
    "HigherLowerHard": HigherLower(3),
    "MineSweeperEasy": MineSweeper(4, 2),
    "MineSweeperMedium": MineSweeper(6, 6),
    "MineSweeperHard": MineSweeper(8, 10),
    "MultiarmedBanditEasy": MultiarmedBandit(10, 200),
    "MultiarmedBanditMedium": MultiarmedBandit(20, 400),
    "MultiarmedBanditHard": MultiarmedBandit(30, 600),
    "NoisyPositionOnlyCartPoleEasy": CartPole(noise=0.1),
    "NoisyPositionOnlyCartPoleMedium": CartPole(noise=0.2),
    "NoisyPositionOnlyCartPoleHard": CartPole(noise=0.3),
    "NoisyPositionOnlyPendulumEasy": Pendulum(noise=0.1),
    "NoisyPositionOnlyPendulumMedium": Pendulum(noise=0.2),
    "NoisyPositionOnlyPendulumHard": Pendulum(noise=0.3),
    "PositionOnlyCartPoleEasy": CartPole(steps=200),
    "PositionOnlyCartPoleMedium": CartPole(steps=400),
    "PositionOnlyCartPoleHard": CartPole(steps=600),
    "PositionOnlyPendulumEasy": Pendulum(steps=200),
    "PositionOnlyPendulumMedium": Pendulum(steps=150),
    "PositionOnlyPendulumHard": Pendulum(steps=100),
    "RepeatFirstEasy": RepeatFirst(1),
    "RepeatFirstMedium": RepeatFirst(8),
    "RepeatFirstHard": RepeatFirst(16),
    "RepeatPreviousEasy": RepeatPrevious(1, 4),
    "RepeatPreviousMedium": RepeatPrevious(2, 32),
    "RepeatPreviousHard": RepeatPrevious(3, 64),
    "VelocityOnlyCartPoleEasy": CartPole("velocities", 200),
    "VelocityOnlyCartPoleMedium": CartPole("velocities", 400),
    "VelocityOnlyCartPoleHard": CartPole("velocities", 600),
}


def register() -> None:
    """Make all `TASKS` known to `gymnax.make`, whose options replace the task's own.

    Raises ValueError if that was done before.
    """
    import gymnax

    for name, task in TASKS.items():
        gymnax.register(name, partial(replace, task))


__all__ = [
    "TASKS", "Autoencode", "Battleship", "CartPole", "Concentration", "CountRecall", "HigherLower",
    "MineSweeper", "MultiarmedBandit", "Pendulum", "RepeatFirst", "RepeatPrevious", "register",
    "text",
]  # fmt: skip
