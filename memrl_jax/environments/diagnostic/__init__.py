"""Tasks whose demand on a memory is a number, so that one program may cover many of them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from memrl_jax.environments.diagnostic.chain import (
    LENGTHS,
    SIZES,
    MemoryChain,
    memory_length,
    memory_size,
    score,
)
from memrl_jax.environments.diagnostic.endless import EndlessTMaze, endless_tmaze
from memrl_jax.environments.diagnostic.match import DelayedMatch, delayed_match
from memrl_jax.environments.diagnostic.minigrid import MemoryCorridor, memory_corridor
from memrl_jax.environments.diagnostic.rocks import RockSample, rock_sample
from memrl_jax.environments.diagnostic.rooms import KeyDoor, VisualMatch, key_door, visual_match

DIAGNOSTIC: dict[str, Callable[..., Any]] = {
    "MemoryLength": memory_length,
    "MemorySize": memory_size,
    "DelayedMatch": delayed_match,
    "EndlessTMaze": endless_tmaze,
    "VisualMatch": visual_match,
    "VisualMatch-active": partial(visual_match, active=True),
    "KeyDoor": key_door,
    "RockSample": rock_sample,
    "MiniGrid-MemoryS7": partial(memory_corridor, size=7),
    "MiniGrid-MemoryS9": partial(memory_corridor, size=9),
    "MiniGrid-MemoryS11": partial(memory_corridor, size=11),
    "MiniGrid-MemoryS13": partial(memory_corridor, size=13),
    "MiniGrid-MemoryS13Random": partial(memory_corridor, size=13, varied=True),
    "MiniGrid-MemoryS17Random": partial(memory_corridor, size=17, varied=True),
}

__all__ = [
    "DIAGNOSTIC", "LENGTHS", "SIZES", "DelayedMatch", "EndlessTMaze", "KeyDoor", "MemoryChain",
    "MemoryCorridor", "RockSample", "VisualMatch", "delayed_match", "endless_tmaze", "key_door",
    "memory_corridor", "memory_length", "memory_size", "rock_sample", "score", "visual_match",
]  # fmt: skip
