"""Parameters that a run takes from another, kept in its folder: it needs the other no more."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax import checks
from memrl_jax.config import Config, to_json
from memrl_jax.run import checkpoint

FILE = "taken.ckpt"


class Taken(NamedTuple):
    """What a new run begins with."""

    record: dict[str, Any]  # JSON, for config.json: of which run, as of when, and which parts
    params: dict[str, Any]  # by part, [S, ...] for the seeds of the new run


def record(path: str, config: Config, timestep: int, parts: Sequence[str]) -> dict[str, Any]:
    """Return what is told of parameters of the run at `path`, as of a timestep."""
    digest = hashlib.sha256(to_json(config).encode()).hexdigest()
    return {"run": path, "config": digest, "timestep": timestep, "parts": [*parts]}


def choose(params: Mapping[str, Any], parts: Sequence[str], seeds: int) -> dict[str, Any]:
    """Return parts of parameters [S, ...] for other seeds: of the same number, cyclically.

    Raises ValueError without parts, and for unknown ones.
    """
    if not parts:
        raise ValueError("take: nothing; name at least one part")
    for part in parts:
        checks.known("take", part, params)

    def cycled(x: Any) -> Any:
        return x[jnp.arange(seeds) % len(x)]

    return {part: jax.tree.map(cycled, params[part]) for part in parts}


def save(place: Path, taken: Taken | None) -> None:
    """Write to the folder of a run what it begins with, if it takes anything."""
    if taken is not None:
        checkpoint.save(place / FILE, taken.params, taken.record)


def load(place: Path, record: Mapping[str, Any], like: Mapping[str, Any]) -> Taken:
    """Return what a run begins with, as its config.json tells; `like` are all parameters' shapes.

    Raises ValueError if it cannot be read, or is not what config.json tells.
    """
    path = place / FILE
    said = checkpoint.about(path)
    if said != record:
        raise ValueError(f"{path}: has {said}, and config.json says that {record} was taken")
    return Taken(said, checkpoint.load(path, {part: like[part] for part in said["parts"]}))
