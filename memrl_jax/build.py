"""The composition root: only here are an environment, an agent and its parts put together."""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from memrl_jax import checks, environments, imports
from memrl_jax.agents import AGENTS, Parts, restarting
from memrl_jax.config import Config, agent_name, check
from memrl_jax.environments import frame_stack, numbered
from memrl_jax.environments.host import GYMNASIUM, HostEnvironment
from memrl_jax.environments.views import through
from memrl_jax.memory import MEMORIES
from memrl_jax.networks import encoder, recurrent
from memrl_jax.replay import REPLAYS, ring
from memrl_jax.schedules import linear
from memrl_jax.settings import BodyConfig, ReplayConfig, named
from memrl_jax.train import Metrics, Trainer, TrainState, make_trainer
from memrl_jax.types import Agent, Body, Environment, Key, NeuralMemory, ReplayMemory, Spec

SHARDED = "dqn", "pqn", "ppo", "sac"  # agents that change by averaged gradients alone


def make_environment(config: Config) -> Environment:
    """Make one environment; raises ValueError for unknown names, options and values."""
    check(config)
    checks.positive("frames", config.frames, checks.UNROLLED)
    env = environments.make(config.environment, config.environment_args)
    env = through(env, config.view)
    env = numbered(env) if config.number_actions else env
    return env if config.frames == 1 else frame_stack(env, config.frames)


def make_on_host(config: Config, copies: int) -> HostEnvironment:
    """Make copies of an environment that steps on the host.

    Raises ValueError for unknown names and options, and for settings of environments within JAX.
    """
    check(config)
    for field in ("view", "number_actions", "frames", "data_parallel"):
        value = getattr(config, field)
        if value != getattr(Config, field):
            raise ValueError(
                f"{field}: {checks.shown(value)} is for environments within JAX, and "
                f"{config.environment} steps on the host"
            )
    name = config.environment.removeprefix(GYMNASIUM)
    return environments.from_gymnasium(name, copies, **config.environment_args)


def make_agent(config: Config, env: Environment | HostEnvironment) -> Agent:
    """Make the agent with all its parts; raises ValueError for what does not fit together."""
    check(config)
    _check_shards(config)
    _, construct = AGENTS[agent_name(config)]
    agent = construct(config.agent, parts(config, env))
    checks.kind("agent", agent, Agent)
    if config.restart is not None:
        _check_restart(config)
        return restarting(agent, config.restart, config.restart_hold)
    if config.restart_hold:
        raise ValueError(f"restart_hold: {config.restart_hold} updates after restart = None")
    return agent


def _check_shards(config: Config) -> None:
    """Raise ValueError for shards of an agent that does not learn by averaged gradients alone."""
    if checks.positive("data_parallel", config.data_parallel) == 1:
        return
    if agent_name(config) not in SHARDED:
        named = f"{', '.join(SHARDED)}, not {agent_name(config)}"
        raise ValueError(f"data_parallel: {config.data_parallel} shards are for {named}")
    if config.restart is not None:
        said = f"restart: {config.restart} is not for data_parallel = {config.data_parallel}"
        raise ValueError(said)


def _check_restart(config: Config) -> None:
    """Raise ValueError for a restart of parameters that are frozen."""
    if freeze := named(config.agent).get("freeze"):
        raise ValueError(f"restart: {config.restart} begins anew with all, also freeze = {freeze}")


def parts(config: Config, env: Environment | HostEnvironment) -> Parts:
    """Return the parts that the agent of a config can be made from."""
    body = partial(make_body, spec=env.spec)
    return Parts(env.spec, env.horizon, body, partial(make_replay, config=config))


def make_body(config: BodyConfig, spec: Spec) -> Body:
    """Return `body(head) -> Network`; raises ValueError for unknown memories and settings."""
    return partial(recurrent, encoder(config, spec), make_memory(config))


def make_memory(config: BodyConfig) -> NeuralMemory:
    """Make the memory; raises ValueError for unknown memories and options."""
    part = imports.part("memory", config.memory, MEMORIES)
    constructor = (lambda: part) if isinstance(part, NeuralMemory) else part
    checks.kind("memory", constructor, Callable)
    checks.options("memory_args", constructor, config.memory_args)
    memory = constructor(**config.memory_args)
    checks.kind("memory", memory, NeuralMemory)
    return memory


def make_replay(experience: ReplayConfig, config: Config) -> ReplayMemory:
    """Make the replay memory; raises ValueError for sizes that do not fit together."""
    constructor = imports.part("replay", experience.replay, REPLAYS)
    checks.kind("replay", constructor, Callable)
    segments, period, length, stride = _sizes(experience, config)
    replay = constructor(
        segments=segments,
        period=period,
        length=length,
        batch_size=_per_shard("batch_size", experience.batch_size, config),
        stride=stride,
        **_priorities(experience, constructor),
        **_frames(experience, config, constructor),
    )
    checks.kind("replay", replay, ReplayMemory)
    starts = checks.at_least("learning_starts", experience.learning_starts, 0)
    warmup = max(replay.warmup, math.ceil(starts / per_rollout(config)))
    return replay._replace(warmup=warmup, burn_in=experience.burn_in)


def _per_shard(field: str, value: int, config: Config) -> int:
    """Return a shard's part of a number; raises ValueError unless all have the same."""
    return checks.divides(
        field, checks.positive(field, value), "data_parallel", config.data_parallel
    )


