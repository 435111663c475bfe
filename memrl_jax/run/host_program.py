"""Runs in environments on the host: Python steps them, and jitted functions act and learn.

Seeds take turns. Each has environments of its own; while one learns, which is dispatched and not
waited for, the next one acts. So learning and stepping overlap, and yet every rollout is acted with
the newest parameters, and a seed's numbers do not depend on how many run beside it.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax import draws, transfer, tree
from memrl_jax.build import make_agent_on_host, make_on_host, per_rollout
from memrl_jax.config import Config
from memrl_jax.environments.base import EpisodeStatistics
from memrl_jax.environments.host import HostEnvironment
from memrl_jax.host_rollout import acting, evaluate, rollout, seed_from, stacked
from memrl_jax.rollout import Actor, Evaluation
from memrl_jax.run import limits, sums
from memrl_jax.run.ahead import CompiledFunction
from memrl_jax.run.lanes import Lanes
from memrl_jax.run.program import Carry, Program, Run, check, estimate, labels, of_one, of_seeds
from memrl_jax.spaces import Continuous, Discrete, dtype, over
from memrl_jax.train import Metrics, TrainState, learned, received
from memrl_jax.types import Agent, Key, Segment, Spec, TimeStep

LOST = (
    "the state of environments on the host is in no checkpoint: new episodes begin here, and "
    "numbers are not those of a run without interruption"
)


class Parts(NamedTuple):
    """The compiled functions of one seed."""

    begin: CompiledFunction  # key, TimeStep [B], parameters to begin with or None -> Carry
    act: CompiledFunction  # agent state, key, memory, TimeStep [B] -> as `host_rollout.Act`
    observe: CompiledFunction  # Carry, key, Actor, Segment -> Carry; in the warm-up; donates
    learn: CompiledFunction  # the same, and learns
    greedy: CompiledFunction  # as `act`, in [E] environments


class Stage(NamedTuple):
    """What the functions of a program share."""

    config: Config
    run: Run
    agent: Agent
    parts: Parts
    training: list[HostEnvironment]  # [S] of B copies, once training begins
    playing: list[HostEnvironment]  # [1] of E copies, once there is an evaluation


def make_host_program(config: Config, run: Run, taken: Any = None) -> Program:
    """Prepare a run whose environments step on the host; nothing is compiled yet.

    It begins with parameters `taken` [S, ...], by part. Raises ValueError for settings out of
    range, for parameters of other shapes and for what the environment raises, MemoryError if the
    states alone do not fit.
    """
    check(run)
    lanes = Lanes(run.seed, run.seeds)
    agent, spec, steps = make_agent_on_host(config)
    parts, one = _parts(config, run, agent, spec, of_one(taken))
    stage = Stage(config, run, agent, parts, [], [])
    compiled = parts.learn, parts.act, parts.greedy, parts.begin
    return Program(
        config,
        run,
        lanes,
        init=partial(_init, stage),
        chunk=partial(_chunk, stage),
        evaluate=partial(_evaluate, stage),
        elsewhere=lambda other: partial(_evaluate, stage._replace(config=other, playing=[])),
        params=agent.params,
        parts=(*compiled, parts.observe) if agent.warmup else compiled,
        shapes=of_seeds(one, run.seeds),
        estimate=estimate(config, run, lanes, one.train, limits.room(1)),
        per_step=per_rollout(config),
        first_step=config.total_steps - steps * per_rollout(config),
        total_steps=config.total_steps,
        lost=LOST,
    )


def _init(stage: Stage, first: tuple[Key, Any, Any]) -> Carry:
    """Begin episodes and warm up, with keys [S] and parameters [S, ...] or None.

    Nothing varies between seeds.
    """
    config, run, (keys, _, taken) = stage.config, stage.run, first
    stage.training[:] = [make_on_host(config, config.environments) for _ in range(run.seeds)]
    each = zip(stage.training, _of_seeds(stage, (keys, taken)), strict=True)
    return _joined([_warmed_up(stage, env, *given) for env, given in each])


def _warmed_up(stage: Stage, env: HostEnvironment, key: Key, taken: Any) -> Carry:
    key, env_key = draws.split(key)
    carry = stage.parts.begin.executable(key, env.reset(seed_from(env_key)), taken)
    for _ in range(stage.agent.warmup):
        carry = _step(stage, stage.parts.observe, env, carry)
    return carry


def _chunk(stage: Stage, carry: Carry, steps: Any) -> Carry:
    """Take some training steps of every seed, in turns.

    States are copied where a chunk begins and ends, and held twice there.
    """
    carries = _of_seeds(stage, carry)
    if not stage.training:
        pairs = [_resumed(stage, carry) for carry in carries]
        stage.training[:], carries = (list(x) for x in zip(*pairs, strict=True))
    for _ in range(int(steps)):
        for i, env in enumerate(stage.training):
            carries[i] = _step(stage, stage.parts.learn, env, carries[i])
    return _joined(carries)


def _step(stage: Stage, part: CompiledFunction, env: HostEnvironment, carry: Carry) -> Carry:
    """Act for a rollout, and hand it to `part`, which is not waited for."""
    train, act = carry.train, stage.parts.act.executable
    length = stage.config.rollout_length
    return part.executable(carry, *rollout(env, act, train.agent, train.actor, train.key, length))


def _resumed(stage: Stage, carry: Carry) -> tuple[HostEnvironment, Carry]:
    """Go on in new environments: the episodes that were under way count as truncated."""
    env = make_on_host(stage.config, stage.config.environments)
    key, env_key = draws.split(carry.train.key)
    begun = [env.reset(seed_from(env_key))]
    actor = carry.train.actor
    cut = actor.timestep._replace(last=jnp.ones_like(actor.timestep.last))
    train = carry.train._replace(key=key, actor=actor._replace(timestep=cut))

    def step(action: Any) -> TimeStep:
        return begun.pop() if begun else env.step(action)

    return env._replace(step=step), carry._replace(train=train)


def _evaluate(stage: Stage, given: tuple[Key, Any, Any]) -> Evaluation:
    """Play greedy episodes, [S, E], with keys and agent states [S]."""
    episodes = stage.run.evaluate_episodes
    if not stage.playing:
        stage.playing.append(make_on_host(stage.config, episodes))
    memory, greedy = stage.agent.initial_memory(episodes), stage.parts.greedy.executable
    played = [
        evaluate(stage.playing[0], greedy, state, memory, key)
        for key, state in _of_seeds(stage, given[:2])
    ]
    return stacked(played)


def _of_seeds(stage: Stage, xs: Any) -> list[Any]:
    """Return a list of what is for each seed, from arrays [S, ...] that may have been padded."""
    return _parted(jax.device_put(xs, jax.devices()[0]), stage.run.seeds)


@partial(jax.jit, static_argnums=1)
def _parted(xs: Any, seeds: int) -> list[Any]:
    return [tree.at(tree.clone_keys(xs), i) for i in range(seeds)]


@jax.jit
def _joined(xs: list[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *xs)


def _parts(config: Config, run: Run, agent: Agent, spec: Spec, taken: Any) -> tuple[Parts, Carry]:
    """Return the functions of one seed, and the shapes of its carry."""
    copies, room = config.environments, limits.room(1)
    act = acting(agent, explore=True)
    key = jax.eval_shape(lambda: jax.random.key(0))
    timestep = timesteps(spec, copies)
    train = jax.eval_shape(partial(_train_state, agent), key, timestep, taken)
    memory = train.actor.memory
    _, _, *done = jax.eval_shape(act, train.agent, key, memory, timestep)
    action, extras = of_seeds(done, config.rollout_length)
    segment = Segment((), timesteps(spec, config.rollout_length + 1, copies), action, extras)
    rolled = key, Actor((), timestep, memory), segment
    _, metrics = jax.eval_shape(partial(_learned, agent), train, *rolled)
    carry = Carry(train, jax.eval_shape(lambda: sums.zeros(metrics)), {})
    playing = jax.eval_shape(lambda: agent.initial_memory(run.evaluate_episodes))
    training, evaluation = labels(config, run)

    def begin(key: Key, timestep: TimeStep, taken: Any) -> Carry:
        return Carry(_train_state(agent, key, timestep, taken), sums.zeros(metrics), {})

    def observe(carry: Carry, *rolled: Any) -> Carry:
        train, found = _observed(agent, carry.train, *rolled)
        none = {name: jnp.zeros(x.shape, x.dtype) for name, x in metrics.items()}
        return Carry(train, sums.add(carry.sums, none | found), {})

    def learn(carry: Carry, *rolled: Any) -> Carry:
        train, found = _learned(agent, carry.train, *rolled)
        return Carry(train, sums.add(carry.sums, found), {})

    def compiled(f: Any, shapes: Any, needs: str, **options: Any) -> CompiledFunction:
        return CompiledFunction(jax.jit(f, **options), shapes, needs, room, 1)

    greedy = train.agent, key, playing, timesteps(spec, run.evaluate_episodes)
    parts = Parts(
        compiled(begin, (key, timestep, taken), "the warm-up needs"),
        compiled(act, (train.agent, key, memory, timestep), "acting needs"),
        compiled(observe, (carry, *rolled), "the warm-up needs", donate_argnums=0),
        compiled(learn, (carry, *rolled), training, donate_argnums=0),
        compiled(acting(agent, explore=False), greedy, evaluation),
    )
    return parts, carry


def _train_state(agent: Agent, key: Key, timestep: TimeStep, taken: Any) -> TrainState:
    """Begin training at timesteps [B], with parameters by part or None."""
    key, agent_key = draws.split(key)
    copies = timestep.reward.shape[0]
    actor = Actor((), timestep, agent.initial_memory(copies))
    state = transfer.begin(agent, agent_key, timestep, taken)
    return TrainState(key, actor, EpisodeStatistics.zeros(copies), state)


def _observed(
    agent: Agent, train: TrainState, key: Key, actor: Actor, segment: Segment
) -> tuple[TrainState, Metrics]:
    """Take in a rollout, without its memory."""
    whole = segment._replace(memory=train.actor.memory)
    return received(agent, train._replace(key=key), actor, whole)


def _learned(
    agent: Agent, train: TrainState, key: Key, actor: Actor, segment: Segment
) -> tuple[TrainState, Metrics]:
    """Take in a rollout, without its memory, and learn from it."""
    whole = segment._replace(memory=train.actor.memory)
    train, metrics = received(agent, train._replace(key=key), actor, whole)
    train, learning = learned(agent, train, whole)
    return train, metrics | learning | {"training_steps": jnp.int32(1)}


def timesteps(spec: Spec, *axes: int) -> TimeStep:
    """Return the shapes and dtypes of timesteps [*axes, ...]."""

    def shape(part: Discrete | Continuous) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*axes, *part.shape), dtype(part))

    number: Any = jax.ShapeDtypeStruct(axes, jnp.float32)
    flag: Any = jax.ShapeDtypeStruct(axes, jnp.bool_)
    legal = jax.ShapeDtypeStruct((*axes, spec.actions.n), jnp.bool_) if spec.legal else ()
    observation, action = over(shape, spec.observations), over(shape, spec.actions)
    return TimeStep(observation, action, number, number, flag, flag, legal)
