"""Soft actor-critic for continuous and discrete actions, feed-forward or with any memory."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from memrl_jax import checks, draws
from memrl_jax.agents.optimizer import (
    LARGE,
    SMALL,
    OptimizerConfig,
    follow,
    frozen,
    make_optimizer,
    told,
)
from memrl_jax.agents.sac_loss import Loss, Networks, acting, sac_loss
from memrl_jax.agents.soft import Choices, choices
from memrl_jax.agents.windows import gradient_steps, priority
from memrl_jax.networks import PolicyHead, TwinHeads, twins
from memrl_jax.settings import BodyConfig, ReplayConfig, Settings, static
from memrl_jax.spaces import Discrete, masked
from memrl_jax.types import (
    Agent,
    Array,
    Body,
    Key,
    ReplayMemory,
    Sample,
    Segment,
    Spec,
    State,
    TimeStep,
)


class SACConfig(Settings):
    """Settings of soft actor-critic."""

    body: BodyConfig = BodyConfig()
    """Encoder and memory before the heads: of the policy, and again of either critic."""
    experience: ReplayConfig = ReplayConfig(capacity=100_000, learning_starts=1_000)
    """What is kept and drawn."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)
    """How gradients are followed: those of policy, critics and temperature each by themselves."""
    head: tuple[int, ...] = static((84,))
    """Widths of the dense layers after the memory, of the policy and of either critic."""
    shared: bool = static(False)
    """Give policy and critics one encoder and memory, which only the critics' gradients move."""
    updates: int = static(1)
    """Gradient steps after every rollout."""
    discount: float = 0.99
    """Gamma, per step."""
    target_rate: float = 0.005
    """How far the target critics move towards the critics in every gradient step (tau)."""
    first_temperature: float = 1.0
    """Weight of the policy's entropy beside rewards at first (ent_coef, alpha); it is learned."""
    target_entropy: float | None = None
    """Entropy that the temperature keeps: nats for every continuous number, on the scale where its
    bounds are -1 and 1; for discrete actions, a share of what a uniform choice among the legal ones
    has. None is -1 or 0.5."""


class Learner(NamedTuple):
    """What a gradient step changes."""

    params: dict[str, Any]  # actor, critics, log_temperature
    target_critics: Any
    optimizer: dict[str, Any]  # one state for each of the params


class SACState(NamedTuple):
    """The state of a SAC agent."""

    learner: Learner
    replay: State


