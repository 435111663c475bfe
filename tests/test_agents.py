"""What every agent has to do: solve the probes, keep to what is legal, and be reproducible.

An agent is trained on all probes at once, side by side, one program for a kind of actions; its
settings are in `TINY`.
"""

import re
from functools import cache, partial
from itertools import product
from typing import Any, NamedTuple

import pytest

from memrl_jax import build, settings
from memrl_jax.agents import AGENTS
from memrl_jax.config import Config
from memrl_jax.testing.agent import (
    PROPERTIES,
    training_goes_on_bit_for_bit,
    what_is_done_when_an_episode_has_ended_teaches_nothing,
)
from memrl_jax.testing.agent_trial import Trial
from memrl_jax.testing.probes import KINDS, PROBES, STEPS, environment

ENVIRONMENTS, DISCOUNT = 8, 0.9


class Tiny(NamedTuple):
    """Settings of an agent that solves the probes in seconds."""

    steps: int  # of the trainer
    error: float  # most that a value may be off
    given: dict[str, Any]
    rollout: int = 4  # actions in a step of the trainer


_LEARNER: dict[str, Any] = {"encoder": (16,), "discount": DISCOUNT, "learning_rate": 1e-2}
_REPLAY: dict[str, Any] = {"batch_size": 16, "window": 4, "capacity": 1600, "learning_starts": 320}
_TARGET = {"target_period": 1, "target_rate": 0.05}
_RANDOM = {"epsilon_start": 1.0, "epsilon_end": 1.0}
_TABLES: dict[str, Any] = {"entries": 64, "neighbours": 5}
TINY = {
    "dqn": Tiny(800, 0.2, _LEARNER | _REPLAY | _RANDOM | _TARGET | {"head": (16,)}),
    "mfec": Tiny(100, 0.05, _TABLES | _RANDOM | {"discount": DISCOUNT}),
    "nec": Tiny(120, 0.2, _LEARNER | _REPLAY | _RANDOM | _TABLES | {"n_step": 1, "key_size": 16}),
    # With rollouts of 4 actions, a memory fails to learn the cue for some keys.
    "ppo": Tiny(
        250,
        0.2,
        _LEARNER | {"minibatches": 1, "gae_lambda": 0.8, "learning_rate": 5e-3},
        rollout=16,
    ),
    # Lambda-returns are those of what is done next, and that is random here.
    "pqn": Tiny(900, 0.2, _LEARNER | _RANDOM | {"head": (16,), "td_lambda": 0.0, "epochs": 2}),
    "sac": Tiny(500, 0.2, _LEARNER | _REPLAY | {"head": (16,), "target_rate": 0.05}),
    "tabular": Tiny(
        300, 0.05, _RANDOM | {"discount": DISCOUNT, "remembered": STEPS, "learning_rate": 0.5}
    ),
}


def configured(name: str, memory: str) -> Config:
    """Return a tiny config of an agent."""
    given = TINY[name].given
    if memory != "none":
        given = given | {"memory": memory, "memory_args": {"features": 16}}
    config = Config(agent=AGENTS[name][0]())
    return config.replace(environments=ENVIRONMENTS, rollout_length=TINY[name].rollout, **given)


@cache
def trial(name: str, kind: str, memory: str) -> Trial:
    """Make an agent to try out, on numbered combinations if it takes one action only."""
    config, tiny = configured(name, memory), TINY[name]
    return Trial(
        partial(build.make_agent, config),
        kind,
        tiny.steps,
        tiny.rollout,
        ENVIRONMENTS,
        DISCOUNT,
        tiny.error,
        remembers=memory != "none" or "remembered" in tiny.given,
        number_actions="numbered" in refusal(name, kind),
        name=f"agent: {name}",
    )


def refusal(name: str, kind: str) -> str:
    """Return why an agent does not take a kind of actions; "" if it does."""
    try:
        build.make_agent(configured(name, "none"), environment(PROBES["both"], kind))
    except ValueError as error:
        return str(error)
    return ""


TAKEN = [(name, kind) for name, kind in product(AGENTS, KINDS) if not refusal(name, kind)]
WITH_A_BODY = {name for name in AGENTS if "memory" in settings.named(AGENTS[name][0]())}


def memory_for(name: str, kind: str) -> str:
    """Return the memory to try: a network's where actions are masked or continuous, else none."""
    return "gru" if name in WITH_A_BODY and kind in ("masked", "continuous") else "none"


# Masked actions are the others and more; those that are not are tried with some agents.
PLAIN = {("dqn", "discrete"), ("sac", "discrete")}
CASES = [
    (name, kind, memory_for(name, kind))
    for name, kind in TAKEN
    if kind.startswith("masked") or kind == "continuous" or (name, kind) in PLAIN
]
CASES += [("dqn", "masked multi-discrete", "gru")]  # combinations are numbered


@pytest.mark.parametrize("name", AGENTS)
def test_every_kind_of_action_is_taken_or_refused_in_one_line(name: str) -> None:
    assert any(refusal(name, kind) == "" for kind in KINDS)
    for kind in KINDS:
        said = refusal(name, kind)
        assert re.fullmatch(rf"(agent: {name} takes .*)?", said), said
        assert ("numbered" in said) == (bool(said) and kind.endswith("multi-discrete"))


# How much is learned where an episode has ended does not depend on a memory.
ONCE = [(name, kind) for name, kind in TAKEN if kind in ("discrete", "continuous")]
AT_AN_END = what_is_done_when_an_episode_has_ended_teaches_nothing
HOLDING = [(*case, holds) for holds in PROPERTIES if holds != AT_AN_END for case in CASES]
HOLDING += [(name, kind, "none", AT_AN_END) for name, kind in ONCE]


@pytest.mark.parametrize("name, kind, memory, holds", HOLDING)
def test_agents_keep_what_the_checks_hold(name: str, kind: str, memory: str, holds: Any) -> None:
    holds(trial(name, kind, memory))


@pytest.mark.parametrize("name, kind, memory", CASES)
def test_training_is_compiled_once(name: str, kind: str, memory: str) -> None:
    tried = trial(name, kind, memory)
    training_goes_on_bit_for_bit(tried)
    assert (tried.begin._cache_size(), tried.go._cache_size()) == (1, 1)
