"""What every agent has to do: solve the probes, keep to what is legal, and be reproducible.

An agent is trained on all probes at once, side by side, one program for a kind of actions; its
settings are in `TINY`.
"""

import re
from functools import cache, partial
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax import build, settings, tree
from memrl_jax.agents import AGENTS
from memrl_jax.config import Config
from memrl_jax.environments import batch, numbered
from memrl_jax.environments.check import draw
from memrl_jax.rollout import initial, rollout
from memrl_jax.train import make_trainer
from memrl_jax.types import Agent, Environment
from tests.probes import KINDS, PROBES, STEPS, Probe, environment, value

ENVIRONMENTS, DISCOUNT = 8, 0.9
NAMES = [*PROBES]
LANES = Probe(*(np.stack(x) for x in zip(*PROBES.values(), strict=True)))
same = partial(jax.tree.map, np.testing.assert_array_equal)


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


def remembers(name: str, memory: str) -> bool:
    return memory != "none" or "remembered" in TINY[name].given


class Made(NamedTuple):
    env: Environment
    agent: Agent
    trainer: Any


def made(name: str, kind: str, memory: str, probe: Probe) -> Made:
    """Make an agent, on numbered combinations if it takes one action only."""
    config = configured(name, memory)
    env = environment(probe, kind)
    try:
        agent = build.make_agent(config, env)
    except ValueError as error:
        if "environments.numbered" not in str(error):
            raise
        env = numbered(env)
        agent = build.make_agent(config, env)
    return Made(env, agent, make_trainer(env, agent, ENVIRONMENTS, TINY[name].rollout))


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


class Programs(NamedTuple):
    """What is compiled for a case, over all probes side by side."""

    begin: Any  # probes, keys -> TrainState
    go: Any  # probes, TrainState, steps -> TrainState
    look: Any  # probes, TrainState, key -> what the agent does and thinks, as `Look`


class Look(NamedTuple):
    """Greedy episodes of E environments, and what has to hold whatever was learned."""

    segment: Any  # extras: what `inspect` tells
    illegal: Any  # [] int32 actions that were
    repeated: Any  # [] bool: the same action whatever the key, or one of the same value
    restored: Any  # [] bool: the same parameters and actions after `with_params`


@cache
def programs(name: str, kind: str, memory: str) -> Programs:
    def begin(probe: Probe, key: Any) -> Any:
        return made(name, kind, memory, probe).trainer.init(key)[0]

    def go(probe: Probe, train: Any, steps: Any) -> Any:
        trainer = made(name, kind, memory, probe).trainer
        return jax.lax.fori_loop(0, steps, lambda _, train: trainer.step(train)[0], train)

    def look(probe: Probe, train: Any, key: Any) -> Look:
        env, agent, _ = made(name, kind, memory, probe)
        many, state = batch(env), train.agent
        again = agent.with_params(state, agent.params(state))

        def policy(key: Any, memory: Any, timestep: Any) -> Any:
            other = jax.random.fold_in(key, 1)
            record = agent.inspect(state, memory, timestep)
            after, action, _ = agent.act(key, state, memory, timestep, explore=False)
            _, second, _ = agent.act(other, state, memory, timestep, explore=False)
            _, third, _ = agent.act(key, again, memory, timestep, explore=False)
            repeated = _as_good(record, action, second)
            return after, action, (record, repeated, _equal(action, third))

        reset_key, act_key = jax.random.split(key)
        actor = initial(many, agent.initial_memory(ENVIRONMENTS), reset_key, ENVIRONMENTS)
        actor, segment = rollout(many, policy, actor, act_key, STEPS)
        record, repeated, restored = segment.extras
        restored = restored.all() & _equal(agent.params(state), agent.params(again))
        illegal = (
            train.actor.environment.state.illegal.sum() + actor.environment.state.illegal.sum()
        )
        return Look(segment._replace(extras=record), illegal, repeated.all(), restored)

    return Programs(
        jax.jit(jax.vmap(begin)),
        jax.jit(jax.vmap(go, (0, 0, None))),
        jax.jit(jax.vmap(look, (0, 0, None))),
    )


def _as_good(record: dict[str, Any], action: Any, other: Any) -> Any:
    if "q" not in record:
        return _equal(action, other)
    of = partial(jnp.take_along_axis, record["q"], axis=-1)
    return _equal(of(action[:, None]), of(other[:, None]))


def _equal(x: Any, y: Any) -> Any:
    return jnp.all(
        jnp.stack([jnp.all(a == b) for a, b in zip(*map(jax.tree.leaves, (x, y)), strict=True)])
    )


def keys() -> Any:
    return jax.random.split(jax.random.key(0), len(NAMES))


@cache
def trained(name: str, kind: str, memory: str) -> tuple[Any, Look]:
    run = programs(name, kind, memory)
    train = run.go(LANES, run.begin(LANES, keys()), jnp.int32(TINY[name].steps))
    return train, jax.device_get(run.look(LANES, train, jax.random.key(1)))