def sac(config: SACConfig, spec: Spec, body: Body, replay: ReplayMemory) -> Agent:
    """Soft actor-critic: an off-policy, maximum-entropy policy with two critics.

    `body` makes the encoder and the memory of policy and critics. Actions are all continuous, with
    finite bounds, or one `Discrete`. Until learning begins, the untrained policy acts. With
    `stored_state` the actor carries the critics' memories besides its own, unless `shared`. Raises
    ValueError for other actions and for settings out of range.
    Haarnoja et al. (2018b), algorithm 1; Christodoulou (2019); with memory, Ni et al. (2022).
    """
    _check(config)
    choice = choices(spec, config.target_entropy)
    networks = _networks(config, choice, body)
    actor, critics = networks.actor, networks.critics
    still = stills(config)
    optimizers = {name: make_optimizer(config.optimizer, x) for name, x in still.items()}

    def begin(params: Any) -> Learner:
        # A real copy: one array under two names could not be donated twice.
        target_critics = jax.tree.map(jnp.copy, params["critics"])
        moments = {name: optimizers[name].init(x) for name, x in params.items()}
        return Learner(params, target_critics, moments)

    def initial_memory(batch: int) -> State:
        own = actor.initial_state(batch)
        return (own, critics.initial_state(batch)) if networks.carried else own

    def init(key: Key, timestep: TimeStep) -> SACState:
        actor_key, critics_key = draws.split(key)
        own = actor.init(actor_key, timestep)
        made = choice.from_action(timestep.action)
        params = {
            "actor": {"head": own["head"]} if config.shared else own,
            "critics": critics.init(critics_key, timestep, *choice.inputs(made)),
            "log_temperature": jnp.log(jnp.asarray(config.first_temperature, jnp.float32)),
        }
        memory = initial_memory(timestep.reward.shape[0])
        example = Segment(memory, timestep, timestep.action, extras=())
        return SACState(begin(params), replay.init(example))

    def look(params: Any, memory: State, timestep: TimeStep) -> tuple[State, Array]:
        """Return the next memory, and the policy's parameters [B, size] at a timestep."""
        if not networks.carried:
            return actor.step(acting(params), memory, timestep)
        actor_memory, parameters = actor.step(acting(params), memory[0], timestep)
        # any: only the memory is needed
        inputs = choice.inputs(choice.from_action(timestep.action))
        critics_memory, _ = critics.step(params["critics"], memory[1], timestep, *inputs)
        return (actor_memory, critics_memory), parameters

    def act(
        key: Key, state: SACState, memory: State, timestep: TimeStep, explore: bool = True
    ) -> tuple[State, Any, Any]:
        memory, parameters = look(state.learner.params, memory, timestep)
        if not explore:
            return memory, choice.distribution.mode(parameters, timestep.legal), ()
        return memory, choice.distribution.sample(key, parameters, timestep.legal), ()

    def observe(state: SACState, segment: Segment) -> SACState:
        return state._replace(replay=replay.add(state.replay, segment))

    def improve(
        key: Key, learner: Learner, sample: Sample
    ) -> tuple[Learner, Loss, dict[str, Array]]:
        rest = networks, choice, config.discount, key, sample, replay.burn_in
        grad = jax.grad(sac_loss, has_aux=True)
        gradient, loss = grad(learner.params, learner.target_critics, *rest)
        params, optimizer_state = {}, {}
        for name, x in learner.params.items():
            own = gradient[name], learner.optimizer[name], x
            step, optimizer_state[name] = optimizers[name].update(*own)
            params[name] = optax.apply_updates(x, step)
        new, old = params["critics"], learner.target_critics
        target_critics = follow(still["critics"], new, old, config.target_rate)
        metrics = {f"{name}_sum": x for name, x in loss.means.items()}
        metrics |= told(config.optimizer, gradient, learner.optimizer)
        return Learner(params, target_critics, optimizer_state), loss, metrics

    def learn(key: Key, state: SACState, segment: Segment) -> tuple[SACState, dict[str, Array]]:
        def update(state: SACState, key: Key) -> tuple[SACState, dict[str, Array]]:
            sample_key, loss_key = draws.split(key)
            sample = replay.sample(sample_key, state.replay)
            learner, loss, metrics = improve(loss_key, state.learner, sample)
            size = priority(config.experience.priority_mix, loss.error, loss.valid)
            replay_state, counts = replay.update(state.replay, sample.index, size)
            return SACState(learner, replay_state), metrics | {"updates": jnp.int32(1), **counts}

        return gradient_steps(key, state, update, config.updates)

    def params(state: SACState) -> Any:
        params = state.learner.params
        return acting(params) | {name: x for name, x in params.items() if name != "actor"}

    def with_params(state: SACState, params: Any) -> SACState:
        body = {name: params[name] for name in ("encoder", "memory")}
        head = {"head": params["head"]}
        learned = {
            "actor": head if config.shared else body | head,
            "critics": params["critics"] | (body if config.shared else {}),
            "log_temperature": params["log_temperature"],
        }
        return state._replace(learner=begin(learned))

    def inspect(state: SACState, memory: State, timestep: TimeStep) -> dict[str, Array]:
        _, parameters = look(state.learner.params, memory, timestep)
        own = memory[0] if networks.carried else memory
        shown = actor.inspect(acting(state.learner.params), own, timestep)
        if not isinstance(spec.actions, Discrete):
            return shown
        return shown | {"policy": jax.nn.softmax(masked(parameters, timestep.legal), axis=-1)}

    return Agent(
        init,
        initial_memory,
        act,
        observe,
        learn,
        params,
        with_params,
        replay.warmup,
        inspect,
    )


def stills(config: SACConfig) -> dict[str, Any]:
    """Return which parameters are frozen: a prefix of those in `Learner`."""
    names = "encoder", "memory", "head", "critics", "log_temperature"
    marks = frozen(config.optimizer, names) or dict.fromkeys(names, False)
    body = {name: marks[name] for name in ("encoder", "memory")}
    head, judges = {"head": marks["head"]}, marks["critics"]
    actor, critics = (head, body | {"head": judges}) if config.shared else (body | head, judges)
    return {"actor": actor, "critics": critics, "log_temperature": marks["log_temperature"]}


def _networks(config: SACConfig, choice: Choices, body: Body) -> Networks:
    widths, layers = config.head, config.body.layers
    actor = body(PolicyHead(choice.distribution.size, widths, layers))
    heads = choice.critic(widths, layers), choice.critic(widths, layers)
    critics = body(TwinHeads(*heads)) if config.shared else twins(body(heads[0]))
    return Networks(actor, critics, config.shared, config.experience.stored_state)


def _check(config: SACConfig) -> None:
    checks.widths("head", config.head)
    checks.positive("updates", config.updates)
    for field in ("discount", "target_rate"):
        checks.within(field, getattr(config, field), 0, 1)
    checks.within("priority_mix", config.experience.priority_mix, 0, 1)
    checks.within("first_temperature", config.first_temperature, SMALL, LARGE)
    if config.target_entropy is not None:
        checks.within("target_entropy", config.target_entropy, -LARGE, LARGE)
