"""Whether an agent learns what there is to learn, and keeps to what trainers rely on."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import checks, tree
from memrl_jax.environments import batch
from memrl_jax.environments.check import draw
from memrl_jax.rollout import rollout
from memrl_jax.testing.agent_trial import LANES, Trial
from memrl_jax.testing.differences import same
from memrl_jax.testing.probes import KINDS, PROBES, Probe, value
from memrl_jax.types import Agent, Environment

NOTHING, AT_THE_END, EVERYWHERE = range(3)
PLACES = [2, 4]  # in PROBES: one of several steps, and one with a cue and actions


def check_agent(
    make: Callable[[Environment], Agent],
    actions: str = "discrete",
    steps: int = 500,
    rollout: int = 4,
    environments: int = 8,
    discount: float = 0.9,
    tolerance: float = 0.2,
    remembers: bool = False,
    number_actions: bool = False,
    seed: int = 0,
) -> None:
    """Train an agent on environments with known values: pass in silence, or say what to mend.

    `make` returns the agent for an environment, e.g. `partial(build.make_agent, config)`. It is
    trained for `steps` rollouts of `rollout` actions in so many `environments`, on all probes of
    `testing.probes` side by side, with one of their KINDS of `actions`; with `number_actions` every
    combination of several is one. Its own `discount` has to be this one. Episodes have at most 3
    steps. Raises ValueError in one line, with the probe and the step, if

    - it does not earn what a probe pays, or tells a value that is off by more than `tolerance`; the
      probe of memory counts if it `remembers`;
    - it does what is not legal;
    - `act` gives other actions for the same arguments, or for another key without exploring;
    - `with_params(state, params(state))` acts otherwise;
    - training from a state does not go on bit for bit, or not twice in the same way;
    - what is done where an episode has ended changes what is learned, or nothing is learned.

    Warns if `inspect` tells no values. Masks are tried only with masked `actions`.
    """
    checks.known("actions", actions, KINDS)
    given = actions, steps, rollout, environments, discount, tolerance, remembers, number_actions
    trial = Trial(make, *given, seed)
    for holds in PROPERTIES:
        holds(trial)
    if not {"value", "q"} & trial.trained.segment.extras.record.keys():
        told = "inspect tells neither value nor q, so that values were not checked"
        warnings.warn(f"{trial.name}: {told}", stacklevel=2)


def probes_are_solved(trial: Trial) -> None:
    """What is earned, and the values that the agent tells, are the known ones."""
    for i, (probed, probe) in enumerate(PROBES.items()):
        if probed == "remembered" and not trial.remembers:
            continue
        t = jax.tree.map(lambda x, i=i: x[i], trial.trained.segment)
        cue = np.where(probe.cued, t.timestep.observation[0], 1)
        due = value(probe, cue, np.arange(probe.length)[:, None], trial.discount)
        earned, short = t.timestep.reward[probe.length], 0.2 * (trial.actions == "continuous")
        what = f"{trial.name}: the probe {probed!r}, after {trial.steps} rollouts"
        if (bad := earned < due[-1] - short).any():
            told = f"earns {earned[bad][0]:.3g}, not {due[-1][bad][0]:.3g}"
            raise ValueError(f"{what}: {told}, at step {probe.length}")
        thought = _believed(t, probe.length)
        if thought is not None and (bad := ~(np.abs(thought - due) <= trial.tolerance)).any():
            where = tuple(np.argwhere(bad)[0])
            told = f"{thought[where]:.3g}, not {np.broadcast_to(due, bad.shape)[where]:.3g}"
            raise ValueError(f"{what}: its value is {told}, at step {where[0]}")


def _believed(segment: Any, length: int) -> Any:
    """Return the values [length, B] that an agent expects, if it tells."""
    record, legal = segment.extras.record, segment.timestep.legal
    if "value" in record:
        return record["value"][:length]
    if "q" not in record:
        return None
    q = record["q"] if isinstance(legal, tuple) else np.where(legal[:-1], record["q"], -np.inf)
    return q.max(axis=-1)[:length]


def nothing_illegal_is_ever_done(trial: Trial) -> None:
    """Neither while it learns nor after that."""
    for probed, count in zip(PROBES, trial.trained.illegal, strict=True):
        if count:
            raise ValueError(f"{trial.name}: the probe {probed!r}: {count} actions were not legal")


def acting_is_a_function_of_its_arguments(trial: Trial) -> None:
    """The same arguments give the same action; without exploring, whatever the key is."""
    told = trial.trained.segment.extras
    _at_each_step(trial, told.pure, "act: the same arguments give another action")
    _at_each_step(trial, told.greedy, "act: without exploring, another key gives another action")


def parameters_can_be_taken_out_and_put_back(trial: Trial) -> None:
    """The agent is the same after that."""
    restored = trial.trained.restored[:, None]
    _at_each_step(trial, restored, "with_params: the parameters are others than were given")
    told = trial.trained.segment.extras
    _at_each_step(trial, told.restored, "with_params: with the same parameters, another action")


def _at_each_step(trial: Trial, good: Any, what: str) -> None:
    """Raise ValueError for the first probe and step at which flags [probes, T] are not set."""
    if not good.all():
        probe, step = np.argwhere(~good)[0]
        raise ValueError(
            f"{trial.name}: {what}, with the probe {[*PROBES][probe]!r} at step {step}"
        )


def training_goes_on_bit_for_bit(trial: Trial) -> None:
    """From a state in the middle, and again from the first one."""
    begun = trial.begin(LANES, trial.keys)

    def go(train: Any, steps: int) -> Any:
        return trial.go(LANES, train, jnp.int32(steps))

    whole, name = go(begun, 7), trial.name
    same(f"{name}: learn: 3 and 4 rollouts are not 7: the state", go(go(begun, 3), 4), whole, 0)
    same(f"{name}: learn: again it is not the same: the state", go(begun, 7), whole, 0)


def what_is_done_when_an_episode_has_ended_teaches_nothing(trial: Trial) -> None:
    """Neither that action counts, nor an action or reward at the start that follows."""
    lessons = jax.jit(jax.vmap(partial(_taught, trial)))
    probes = Probe(*(x[PLACES] for x in LANES))
    keys = jax.random.split(jax.random.key(trial.seed + 3), len(PLACES))
    plain, ended, all_over = (
        lessons(probes, keys, jnp.full(len(PLACES), where))
        for where in (NOTHING, AT_THE_END, EVERYWHERE)
    )
    what = "what is done where an episode has ended changes what is learned"
    same(f"{trial.name}: learn: {what}: params", ended[0], plain[0], 0)
    same(f"{trial.name}: learn: {what}: metrics", ended[1], plain[1], 0)
    if all(jax.tree.leaves(jax.tree.map(lambda x, y: (x == y).all(), plain[0], all_over[0]))):
        raise ValueError(f"{trial.name}: learn: actions and rewards change nothing in 12 rollouts")


def _taught(trial: Trial, probe: Probe, key: Any, where: Any) -> Any:
    """Return parameters and metrics after 12 rollouts that are `confused` somewhere."""
    env, agent, trainer = trial.made(probe)
    train, _ = trainer.init(key)

    def step(train: Any, key: Any) -> Any:
        act_key, learn_key, junk_key = jax.random.split(key, 3)

        def policy(key: Any, memory: Any, timestep: Any) -> Any:
            return agent.act(key, train.agent, memory, timestep)

        actor, segment = rollout(batch(env), policy, train.actor, act_key, trial.rollout)
        segment = _confused(segment, env.spec.actions, junk_key, where)
        state = agent.observe(train.agent, segment)
        state, metrics = agent.learn(learn_key, state, segment)
        return train._replace(actor=actor, agent=state), metrics

    train, metrics = jax.lax.scan(step, train, jax.random.split(key, 12))
    metrics.pop("q_sum", None)  # a mean of what is thought, not of what is learned from
    return agent.params(train.agent), metrics


def _confused(segment: Any, actions: Any, key: Any, where: Any) -> Any:
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


PROPERTIES = (
    acting_is_a_function_of_its_arguments,
    nothing_illegal_is_ever_done,
    probes_are_solved,
    parameters_can_be_taken_out_and_put_back,
    training_goes_on_bit_for_bit,
    what_is_done_when_an_episode_has_ended_teaches_nothing,
)
