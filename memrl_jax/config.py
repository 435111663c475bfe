"""The composition root: a config, named presets, and the training run made from them."""

import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from flax.core import FrozenDict

from memrl_jax import checks, environments, imports, kinds
from memrl_jax.agents import AGENTS, DQNConfig, R2D2Config
from memrl_jax.environments import frame_stack
from memrl_jax.memory import MEMORIES
from memrl_jax.networks import Encoder, QHead, recurrent
from memrl_jax.replay import REPLAYS, ring
from memrl_jax.spaces import Discrete
from memrl_jax.train import Metrics, Trainer, TrainState, make_trainer
from memrl_jax.types import Agent, Array, Environment, Key, Network, NeuralMemory, ReplayMemory


class Config(struct.PyTreeNode):
    """One training run. Floats may be traced and vmapped over; everything else recompiles."""

    environment: str = struct.field(pytree_node=False, default="CartPole-v1")
    """Environment to train on; `memrl list` names them. One of your own is module:name."""
    environment_args: Mapping[str, Any] = struct.field(pytree_node=False, default=FrozenDict())
    """Parameters of the environment, as name=value."""
    memory: str = struct.field(pytree_node=False, default="none")
    """Memory of the network; none is feed-forward. One of your own is module:name."""
    memory_args: Mapping[str, Any] = struct.field(pytree_node=False, default=FrozenDict())
    """Options of the memory, as name=value."""
    encoder: tuple[int, ...] = struct.field(pytree_node=False, default=(120,))
    """Widths of the dense layers before the memory."""
    head: tuple[int, ...] = struct.field(pytree_node=False, default=(84,))
    """Widths of the dense layers after the memory."""
    previous_action: bool = struct.field(pytree_node=False, default=False)
    """Show the previous action to the network."""
    previous_reward: bool = struct.field(pytree_node=False, default=False)
    """Show the previous reward to the network."""
    frames: int = struct.field(pytree_node=False, default=1)
    """Last observations that are seen at once; replay stores each a single time."""
    environments: int = struct.field(pytree_node=False, default=10)
    """Copies of the environment that are stepped together."""
    rollout_length: int = struct.field(pytree_node=False, default=1)
    """Actions in every copy between two updates."""
    total_steps: checks.Steps = struct.field(pytree_node=False, default=500_000)
    """Timesteps of a whole run, over all copies; the one that begins an episode counts, though
    nothing is done in it, so there are fewer environment steps: those are the axis of all
    curves."""
    imports: tuple[str, ...] = struct.field(pytree_node=False, default=())
    """Modules of your own to import first, by name or as the path of a .py file: what they enter in
    ENVIRONMENTS, MEMORIES, REPLAYS, AGENTS or presets can be named. Kept as they are given, and
    imported again where the run is resumed, evaluated or watched: do that in the same folder, or
    give an absolute path."""
    agent: DQNConfig = DQNConfig()
    """How the agent learns."""

    def __post_init__(self) -> None:
        """Import what is to be imported, and freeze: an argument of a jitted function must hash."""
        checks.kind("imports", self.imports, tuple[str, ...])
        for module in self.imports:
            imports.load("imports", module)
        for field in fields(self):
            object.__setattr__(self, field.name, _frozen(getattr(self, field.name)))


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return FrozenDict({k: _frozen(x) for k, x in value.items()})
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _memory_q_network(memory: str) -> Config:
    """Return the settings of Oh et al. (2016) for one of their three memories.

    As published, but for sizes and rates that suit small tasks, ten copies of the environment, and
    Adam. The target network moves as far per timestep: 1 - (1 - 1e-3)^40 in an update.
    """
    return Config(
        memory=memory,
        memory_args={"features": 64, "frames": 12},
        encoder=(64,),
        head=(),
        rollout_length=4,
        agent=DQNConfig(
            window=12,
            batch_size=32,
            capacity=50_000,
            learning_starts=2_000,
            learning_rate=1e-3,
            epsilon_end=0.1,
            epsilon_steps=30_000.0,
            double=False,
            loss="huber",
            target_period=1,
            target_rate=0.04,
            max_gradient_norm=20.0,
        ),
    )


