"""The original maps of Oh et al. (2016), read from files that the user provides."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from memrl_jax import checks
from memrl_jax.environments.mazes import view
from memrl_jax.environments.mazes.maze import Maps, maze
from memrl_jax.environments.mazes.rules import Goal, Rules
from memrl_jax.types import Environment

MAPS, TASKS = "oh2016_maps.npz", "oh2016_tasks.json"


def original(path: str = "", task: str = "IMaze", rows: int = 6, columns: int = 7) -> Environment:
    """Make a task of Oh et al. (2016) on its original maps, as a grid-world; see `maze`.

    `path` is a folder with two files. oh2016_maps.npz has, for every task, arrays [N, H, W]
    "task/topology" (1 is floor, anything else wall), "task/goal" (goal id of a cell, or 0) and
    "task/spawn" (1 where an episode may begin). oh2016_tasks.json has "tasks", and for each name
    "time_limit", "step_reward", "goals" (of "sequence", "rewards" and "terminate") and "blocks"
    (of "goal_ids" and "color"). A goal may be out of reach in some of the maps. Environment
    variables in `path` are expanded, as in $MEMRL_MAZES, so that a config suits other machines too.

    Raises ValueError for a file that is missing or has another format, and for an unknown task.
    """
    folder = Path(os.path.expandvars(path))
    if not path:
        raise ValueError(f"path: '' names no folder with {MAPS} and {TASKS}")
    for name in (MAPS, TASKS):
        if not (folder / name).is_file():
            raise ValueError(f"path: {path!r} has no file {name}")
    try:
        tasks = json.loads((folder / TASKS).read_text())["tasks"]
        rules = _rules(tasks[checks.known("task", task, tasks)])
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"path: {TASKS} in {path!r} is not of this kind ({error!r})") from None
    try:
        with np.load(folder / MAPS) as data:
            topology, goal, spawn = (data[f"{task}/{k}"] for k in ("topology", "goal", "spawn"))
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"path: {MAPS} in {path!r} is not of this kind ({error!r})") from None
    return maze(Maps(topology != 1, goal, spawn != 0), rules, rows, columns)


def _rules(task: dict[str, Any]) -> Rules:
    goals = (
        Goal(tuple(goal["sequence"]), tuple(goal["rewards"]), bool(goal["terminate"]))
        for goal in task["goals"]
    )
    colours = {
        goal_id: view.BLOCKS.index(checks.known("color", block["color"].lower(), view.BLOCKS[2:]))
        for block in task["blocks"]
        for goal_id in block["goal_ids"]
    }
    return Rules(tuple(goals), colours, task["step_reward"], task["time_limit"])
