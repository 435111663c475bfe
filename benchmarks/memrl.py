"""Our agents: whole training as `memrl train` runs it, and the pieces of an iteration alone."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import memrl_jax
from benchmarks.targets import MAKE_TRAIN
from benchmarks.timing import Program, begun_anew, compiled, loop
from memrl_jax import distributions, parallel, tree
from memrl_jax.agents import dqn
from memrl_jax.agents.optimizer import make_optimizer
from memrl_jax.agents.ppo import Batch, ppo_loss, with_advantages
from memrl_jax.build import make_agent, make_environment, parts
from memrl_jax.config import Config
from memrl_jax.environments import batch
from memrl_jax.networks import actor_critic
from memrl_jax.rollout import rollout
from memrl_jax.run.program import Carry, Run, make_program
from memrl_jax.settings import named
from memrl_jax.train import TrainState
from memrl_jax.types import Agent, Environment, ReplayMemory, Segment, State, TimeStep


class Begun(NamedTuple):
    """Training of some seeds that has warmed up and whose replay memories are full."""

    config: Config
    program: memrl_jax.run.program.Program
    carry: Carry  # [S, ...]


def begin(config: Config, seeds: int) -> Begun:
    """Warm up on all devices, as `memrl train` does."""
    program = make_program(config, Run(seeds=seeds))
    carry = program.init(parallel.pad((program.lanes.keys(), {}, None), seeds))

    # An agent without a replay memory has nothing to fill.
    if named(config).get("learning_starts", 0) >= named(config).get("capacity", 0):
        return Begun(config, program, carry)

    def fill(carry: Carry) -> Carry:
        return carry._replace(train=filled(config, carry.train))

    return Begun(config, program, parallel.update_seeds(fill, seeds)(carry))


def training(begun: Begun) -> Program:
    """Prepare the chunks of steps that `memrl train` is made of; takes what was begun."""
    config, program, carry = begun

    def steps(carry: Carry) -> int:
        return int(program.totals(carry)["steps"].sum())

    case = ("memrl", named(config).get("capacity", 0), program.run.seeds)
    return compiled(case, program.chunk.jitted, carry, steps)


def anew(config: Config, seeds: int, iterations: int) -> Program:
    """Prepare `make_train` from Python; several seeds are vmapped. Its warm-up is short."""
    config = config.replace(learning_starts=2 * config.environments)
    rollout = config.environments * config.rollout_length
    warmup = make_agent(config, make_environment(config)).warmup
    steps = (warmup + iterations) * rollout
    train = memrl_jax.make_train(config.replace(total_steps=steps))
    case = MAKE_TRAIN, named(config)["capacity"], seeds
    return begun_anew(case, train, iterations, steps)


def filled(config: Config, train: TrainState) -> TrainState:
    """Repeat what warm-up collected until a uniform replay memory is full.

    Windows then come from all of it, without the time it takes to act that often.
    """
    replay = train.agent.replay
    collected = -(-named(config)["learning_starts"] // config.environments)
    rows = replay.record.shape[1]
    record = replay.record[:, jnp.arange(rows) % min(collected, rows)]
    added = jnp.int32(rows // config.rollout_length)
    agent = train.agent._replace(replay=replay._replace(record=record, added=added))
    return train._replace(agent=agent)


def pieces(begun: Begun) -> list[Program]:
    """Prepare act, add, sample, update, and learn, which is all after `add`; for one seed.

    With prioritized replay, new priorities are a piece of their own.
    """
    config = begun.config
    train = tree.at(begun.carry.train, 0)
    env = make_environment(config)
    agent, given_parts = make_agent(config, env), parts(config, env)
    settings: Any = config.agent
    replay = given_parts.replay(settings.experience)
    sample = jax.jit(replay.sample)(train.key, train.agent.replay)
    # An agent whose replay memory holds one sample and always returns it.
    given = replay._replace(
        sample=lambda key, state: state, update=lambda state, index, priority: (state, {})
    )
    learner = dqn(settings, env.spec, given_parts.body(settings.body), given)
    act, acting = _act(batch(env), agent, train, config.rollout_length)
    segment = acting[-1]
    loops = {
        "act": (act, acting),
        "add": (partial(_add, agent), (train.agent, segment)),
        "sample": (partial(_sample, replay), (train.key, train.agent.replay, sample)),
        "update": _learn(learner, train.agent._replace(replay=sample), segment),
        "learn": _learn(agent, train.agent, segment),
    }
    if settings.experience.replay == "prioritized":
        priority = jnp.linspace(0, 1, settings.experience.batch_size, dtype=jnp.float32)
        given_priority = (train.agent.replay, sample.index, priority)
        loops["prioritize"] = (partial(_prioritize, replay), given_priority)
    return [
        # They share arrays so far, and each is about to donate its own.
        compiled((name, named(config)["capacity"], 1), loop(step), jax.tree.map(jnp.copy, carry))
        for name, (step, carry) in loops.items()
    ]


def ppo_pieces(begun: Begun) -> list[Program]:
    """Prepare what PPO does after a rollout, and as many gradient steps on one minibatch."""
    config = begun.config
    train = tree.at(begun.carry.train, 0)
    env = make_environment(config)
    agent, given = make_agent(config, env), parts(config, env)
    act, acting = _act(batch(env), agent, train, config.rollout_length)
    segment = acting[-1]
    ours: Any = config.agent
    distribution = distributions.from_space(env.spec.actions)
    network = actor_critic(
        given.body(ours.body), distribution.size, ours.head, ours.body.layers, ours.separate
    )
    size = config.environments // ours.minibatches
    reward = segment.timestep.reward[1:]
    whole = with_advantages(train.agent.learner.params, network, ours, segment, reward)
    share = Batch(
        tree.at(whole.memory, slice(size)), *jax.tree.map(lambda x: x[:, :size], whole[1:])
    )
    optimizer = make_optimizer(ours.optimizer)

    def gradients(carry: Any) -> Any:
        def step(learner: Any, _: None) -> tuple[Any, None]:
            grad = jax.grad(ppo_loss, has_aux=True)
            gradient, _ = grad(learner.params, network, distribution, ours, share)
            step, moments = optimizer.update(gradient, learner.optimizer, learner.params)
            return learner._replace(
                params=optax.apply_updates(learner.params, step), optimizer=moments
            ), None

        return jax.lax.scan(step, carry, length=ours.epochs * ours.minibatches)[0]

    loops = {
        "act": (act, acting),
        "gradients": (gradients, train.agent.learner),
        "learn": _learn(agent, train.agent, segment),
    }
    return [
        compiled((name, 0, 1), loop(step), jax.tree.map(jnp.copy, carry))
        for name, (step, carry) in loops.items()
    ]


def products(case: tuple[int, int], units: tuple[int, int], batch: int) -> Program:
    """Prepare the matrix products between two hidden layers in a gradient step of SAC, no more.

    8 forwards: the policy before and after the action, two critics of the action taken and of the
    policy's, two target critics; and 8 backwards. `case` is capacity and seeds.
    """
    # With orthonormal columns numbers stay as they are, however often they go back and forth.
    w = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (max(units), max(units))))[0]
    w = w[: units[0], : units[1]]

    def both(x: Any, _: None) -> Any:
        return (x @ w) @ w.T, None

    x = jax.random.normal(jax.random.key(1), (batch, units[0]))
    return compiled(("products", *case), loop(lambda x: jax.lax.scan(both, x, length=8)[0]), x)


def _act(env: Environment, agent: Agent, train: TrainState, length: int) -> tuple[Any, Any]:
    """Return rollouts of a policy that does not change, and what they carry."""

    def act(carry: Any) -> Any:
        key, state, actor, _ = carry
        key, act_key = jax.random.split(key)

        def policy(key: Any, memory: State, timestep: TimeStep) -> Any:
            return agent.act(key, state, memory, timestep)

        return key, state, *rollout(env, policy, actor, act_key, length)

    return act, jax.jit(act)((train.key, stripped(train.agent), train.actor, ()))


def stripped(state: State) -> State:
    """Leave out the replay memory, which acting does not read."""
    return state._replace(replay=()) if hasattr(state, "replay") else state


def _add(agent: Agent, carry: Any) -> Any:
    state, segment = carry
    # Something new each time, or it would be packed before the loop.
    timestep = segment.timestep._replace(reward=segment.timestep.reward + 1)
    segment = segment._replace(timestep=timestep)
    return agent.observe(state, segment), segment


def _sample(replay: ReplayMemory, carry: Any) -> Any:
    key, state, _ = carry
    key, sample_key = jax.random.split(key)
    return key, state, replay.sample(sample_key, state)


def _prioritize(replay: ReplayMemory, carry: Any) -> Any:
    state, index, priority = carry
    priority = (priority + 0.618) % 1
    return replay.update(state, index, priority)[0], index, priority


def _learn(agent: Agent, state: State, segment: Segment) -> tuple[Any, Any]:
    """Return updates from a replay memory that does not change, and what they carry."""

    def learn(carry: Any) -> Any:
        key, state, _ = carry
        key, learn_key = jax.random.split(key)
        return key, *agent.learn(learn_key, state, segment)

    shapes = jax.eval_shape(learn, (jax.random.key(0), state, ()))[-1]
    metrics = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return learn, (jax.random.key(0), state, metrics)