presets: dict[str, Config] = {
    "dqn": Config(agent=DQNConfig(target_period=50)),
    "drqn": Config(
        memory="gru",
        encoder=(64,),
        head=(),
        previous_action=True,
        previous_reward=True,
        rollout_length=4,
        agent=DQNConfig(
            window=16,
            batch_size=32,
            capacity=50_000,
            learning_starts=2_000,
            learning_rate=1e-3,
            epsilon_steps=30_000.0,
            target_period=1,
            target_rate=0.02,
            max_gradient_norm=10.0,
        ),
    ),
    # As published, but for sizes and rates that suit small tasks.
    "r2d2": Config(
        memory="lstm",
        encoder=(64,),
        head=(),
        previous_action=True,
        previous_reward=True,
        rollout_length=20,
        agent=R2D2Config(
            window=60,
            burn_in=20,
            batch_size=32,
            capacity=100_000,
            learning_starts=5_000,
            learning_rate=1e-3,
            adam_epsilon=1e-8,  # as published, gradients of small networks would hardly move them
            target_period=1,
            target_rate=0.02,
            max_gradient_norm=10.0,
        ),
    ),
    "mqn": _memory_q_network("mqn"),
    "rmqn": _memory_q_network("rmqn"),
    "frmqn": _memory_q_network("frmqn"),
}


def make_environment(config: Config) -> Environment:
    """Make one environment; raises ValueError for unknown names, options and values."""
    check(config)
    capacity = checks.positive("capacity", config.agent.capacity)
    if checks.positive("frames", config.frames) > capacity:
        raise ValueError(f"frames: {config.frames} do not fit in capacity = {capacity}")
    env = environments.make(config.environment, config.environment_args)
    return env if config.frames == 1 else frame_stack(env, config.frames)


def make_network(config: Config, env: Environment) -> Network:
    """Make the network of action values; raises ValueError for unknown memories and options."""
    check(config)
    if not isinstance(env.actions, Discrete):
        raise ValueError(
            f"environment: {config.environment} has continuous actions of shape "
            f"{env.actions.shape}, but agent {agent_name(config)} needs discrete ones"
        )
    for field in ("encoder", "head"):
        for width in getattr(config, field):
            checks.positive(field, width)
    encoder = Encoder(
        env.observations,
        env.actions,
        config.encoder,
        config.previous_action,
        config.previous_reward,
    )
    head = QHead(env.actions.n, config.head, config.agent.dueling)
    return recurrent(encoder, make_memory(config), head)


def make_memory(config: Config) -> NeuralMemory:
    """Make the memory; raises ValueError for unknown memories and options."""
    part = imports.part("memory", config.memory, MEMORIES)
    constructor = (lambda: part) if isinstance(part, NeuralMemory) else part
    checks.kind("memory", constructor, Callable)
    checks.options("memory_args", constructor, config.memory_args)
    memory = constructor(**config.memory_args)
    checks.kind("memory", memory, NeuralMemory)
    return memory


def make_replay(config: Config) -> ReplayMemory:
    """Make the replay memory; raises ValueError for sizes that do not fit together."""
    check(config)
    options = config.agent
    segments = checks.divides(
        "capacity",
        checks.positive("capacity", options.capacity, ring.MOST),
        "environments x rollout_length",
        _per_rollout(config),
    )
    rows = segments * config.rollout_length
    length = checks.positive("window", options.window) + checks.at_least(
        "burn_in", options.burn_in, 0
    )
    if length + config.frames > rows:
        raise ValueError(
            f"window: {options.window} actions, burn_in = {options.burn_in} more, frames = "
            f"{config.frames} and the timestep after them do not fit in "
            f"capacity / environments = {rows}"
        )
    if options.stored_state and config.rollout_length == 1:
        raise ValueError(
            "stored_state: True needs rollout_length above 1, "
            "for the memory is stored where rollouts begin"
        )
    constructor = imports.part("replay", options.replay, REPLAYS)
    checks.kind("replay", constructor, Callable)
    taken = inspect.signature(constructor).parameters
    more = _priorities(options) | ({"frames": config.frames} if config.frames > 1 else {})
    if config.frames > 1 and "frames" not in taken:
        raise ValueError(f"frames: {config.frames} are more than replay {options.replay} can stack")
    return constructor(
        segments=segments,
        period=config.rollout_length,
        length=length,
        batch_size=options.batch_size,
        stride=config.rollout_length if options.stored_state else 1,
        **{name: value for name, value in more.items() if name in taken},
    )


def _priorities(options: DQNConfig) -> dict[str, Any]:
    """Return what a replay memory may take that draws by priority."""

    def importance(updates: Array) -> Array:
        fraction = jnp.minimum(updates / options.importance_steps, 1.0)
        rise = options.importance_end - options.importance_start
        return options.importance_start + fraction * rise

    return {"exponent": options.priority_exponent, "importance": importance}


def make_agent(config: Config, env: Environment) -> Agent:
    """Make the agent with its network and replay; raises ValueError for settings out of range."""
    constructor = AGENTS[agent_name(config)]
    agent = constructor(config.agent, make_network(config, env), make_replay(config))
    starts = checks.at_least("learning_starts", config.agent.learning_starts, 0)
    return agent._replace(warmup=max(agent.warmup, math.ceil(starts / _per_rollout(config))))


