"""An agent to be tried out: compiled and trained on all probes at once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax.environments import batch, numbered
from memrl_jax.rollout import initial, rollout
from memrl_jax.testing.probes import PROBES, STEPS, Probe, environment
from memrl_jax.train import Trainer, make_trainer
from memrl_jax.types import Agent, Environment

LANES = Probe(*(np.stack(x) for x in zip(*PROBES.values(), strict=True)))


class Made(NamedTuple):
    """An agent on a probe."""

    env: Environment
    agent: Agent
    trainer: Trainer


class Told(NamedTuple):
    """What an agent tells at one step, and whether `act` keeps to its promises there."""

    record: dict[str, Any]  # [B, ...] what `inspect` tells
    pure: Any  # [] bool: the same arguments give the same action
    greedy: Any  # [] bool: without exploring the key does not matter, but for equal values
    restored: Any  # [] bool: the same action after `with_params`


class Look(NamedTuple):
    """Greedy episodes after training, one in each of B environments."""

    segment: Any  # [STEPS + 1, B, ...]; extras: Told
    illegal: Any  # [] int32 actions that were, also while training
    restored: Any  # [] bool: the same parameters after `with_params`


@dataclass(frozen=True, eq=False)
class Trial:
    """An agent on all probes of one kind of actions side by side, compiled once it is needed."""

    make: Callable[[Environment], Agent]
    actions: str = "discrete"
    steps: int = 500
    rollout: int = 4
    environments: int = 8
    discount: float = 0.9
    tolerance: float = 0.2
    remembers: bool = False
    number_actions: bool = False
    seed: int = 0
    name: str = "agent"

    def made(self, probe: Probe) -> Made:
        """Make the agent for a probe, which may be traced."""
        env = environment(probe, self.actions)
        env = numbered(env) if self.number_actions else env
        agent = self.make(env)
        return Made(env, agent, make_trainer(env, agent, self.environments, self.rollout))

    @cached_property
    def begin(self) -> Any:
        """Compile: probes, keys -> TrainState."""
        return jax.jit(jax.vmap(lambda probe, key: self.made(probe).trainer.init(key)[0]))

    @cached_property
    def go(self) -> Any:
        """Compile: probes, TrainState, steps -> TrainState."""

        def go(probe: Probe, train: Any, steps: Any) -> Any:
            step = self.made(probe).trainer.step
            return jax.lax.fori_loop(0, steps, lambda _, train: step(train)[0], train)

        return jax.jit(jax.vmap(go, (0, 0, None)))

    @cached_property
    def look(self) -> Any:
        """Compile: probes, TrainState, key -> Look."""
        return jax.jit(jax.vmap(partial(_look, self), (0, 0, None)))

    @cached_property
    def trained(self) -> Look:
        """Train on all probes, and look at what was learned."""
        train = self.go(LANES, self.begin(LANES, self.keys), jnp.int32(self.steps))
        return jax.device_get(self.look(LANES, train, jax.random.key(self.seed + 1)))

    @property
    def keys(self) -> Any:
        """One key a probe."""
        return jax.random.split(jax.random.key(self.seed), len(PROBES))


def _look(trial: Trial, probe: Probe, train: Any, key: Any) -> Look:
    env, agent, _ = trial.made(probe)
    many, state = batch(env), train.agent
    again = agent.with_params(state, agent.params(state))

    def policy(key: Any, memory: Any, timestep: Any) -> Any:
        def act(key: Any, state: Any = state, explore: bool = False) -> Any:
            return agent.act(key, state, memory, timestep, explore=explore)

        after, action, _ = act(key)
        record, other = agent.inspect(state, memory, timestep), jax.random.fold_in(key, 1)
        explored = [act(key, explore=True)[1] for _ in range(2)]
        pure = _equal(action, act(key)[1]) & _equal(*explored)
        greedy = _as_good(record, action, act(other)[1])
        return after, action, Told(record, pure, greedy, _equal(action, act(key, again)[1]))

    reset_key, act_key = jax.random.split(key)
    memory = agent.initial_memory(trial.environments)
    actor = initial(many, memory, reset_key, trial.environments)
    actor, segment = rollout(many, policy, actor, act_key, STEPS)
    before, after = train.actor.environment.state, actor.environment.state
    restored = _equal(agent.params(state), agent.params(again))
    return Look(segment, before.illegal.sum() + after.illegal.sum(), restored)


def _as_good(record: dict[str, Any], action: Any, other: Any) -> Any:
    if "q" not in record:
        return _equal(action, other)
    of = partial(jnp.take_along_axis, record["q"], axis=-1)
    return _equal(of(action[:, None]), of(other[:, None]))


def _equal(x: Any, y: Any) -> Any:
    pairs = zip(*map(jax.tree.leaves, (x, y)), strict=True)
    return jnp.all(jnp.stack([jnp.all(a == b) for a, b in pairs]))
