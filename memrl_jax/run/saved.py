"""Runs as they were last saved: read, evaluated, watched, taken from."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from memrl_jax import checks, draws, parallel, tree
from memrl_jax.build import make, make_agent, make_agent_on_host, make_environment, make_on_host
from memrl_jax.config import Config
from memrl_jax.environments import on_host
from memrl_jax.host_rollout import player as host_player
from memrl_jax.rollout import Episode, Evaluation, player
from memrl_jax.run import elsewhere, folder, greedy, snapshot, taken
from memrl_jax.run.lanes import EVALUATE, WATCH
from memrl_jax.run.preparing import prepared
from memrl_jax.run.program import Carry, Program, Run
from memrl_jax.run.program import check as check_run
from memrl_jax.run.taken import Taken


def read(path: str) -> tuple[Path, Config, Run]:
    """Return the folder, config and options of a run; raises ValueError if it is not one."""
    place, config, run = opened(path)
    if varied := folder.varied(place):
        raise ValueError(f"run: {path} are several runs, of other {', '.join(varied)}: a sweep's")
    return place, config, run


def opened(path: str) -> tuple[Path, Config, Run]:
    """Do as `read`, also where a folder has several runs in one."""
    place, config, options = folder.read(path)
    for name in options:
        checks.known(f"{path}/config.json", name, [f.name for f in dataclasses.fields(Run)])
    with folder.of_config(place):
        run = Run(**options | {"out": path})
        check_run(run)
        (make_agent_on_host if on_host(config.environment) else make)(config)
    return place, config, run


def load(program: Program, place: Path) -> tuple[Carry, snapshot.About]:
    """Return the last checkpoint, padded, and its metadata."""
    carry, about = snapshot.load(place, program.shapes)
    return program.lanes.pad(carry), about


def evaluate(
    path: str,
    episodes: int,
    seed: int,
    environment: str | None = None,
    environment_args: Mapping[str, Any] = MappingProxyType({}),
) -> Evaluation:
    """Play greedy episodes, [S, episodes], with every seed of a run as it was last saved.

    They are played in another environment if one, or other parameters than the run's, are given.
    Raises ValueError if the folder or its checkpoint cannot be read, and for an environment with
    other spaces.
    """
    place, config, run = read(path)
    checks.positive("episodes", episodes)
    run = dataclasses.replace(run, evaluate_episodes=episodes, seed=seed)
    program = prepared(config, run)
    carry, _ = load(program, place)
    if environment is not None or environment_args:
        other = elsewhere.moved(config, environment, environment_args)
        program = program._replace(evaluate=program.elsewhere(other))
    return greedy.play(program, carry, EVALUATE)


def take(path: str, parts: Sequence[str], seeds: int) -> Taken:
    """Return parts of the parameters of a run as it was last saved, for the seeds of a new one.

    Each takes those of the seed of the same number, cyclically. Raises ValueError if the folder or
    its checkpoint cannot be read, and for parts that there are not.
    """
    place, config, run = read(path)
    program = prepared(config, run)
    agents, about = _agents(program, place)
    chosen = taken.choose(jax.vmap(program.params)(agents), parts, seeds)
    return Taken(taken.record(path, config, about.timestep, parts), chosen)


def play(path: str, seed: int, episodes: int) -> list[Episode]:
    """Play and record greedy episodes with one seed of a run as it was last saved.

    Raises ValueError if the run has no such seed, or the folder or its checkpoint cannot be read.
    """
    place, config, run = read(path)
    checks.positive("episodes", episodes)
    checks.within("seed", checks.at_least("seed", seed, 0), 0, run.seeds - 1)
    program = prepared(config, run)
    state = tree.at(_agents(program, place)[0], seed)
    episode = _player(config)
    key = parallel.seed_keys(run.seed, run.seeds, WATCH)[seed]
    return [episode(state, draws.fold_in(key, i)) for i in range(episodes)]


def trained(path: str) -> tuple[Config, Run, Any]:
    """Return the config and options of a run, and the agents' states [S, ...] as last saved.

    Raises ValueError if the folder or its checkpoint cannot be read.
    """
    place, config, run = read(path)
    return config, run, _agents(prepared(config, run), place)[0]


def _agents(program: Program, place: Path) -> tuple[Any, snapshot.About]:
    """Return the agents' states [S, ...] as last saved, and the metadata of that checkpoint."""
    carry, about = snapshot.load(place, program.shapes)
    return jax.tree.map(jnp.asarray, program.lanes.first(carry.train.agent)), about


def _player(config: Config) -> Callable[[Any, Any], Episode]:
    if on_host(config.environment):
        host = make_on_host(config, 1)
        return host_player(host, make_agent(config, host))
    env = make_environment(config)
    return player(env, make_agent(config, env))