def make(config: Config) -> tuple[Trainer, int]:
    """Return the trainer of a config and how many steps of it a whole run takes."""
    per_rollout = _per_rollout(config)
    rollouts = checks.divides(
        "total_steps",
        checks.positive("total_steps", config.total_steps, 2**53),
        "environments x rollout_length",
        per_rollout,
    )
    env = make_environment(config)
    agent = make_agent(config, env)
    if rollouts <= agent.warmup:
        raise ValueError(
            f"total_steps: {config.total_steps} leaves nothing to learn from after "
            f"{agent.warmup * per_rollout} timesteps of warm-up"
        )
    trainer = make_trainer(env, agent, config.environments, config.rollout_length)
    return trainer, rollouts - agent.warmup


def make_train(config: Config) -> Callable[[Key], tuple[TrainState, Metrics]]:
    """Return `train(key) -> (TrainState, metrics)`, a pure function of the key.

    Metrics are sums and counts, [1 + steps]: of the warm-up, then of every training step. Jit it,
    vmap it over keys; to vmap over floats of the config as well, call `make_train` inside the
    function that is vmapped.
    Raises ValueError, in one line that names the field, for anything that cannot be trained.
    """
    trainer, steps = make(config)

    def train(key: Key) -> tuple[TrainState, Metrics]:
        state, warmup = trainer.init(key)
        state, metrics = jax.lax.scan(lambda state, _: trainer.step(state), state, length=steps)
        return state, jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), warmup, metrics)

    return train


def agent_name(config: Config) -> str:
    """Return the name of the agent that a config's `agent` belongs to, by its class."""
    cls = type(config.agent)
    classes = {name: agent_config(name) for name in AGENTS}
    names = [name for name in AGENTS if classes[name] is cls]
    if not names:
        known = ", ".join(x.__name__ for x in classes.values())
        raise ValueError(f"agent: {cls.__name__} belongs to no agent ({known})")
    if len(names) > 1:
        raise ValueError(f"agent: {cls.__name__} is the config of {' and '.join(names)}")
    return names[0]


def agent_config(name: str) -> type:
    """Return the config class of an agent: the type hint of its constructor's first argument."""
    first = next(iter(inspect.signature(AGENTS[name]).parameters), "")
    cls = kinds.hints(AGENTS[name]).get(first)
    if not (isinstance(cls, type) and is_dataclass(cls)):
        raise ValueError(f"agent: {name} has no type hint that says which config it takes")
    return cls


def check(config: Config) -> None:
    """Raise ValueError for fields of another kind than their type hints say."""
    agent_name(config)
    checks.fields(config)
    checks.fields(config.agent)


def _per_rollout(config: Config) -> int:
    copies = checks.positive("environments", config.environments)
    product = copies * checks.positive("rollout_length", config.rollout_length)
    return checks.positive("environments x rollout_length", product)


def to_json(config: Config) -> str:
    """Write a config as JSON text; raises ValueError for fields of the wrong kind."""
    check(config)
    return json.dumps(
        _plain(config) | {"agent": {"name": agent_name(config), **_plain(config.agent)}}, indent=2
    )


def _plain(config: Any) -> dict[str, Any]:
    """Return the fields as JSON types."""
    given = {f.name: getattr(config, f.name) for f in fields(config)}
    return {k: None if is_dataclass(x) else plain(k, x) for k, x in given.items()}


def plain(field: str, value: Any) -> Any:
    """Return `value` as JSON types; raises ValueError, which names `field`, if it has none.

    A number of NumPy's or JAX's becomes one of Python's.
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
    """Read a config from JSON text, and import what it says; raises ValueError for no config."""
    try:
        given = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"config: not JSON ({error})") from None
    given, agent = _without("config", given, "agent")
    agent, name = _without("config: agent", agent, "name")
    config = _read("config", Config, given)
    cls = agent_config(checks.known("config: agent", name, AGENTS))
    return config.replace(agent=_read("config: agent", cls, agent))


def _without(field: str, given: Any, name: str) -> tuple[dict[str, Any], Any]:
    """Return a mapping less one entry, and that one."""
    checks.kind(field, given, Mapping)
    if name not in given:
        raise ValueError(f"{field}: {name} is missing")
    return {key: value for key, value in given.items() if key != name}, given[name]


def _read(field: str, cls: type, given: dict[str, Any]) -> Any:
    for name in given:
        checks.known(field, name, [f.name for f in fields(cls)])
    checks.options(field, cls, given)
    return cls(**{name: _frozen(value) for name, value in given.items()})
