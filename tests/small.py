"""The smallest run that learns anything: seconds to compile, milliseconds to train."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import memrl_jax
from memrl_jax.build import make_body
from memrl_jax.networks import QHead
from memrl_jax.types import Environment, Network, Segment, TimeStep

SMALL = memrl_jax.presets["drqn"].replace(
    environment="TMaze",
    environments=2,
    encoder=(8,),
    memory_args={"features": 8},
    total_steps=640,
    window=4,
    batch_size=4,
    capacity=160,
    learning_starts=80,
    target_period=5,
)


def q_network(config: memrl_jax.Config, env: Environment) -> Network:
    """Make the network that a DQN agent of this config has."""
    agent: Any = config.agent
    head = QHead(env.spec.actions.n, agent.head, agent.dueling, agent.body.layers)
    return make_body(agent.body, env.spec)(head)


def random_segment(config: Any, memory: Any) -> Segment:
    """Make up what two environments with two observed numbers and four actions could have given."""
    rng = np.random.default_rng(0)
    shape = config.rollout_length + 1, config.environments
    start = rng.uniform(size=shape) < 0.2
    fields: dict[str, Any] = dict(
        observation=rng.normal(size=(*shape, 2)).astype(np.float32),
        action=rng.integers(4, size=shape, dtype=np.int32),
        reward=rng.normal(size=shape).astype(np.float32),
        discount=np.ones(shape, np.float32),
        start=start,
        last=np.roll(start, -1, axis=0),
    )
    timestep = TimeStep(**{name: jnp.asarray(value) for name, value in fields.items()})
    return Segment(memory, timestep, timestep.action[:-1], ())


def write_original_maps(folder: Path, tasks: list[str]) -> None:
    """Write files of maps like the original ones: for each task, three cells with a goal."""
    goal = np.array([[[0, 0, 2]]], np.uint8)
    arrays: dict[str, Any] = {"topology": goal * 0 + 1, "goal": goal, "spawn": goal * 0 + [1, 0, 0]}
    named = {f"{task}/{name}": x for task in tasks for name, x in arrays.items()}
    np.savez(folder / "oh2016_maps.npz", **named)
    rules = {
        "time_limit": 9,
        "step_reward": -0.1,
        "goals": [{"sequence": [2], "rewards": [1.0], "terminate": 1}],
        "blocks": [{"goal_ids": [2], "color": "CYAN"}],
    }
    (folder / "oh2016_tasks.json").write_text(json.dumps({"tasks": dict.fromkeys(tasks, rules)}))
