"""The config of a training run, as data: nothing is made here."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import jax
import numpy as np
from flax.core import FrozenDict

from memrl_jax import checks, imports, kinds, settings
from memrl_jax.agents import AGENTS, DQNConfig
from memrl_jax.settings import Settings, static


class Config(Settings):
    """One training run. Floats may be traced and vmapped over; everything else recompiles.

    `config.replace(name=value)` replaces a setting by its name, also in the agent and its parts.
    """

    environment: str = static("CartPole-v1")
    """Environment to train on; `memrl list` names them. One of your own is module:name, one of
    Gymnasium's gymnasium:ID; these step on the host, outside of JAX."""
    environment_args: Mapping[str, Any] = static(FrozenDict())
    """Parameters of the environment, as name=value."""
    view: tuple[str, ...] = static(())
    """What hides a part of the observations, or makes acting less reliable: hide=COLUMN,...,
    flicker=CHANCE, noise=DEVIATION, delay=STEPS, drop=CHANCE, sticky=CHANCE, random_start=MOST; the
    first one first."""
    number_actions: bool = static(False)
    """Number the combinations of several discrete actions, for agents that take one."""
    frames: int = static(1)
    """Last observations that are seen at once; replay stores each a single time."""
    environments: int = static(10)
    """Copies of the environment that are stepped together (num_envs)."""
    data_parallel: int = static(1)
    """Shards that the copies are divided among, over several devices if there are (dqn, pqn, ppo,
    sac): each keeps and samples its own experience, and gradients are averaged over all of them."""
    rollout_length: int = static(1)
    """Actions in every copy between two updates (num_steps)."""
    total_steps: checks.Steps = static(500_000)
    """Timesteps of a whole run, over all copies; the one that begins an episode counts, though
    nothing is done in it, so there are fewer environment steps: those are the axis of all
    curves."""
    restart: int | None = static(None)
    """Updates after which a fresh network takes over, once, with all that was experienced before:
    what is learned first can keep a network from learning more (Nikishin et al. 2022). None goes
    on."""
    restart_hold: int = static(0)
    """Updates for which the old network then goes on acting."""
    imports: tuple[str, ...] = static(())
    """Modules of your own to import first, by name or as the path of a .py file: what they enter in
    ENVIRONMENTS, MEMORIES, REPLAYS, AGENTS or presets can be named. Kept as they are given, and
    imported again where the run is resumed, evaluated or watched: do that in the same folder, or
    give an absolute path."""
    agent: Settings = DQNConfig()
    """How the agent learns."""

    def __post_init__(self) -> None:
        """Import the modules in `imports`, and freeze."""
        checks.kind("imports", self.imports, tuple[str, ...])
        for module in self.imports:
            imports.load("imports", module)
        super().__post_init__()


def agent_name(config: Config) -> str:
    """Return the name in AGENTS of the agent whose settings have the class of `config.agent`."""
    cls = type(config.agent)
    names = [name for name, (known, _) in AGENTS.items() if known is cls]
    if not names:
        known = ", ".join(x.__name__ for x, _ in AGENTS.values())
        raise ValueError(f"agent: {cls.__name__} belongs to no agent ({known})")
    if len(names) > 1:
        raise ValueError(f"agent: {cls.__name__} is the config of {' and '.join(names)}")
    return names[0]


def check(config: Config) -> None:
    """Raise ValueError for an agent that is not in AGENTS, and for fields of the wrong type."""
    agent_name(config)
    settings.check(config)


def to_json(config: Config) -> str:
    """Write a config as JSON text; raises ValueError for fields of the wrong type."""
    check(config)
    given = _plain(config)
    return json.dumps(given | {"agent": {"name": agent_name(config), **given["agent"]}}, indent=2)


def _plain(config: Settings) -> dict[str, Any]:
    """Return the fields as JSON types."""
    given = {f.name: getattr(config, f.name) for f in fields(config)}
    return {k: _plain(x) if isinstance(x, Settings) else plain(k, x) for k, x in given.items()}


def plain(field: str, value: Any) -> Any:
    """Return `value` as JSON types; raises ValueError, which names `field`, if it has none.

    Scalars of NumPy and JAX become Python numbers.
    """
    if isinstance(value, Mapping):
        return {name: plain(f"{field}: {name}", x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [plain(field, x) for x in value]
    if isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0:
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{field}: {str(value)!r} cannot be written to config.json")


def from_json(text: str) -> Config:
    """Read a config from JSON text and import its `imports`; raises ValueError if it is invalid."""
    try:
        given = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"config: not JSON ({error})") from None
    given, agent = _without("config", given, "agent")
    agent, name = _without("config: agent", agent, "name")
    config = _read("config", Config, given)
    cls, _ = AGENTS[checks.known("config: agent", name, AGENTS)]
    return config.replace(agent=_read("config: agent", cls, agent))


def _without(field: str, given: Any, name: str) -> tuple[dict[str, Any], Any]:
    """Return a mapping without one entry, and the value of that entry."""
    checks.kind(field, given, Mapping)
    if name not in given:
        raise ValueError(f"{field}: {name} is missing")
    return {key: value for key, value in given.items() if key != name}, given[name]


def _read(field: str, cls: Any, given: Any) -> Any:
    """Make settings, and the parts within them, from JSON types."""
    checks.kind(field, given, Mapping)
    meant = kinds.hints(cls)
    for name in given:
        checks.known(field, name, [f.name for f in fields(cls)])
    read = {
        name: _read(f"{field}: {name}", meant[name], x) if is_part(meant[name]) else x
        for name, x in given.items()
    }
    checks.options(field, cls, read)
    return cls(**read)


def is_part(hint: Any) -> bool:
    """Tell whether a field with this type hint holds settings of its own."""
    return isinstance(hint, type) and issubclass(hint, Settings)


def flat(config: Config) -> dict[str, Any]:
    """Return all settings as JSON types, by the names of the command line."""
    check(config)
    given = {"agent": agent_name(config), **settings.named(config)}
    return {name: plain(name, x) for name, x in given.items()}
