"""Small environments of Gymnasium that are known in full; importing this registers them."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Counting(gymnasium.Env):
    """Counts its steps: number n ends after n + 2 of them, by a time limit if n is odd.

    It does not depend on how often it was reset. Actions are 5, 6 and 7; an observation is the
    number, the time and the last action, the reward 10 x time + action.
    """

    observation_space = spaces.Box(0, 100, (3,), np.float64)
    action_space = spaces.Discrete(3, start=5)

    def __init__(self, number: int = 0) -> None:
        self.number, self.time = number, 0

    def seen(self, action: int) -> np.ndarray:
        return np.array([self.number, self.time, action], np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time = 0
        return self.seen(0), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        self.time += 1
        over = self.time == self.number + 2
        odd = self.number % 2 == 1
        reward = float(10 * self.time + action)
        return self.seen(int(action)), reward, over and not odd, over and odd, {}


class Masked(Counting):
    """Allows one action, that of the time, and breaks at any other; tells nothing at the end."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        return super().reset(seed=seed)[0], self.told()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        if action != 5 + self.time % 3:
            raise RuntimeError(f"{action} is illegal at {self.time}\nand that is that")
        *out, _ = super().step(action)
        return *out, {} if out[2] or out[3] else self.told()  # type: ignore[return-value]

    def told(self) -> dict:
        return {"action_mask": np.arange(3, dtype=np.int8) == self.time % 3}


class Echo(gymnasium.Env):
    """Shows random elements of a space, and takes actions of another one only."""

    def __init__(self, observations: spaces.Space, actions: spaces.Space) -> None:
        self.observation_space, self.action_space = observations, actions
        self.taken: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        self.taken.append(action)
        return self.observation_space.sample(), 0.5, False, False, {}


class Recall(gymnasium.Env):
    """Shows a bit, and after two steps of nothing pays for saying it."""

    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict]:
        super().reset(seed=seed)
        self.bit, self.time = int(self.np_random.integers(2)), 0
        return self.bit, {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict]:
        self.time += 1
        over = self.time == 3
        return 2, float(over and action == self.bit), over, False, {}


for name, made in {"Counting-v0": Counting, "Recall-v0": Recall}.items():
    if name not in gymnasium.registry:
        gymnasium.register(name, made, max_episode_steps=30)
