"""Trained agents evaluated in another environment than their own, as they are."""

from collections.abc import Mapping
from typing import Any

from memrl_jax import parallel, shards, spaces
from memrl_jax.build import make_agent, make_environment, make_on_host
from memrl_jax.config import Config
from memrl_jax.environments import on_host
from memrl_jax.run.ahead import CompiledFunction
from memrl_jax.run.lanes import Lanes
from memrl_jax.train import make_trainer
from memrl_jax.types import Key, Spec


def moved(config: Config, name: str | None, args: Mapping[str, Any]) -> Config:
    """Return a config with another environment, or with its own if `name` is None, and `args`.

    Raises ValueError unless the spaces are the same and both step in the same place.
    """
    other = config.replace(environment=name or config.environment, environment_args=args)
    if on_host(other.environment) != on_host(config.environment):
        raise ValueError(
            f"environment: of {other.environment} and {config.environment}, in which the run was "
            "trained, one steps on the host and the other does not"
        )
    for field, theirs, ours in zip(Spec._fields, spec(other), spec(config), strict=True):
        if not spaces.same(theirs, ours):
            has, had = (" ".join(str(x).split()) for x in (theirs, ours))
            raise ValueError(
                f"environment: {field} of {other.environment} are {has}, and of "
                f"{config.environment}, in which the run was trained, {had}"
            )
    return other


def spec(config: Config) -> Spec:
    """Return what is seen and done in the environment of a config."""
    if not on_host(config.environment):
        return make_environment(config).spec
    env = make_on_host(config, 1)
    env.close()
    return env.spec


def evaluation(
    config: Config, lanes: Lanes, episodes: int, usual: CompiledFunction, other: Config
) -> CompiledFunction:
    """Return what `usual` is for a config's own environment, for that of another config.

    A row plays so many episodes.
    """
    agent = make_agent(config, make_environment(config))
    trainer = make_trainer(make_environment(other), agent, 1, 1)

    def evaluate(x: tuple[Key, Any, Any]) -> Any:
        key, agent, _ = x
        return trainer.evaluate(shards.own(key), agent, episodes)

    play = parallel.over_seeds(evaluate, lanes.size, lanes.shards)
    return CompiledFunction(play, usual.shapes, usual.needs, usual.room, usual.devices)