def _sizes(experience: ReplayConfig, config: Config) -> tuple[int, int, int, int]:
    """Return the number of segments, their period, the length of windows and their stride."""
    segments = checks.divides(
        "capacity",
        checks.positive("capacity", experience.capacity, ring.MOST),
        "environments x rollout_length",
        per_rollout(config),
    )
    period = config.rollout_length
    window = checks.positive("window", experience.window)
    length = window + checks.at_least("burn_in", experience.burn_in, 0)
    if length + config.frames > segments * period:
        raise ValueError(
            f"window: {window} actions, burn_in = {experience.burn_in} more, frames = "
            f"{config.frames} and the timestep after them do not fit in "
            f"capacity / environments = {segments * period}"
        )
    if experience.stored_state and period == 1:
        raise ValueError(
            "stored_state: True needs rollout_length above 1, "
            "for the memory is stored where rollouts begin"
        )
    return segments, period, length, period if experience.stored_state else 1


def _priorities(experience: ReplayConfig, constructor: Any) -> dict[str, Any]:
    """Return the arguments for sampling by priority, if the constructor takes them."""
    importance = ("importance_start", "importance_end", "importance_updates")
    read = {"exponent": ("priority_exponent", "priority_mix"), "importance": importance}
    given = {}
    for name, fields in read.items():
        for field in fields:
            bounds = (1, checks.INT32) if field == "importance_updates" else (0, 1)
            checks.within(field, getattr(experience, field), *bounds)
        if name in inspect.signature(constructor).parameters:
            values = [getattr(experience, field) for field in fields]
            given[name] = linear(*values) if name == "importance" else values[0]
        else:
            _unread(experience, fields)
    return given


def _unread(experience: ReplayConfig, fields: tuple[str, ...]) -> None:
    """Raise ValueError for changed fields that the replay memory would ignore; traced ones pass."""
    for field in fields:
        value, default = getattr(experience, field), getattr(ReplayConfig, field)
        if not isinstance(value, jax.core.Tracer) and value != default:
            raise ValueError(
                f"{field}: {checks.shown(value)} is not read by replay = {experience.replay}; "
                f"leave it at {default}"
            )


def _frames(experience: ReplayConfig, config: Config, constructor: Any) -> dict[str, int]:
    if config.frames == 1:
        return {}
    if "frames" not in inspect.signature(constructor).parameters:
        replay = experience.replay
        raise ValueError(f"frames: {config.frames} are more than replay {replay} can stack")
    return {"frames": config.frames}


def make(config: Config) -> tuple[Trainer, int]:
    """Return the trainer of a config, and how many of its steps a run takes after the warm-up.

    With `data_parallel` it is that of a shard, for `parallel.update_seeds` to run with the others.
    """
    rollouts = total_rollouts(config)
    env = make_environment(config)
    agent = make_agent(config, env)
    copies = _per_shard("environments", config.environments, config)
    trainer = make_trainer(env, agent, copies, config.rollout_length)
    return trainer, after_warmup(config, agent, rollouts)


def make_agent_on_host(config: Config) -> tuple[Agent, Spec, int]:
    """Return the agent of a run on the host, its spaces, and from how many rollouts it learns."""
    rollouts = total_rollouts(config)
    env = make_on_host(config, 1)
    env.close()
    agent = make_agent(config, env)
    return agent, env.spec, after_warmup(config, agent, rollouts)


def total_rollouts(config: Config) -> int:
    """Return how many rollouts a run has, warm-up included."""
    check(config)
    steps = checks.positive("total_steps", config.total_steps, 2**53)
    return checks.divides(
        "total_steps", steps, "environments x rollout_length", per_rollout(config)
    )


def after_warmup(config: Config, agent: Agent, rollouts: int) -> int:
    """Return how many of a run's rollouts are learned from."""
    if rollouts <= agent.warmup:
        raise ValueError(
            f"total_steps: {config.total_steps} leaves nothing to learn from after "
            f"{agent.warmup * per_rollout(config)} timesteps of warm-up"
        )
    return rollouts - agent.warmup


def make_train(config: Config) -> Callable[..., tuple[TrainState, Metrics]]:
    """Return `train(key) -> (TrainState, metrics)`, a pure function of the key.

    Metrics are sums and counts, [1 + steps]: of the warm-up, then of every training step. Jit
    `train` and vmap it over keys; to vmap over floats of the config as well, call `make_train`
    inside the function that is vmapped. `train(key, taken)` begins with parameters of another
    agent, {part: ...}: see `transfer.take`.
    Raises ValueError, with a one-line message that names the field, if it cannot be trained; an
    environment on the host cannot be, in a pure function: `run.experiment.start` trains there.
    """
    trainer, steps = make(config)
    if config.data_parallel > 1:
        alone = "is for a run of its own (memrl train, run.experiment.start)"
        raise ValueError(f"data_parallel: {config.data_parallel} {alone}")

    def train(key: Key, taken: Mapping[str, Any] | None = None) -> tuple[TrainState, Metrics]:
        state, warmup = trainer.init(key, taken)
        state, metrics = jax.lax.scan(lambda state, _: trainer.step(state), state, length=steps)
        return state, jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), warmup, metrics)

    return train


def per_rollout(config: Config) -> int:
    """Return how many timesteps a rollout has, over all copies of the environment."""
    copies = checks.positive("environments", config.environments)
    product = copies * checks.positive("rollout_length", config.rollout_length)
    return checks.positive("environments x rollout_length", product)
