"""No field of any config is ignored: another value is another program, or is refused.

Programs are traced, not compiled: a jaxpr and its constants say all that a run will do.
"""

import re
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters import partial_eval

from memrl_jax import build, settings
from memrl_jax.agents import AGENTS
from memrl_jax.config import Config
from memrl_jax.environments import ENVIRONMENTS, view
from memrl_jax.spaces import Continuous
from memrl_jax.testing.probes import PROBES, environment
from memrl_jax.types import Environment


def seen(kind: str = "discrete", shape: tuple[int, ...] = (), probe: str = "both") -> Environment:
    """Make a probe whose observation is an array of a shape, all alike; () leaves it a number."""
    env = environment(PROBES[probe], kind)
    if not shape:
        return env
    space = Continuous(shape, jnp.dtype(jnp.float32), 0.0, 9.0)
    return view(env, lambda x: jnp.full(shape, x, jnp.float32), space)


@pytest.fixture(autouse=True)
def probes_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENTS, "Probe", seen)


BASE: dict[str, Any] = {
    "environment": "Probe",
    "environments": 2,
    "rollout_length": 4,
    "total_steps": 960,
    "capacity": 160,
    "learning_starts": 16,
    "batch_size": 4,
    "encoder": (4,),
    "window": 4,
    "minibatches": 1,
}
# Where a field of the defaults' is refused, it has to be read in one of these.
CONTEXTS: list[dict[str, Any]] = [
    {},
    {"memory": "gru", "memory_args": {"features": 4}},
    {"replay": "prioritized"},
    {"environment_args": {"shape": (2,)}},
    {"environment_args": {"shape": (3, 4, 5)}},
    {"environment_args": {"kind": "multi-discrete"}},
    {"environment_args": {"kind": "continuous"}},
    {"restart": 3},
]
# What switches on all floats that do nothing, or are None, in the defaults.
ALL_ON: dict[str, Any] = {
    "replay": "prioritized",
    "td_lambda": 0.5,
    "rescaling": 1e-3,
    "decay_updates": 100.0,
    "max_gradient_norm": 1.0,
    "value_clip": 0.2,
    "max_kl": 0.02,
    "target_entropy": 0.3,
}
OTHER: dict[str, Any] = {  # values, where one more would not do
    "environment": "TMaze",
    "environment_args": {"probe": "later"},
    "view": ("sticky=0.5",),
    "memory": "mingru",
    "memory_args": {"features": 5},
    "convolutions": ((2, 2, 1, 0),),
    "channels": 0,
    "loss": "huber",
    "freeze": ("head",),
    "target_entropy": 0.25,
    "key_size": 3,
    "capacity": 320,
    "learning_starts": 40,
    "total_steps": 1920,
    "restart": 3,
    "environments": 4,
    **ALL_ON,
}
ELSEWHERE = {"imports"}  # what it does is done before anything is made: tests/test_own_parts.py


def other(name: str, value: Any) -> Any:
    """Return another value of a field's kind."""
    if name in OTHER:
        return OTHER[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return value / 2 if value else 0.25
    if isinstance(value, int):
        return value + 1
    if isinstance(value, tuple):
        return (*value, 3)
    raise AssertionError(f"{name}: say in OTHER which value there is beside {value!r}")


def configured(name: str, context: dict[str, Any]) -> Config:
    """Return a small config of an agent, of which only the fields that the agent has are set."""
    config = Config(agent=AGENTS[name][0]())
    known = settings.named(config)
    return config.replace(**{k: x for k, x in (BASE | context).items() if k in known})


def program(config: Config) -> tuple[Any, ...]:
    """Return the jaxprs of a run as text, and their constants."""
    trainer, steps = build.make(config)
    init, (train, _) = jax.make_jaxpr(trainer.init, return_shape=True)(jax.random.key(0))
    step = jax.make_jaxpr(trainer.step)(train)
    texts = [re.sub(r"0x[0-9a-f]+", "", str(x.jaxpr)) for x in (init, step)]
    return (steps, *texts, *(_bits(x) for jaxpr in (init, step) for x in jaxpr.consts))


def _bits(x: Any) -> bytes:
    is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x).tobytes()


@cache
def usual(name: str, context: int) -> tuple[Any, ...]:
    return program(configured(name, CONTEXTS[context]))


def changes(name: str, field: str, context: int) -> bool | None:
    """Tell whether another value of a field changes the program; None where it is refused."""
    config = configured(name, CONTEXTS[context])
    try:
        changed = program(config.replace(**{field: other(field, settings.named(config)[field])}))
    except ValueError as error:
        assert re.match(rf"{field}\b", str(error)) or not makes(config), (field, str(error))
        return None
    return changed != usual(name, context)


def makes(config: Config) -> bool:
    """Tell whether the agent is one for this config at all."""
    try:
        build.make(config)
    except ValueError:
        return False
    return True


SHARED = [name for name in settings.named(Config()) if name in vars(Config())]
FIELDS = [
    (name, field)
    for name, (config, _) in AGENTS.items()
    for field in settings.named(config())
    if not isinstance(settings.named(config())[field], float)
] + [("dqn", field) for field in SHARED if field not in ELSEWHERE]


@pytest.mark.parametrize("name, field", FIELDS)
def test_another_value_is_another_program_or_refused(name: str, field: str) -> None:
    for context in range(len(CONTEXTS)):
        found = changes(name, field, context)
        if found is not None:
            assert found, f"{field} is ignored by {name} with {CONTEXTS[context]}"
            return
    raise AssertionError(f"{field}: nothing was found where {name} would take another value")


@pytest.mark.parametrize("name", AGENTS)
def test_floats_may_be_traced_and_each_is_read(name: str) -> None:
    """By default or with all switched on; where one is not read by default, it is refused."""
    plain, full = (configured(name, context) for context in ({}, ALL_ON))
    unread = [field for field, read in floats(plain).items() if not read]
    assert all(floats(full).values()), (floats(full), full)
    for field in unread:
        value = settings.named(plain)[field]
        with pytest.raises(ValueError, match=rf"^{field}\b"):
            build.make(plain.replace(**{field: other(field, value)}))


@cache
def floats(config: Config) -> dict[str, bool]:
    """Tell of every float of a config whether what training does depends on it."""
    values = {k: x for k, x in settings.named(config).items() if isinstance(x, float)}

    def run(values: dict[str, Any]) -> Any:
        trainer, _ = build.make(config.replace(**values))
        return trainer.step(trainer.init(jax.random.key(0))[0])

    jaxpr = jax.make_jaxpr(run)(values).jaxpr
    _, read = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return dict(zip(sorted(values), read, strict=True))