@pytest.mark.parametrize("name, kind, memory", CASES)
def test_probes_are_solved(name: str, kind: str, memory: str) -> None:
    _, look = trained(name, kind, memory)
    for i, (probed, probe) in enumerate(PROBES.items()):
        if probed == "remembered" and not remembers(name, memory):
            continue
        t = jax.tree.map(lambda x, i=i: x[i], look.segment)
        cue = np.where(probe.cued, t.timestep.observation[0], 1)
        time = np.arange(probe.length)[:, None]
        due = value(probe, cue, time, DISCOUNT)
        earned = t.timestep.reward[probe.length]
        short = 0.2 if kind == "continuous" else 0.0
        assert (earned >= due[-1] - short).all(), (probed, earned, due[-1])
        thought = believed(t, probe.length)
        if thought is not None:
            np.testing.assert_allclose(thought, due, atol=TINY[name].error, err_msg=probed)


def believed(segment: Any, length: int) -> Any:
    """Return the values [T, E] that an agent expects, if it tells."""
    record, legal = segment.extras, segment.timestep.legal
    if "value" in record:
        return record["value"][:length]
    if "q" not in record:
        return None
    q = record["q"] if isinstance(legal, tuple) else np.where(legal[:-1], record["q"], -np.inf)
    return q.max(axis=-1)[:length]


@pytest.mark.parametrize("name, kind, memory", CASES)
def test_nothing_illegal_is_ever_done(name: str, kind: str, memory: str) -> None:
    _, look = trained(name, kind, memory)
    np.testing.assert_array_equal(look.illegal, 0)


@pytest.mark.parametrize("name, kind, memory", CASES)
def test_acting_without_exploring_is_deterministic(name: str, kind: str, memory: str) -> None:
    assert trained(name, kind, memory)[1].repeated.all()


@pytest.mark.parametrize("name, kind, memory", CASES)
def test_parameters_can_be_taken_out_and_put_back(name: str, kind: str, memory: str) -> None:
    assert trained(name, kind, memory)[1].restored.all()


@pytest.mark.parametrize("name, kind, memory", CASES)
def test_training_goes_on_bit_for_bit_and_is_compiled_once(
    name: str, kind: str, memory: str
) -> None:
    run = programs(name, kind, memory)
    begun = run.begin(LANES, keys())
    whole = run.go(LANES, begun, jnp.int32(7))
    part = run.go(LANES, run.go(LANES, begun, jnp.int32(3)), jnp.int32(4))
    same(_bits(part), _bits(whole))
    same(_bits(run.go(LANES, begun, jnp.int32(7))), _bits(whole))
    assert (run.begin._cache_size(), run.go._cache_size()) == (1, 1)


def _bits(state: Any) -> Any:
    def bits(x: Any) -> Any:
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    return jax.tree.map(bits, state)


NOTHING, AT_THE_END, EVERYWHERE = range(3)


ONCE = [(name, kind) for name, kind in TAKEN if kind in ("discrete", "continuous")]


@pytest.mark.parametrize("name, kind", ONCE)
def test_what_is_done_when_an_episode_has_ended_teaches_nothing(name: str, kind: str) -> None:
    """Neither that action counts, nor an action or reward at the start that follows."""

    @jax.jit
    @jax.vmap
    def taught(probe: Probe, key: Any, where: Any) -> Any:
        env, agent, trainer = made(name, kind, "none", probe)
        train, _ = trainer.init(key)

        def step(train: Any, key: Any) -> Any:
            act_key, learn_key, junk_key = jax.random.split(key, 3)

            def policy(key: Any, memory: Any, timestep: Any) -> Any:
                return agent.act(key, train.agent, memory, timestep)

            actor, segment = rollout(batch(env), policy, train.actor, act_key, TINY[name].rollout)
            segment = confused(segment, env.spec.actions, junk_key, where)
            state = agent.observe(train.agent, segment)
            state, metrics = agent.learn(learn_key, state, segment)
            return train._replace(actor=actor, agent=state), metrics

        train, metrics = jax.lax.scan(step, train, jax.random.split(key, 12))
        metrics.pop("q_sum", None)  # a mean of what is thought, not of what is learned from
        return agent.params(train.agent), metrics

    both = Probe(*(x[[2, 4]] for x in LANES))
    key = jax.random.split(jax.random.key(3), 2)
    plain, ended, all_over = (
        taught(both, key, jnp.full(2, w)) for w in (NOTHING, AT_THE_END, EVERYWHERE)
    )
    same(_bits(plain), _bits(ended))
    differs = jax.tree.map(lambda x, y: bool((x != y).any()), _bits(plain[0]), _bits(all_over[0]))
    assert any(jax.tree.leaves(differs))


def confused(segment: Any, actions: Any, key: Any, where: Any) -> Any:
    """Put other actions and rewards where an episode has ended, or everywhere."""
    t = segment.timestep
    ended = ((where == AT_THE_END) & t.last[:-1]) | (where == EVERYWHERE)
    keys = jax.random.split(key, t.last[:-1].shape)
    drawn = jax.vmap(jax.vmap(partial(draw, actions)))(keys, tree.at(t.legal, slice(-1)))
    action = tree.where(ended, drawn, segment.action)
    shown = jax.tree.map(
        lambda first, a: jnp.concatenate([first[:1], a]),
        t.action,
        tree.where(ended, drawn, tree.at(t.action, slice(1, None))),
    )
    reward = t.reward.at[1:].add(jnp.where(ended, 5.0, 0.0))
    return segment._replace(action=action, timestep=t._replace(action=shown, reward=reward))
