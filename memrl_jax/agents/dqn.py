"""Deep Q-networks, feed-forward or recurrent: a transition is a window of length 1.

Each component of Rainbow and R2D2 that is here can be switched on by itself.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from memrl_jax import checks, tree
from memrl_jax.agents import exploration
from memrl_jax.agents.exploration import (
    ExplorationConfig,
    best,
    discrete_actions,
    epsilon_greedy,
    value_of,
)
from memrl_jax.agents.optimizer import OptimizerConfig, follow, frozen, make_optimizer, told
from memrl_jax.agents.windows import burned_in, gradient_steps, priority
from memrl_jax.networks import QHead
from memrl_jax.returns import lambda_returns, n_step_returns, rescale, unscale
from memrl_jax.settings import BodyConfig, ReplayConfig, Settings, static
from memrl_jax.types import (
    Agent,
    Array,
    Body,
    Key,
    Network,
    ReplayMemory,
    Sample,
    Segment,
    Spec,
    State,
    TimeStep,
)

UPDATES = 500_000_000  # most updates between two moves of the target network
LOSSES = {"squared": optax.l2_loss, "huber": optax.huber_loss}


class DQNConfig(Settings):
    """Settings of Q-learning from replayed windows."""

    body: BodyConfig = BodyConfig()
    """Encoder and memory before the head."""
    experience: ReplayConfig = ReplayConfig()
    """What is kept and drawn."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How gradients are followed."""
    exploration: ExplorationConfig = ExplorationConfig()
    """How random actions are mixed in."""
    head: tuple[int, ...] = static((84,))
    """Widths of the dense layers after the memory."""
    dueling: bool = static(False)
    """Split the head into value and advantage (Wang et al. 2016)."""
    updates: int = static(1)
    """Gradient steps after every rollout."""
    discount: float = 0.99
    """Gamma, per step."""
    n_step: int = static(1)
    """Rewards in a target before it bootstraps (fewer at the end of a window)."""
    td_lambda: float | None = None
    """Use lambda-returns with this lambda instead of n-step returns."""
    double: bool = static(True)
    """Choose the bootstrap action with the online network (van Hasselt et al. 2016)."""
    loss: str = static("squared")
    """Loss of the temporal-difference error: squared, or huber for returns of about 1 (beyond that
    it fits a median: rare deaths are overruled and values can grow without bound)."""
    rescaling: float | None = None
    """Learn values on the scale h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x with this epsilon
    (Pohlen et al. 2018); None does not rescale."""
    target_period: int = static(500)
    """Updates between two moves of the target network."""
    target_rate: float = 1.0
    """How far it moves towards the online network (tau): 1 copies, less averages."""


class Learner(NamedTuple):
    """What a gradient step changes."""

    params: Any
    target_params: Any
    optimizer: Any
    updates: Array  # [] int32; near its largest value it wraps back, by whole target periods


class DQNState(NamedTuple):
    """The state of a DQN agent."""

    learner: Learner
    replay: State
    env_steps: Array  # [] int32 environment steps; stays at its largest value


def dqn(config: DQNConfig, spec: Spec, body: Body, replay: ReplayMemory) -> Agent:
    """Q-learning from replayed windows.

    `body` makes the network of action values [B, A] from its head. With a memory and longer
    windows this is DRQN with random updates. Raises ValueError for settings out of range and for
    actions that are not one `Discrete`.
    Mnih et al. (2015), algorithm 1; Hausknecht & Stone (2015), section 5.
    """
    _check(config, replay)
    actions = discrete_actions("dqn", spec)
    network = body(QHead(actions, config.head, config.dueling, config.body.layers))
    optimizer = make_optimizer(config.optimizer)

    def begin(params: Any, updates: Array) -> Learner:
        # A real copy: one array under two names could not be donated twice.
        return Learner(params, jax.tree.map(jnp.copy, params), optimizer.init(params), updates)

    def init(key: Key, timestep: TimeStep) -> DQNState:
        batch = timestep.reward.shape[0]
        learner = begin(network.init(key, timestep), jnp.int32(0))
        memory = network.initial_state(batch)
        example = Segment(memory, timestep, jnp.zeros(batch, jnp.int32), extras=())
        return DQNState(learner, replay.init(example), jnp.int32(0))

    def act(
        key: Key, state: DQNState, memory: State, timestep: TimeStep, explore: bool = True
    ) -> tuple[State, Array, Any]:
        memory, q = network.step(state.learner.params, memory, timestep)
        if not explore:
            return memory, best(q, timestep.legal), ()
        action = epsilon_greedy(config.exploration, key, q, state.env_steps, timestep)
        return memory, action, ()

    def observe(state: DQNState, segment: Segment) -> DQNState:
        replay_state = replay.add(state.replay, segment)
        env_steps = exploration.count_steps(state.env_steps, segment)
        return state._replace(replay=replay_state, env_steps=env_steps)

    def improve(learner: Learner, sample: Sample) -> tuple[Learner, Loss, dict[str, Array]]:
        grad = jax.grad(q_loss, has_aux=True)
        burn_in = replay.burn_in
        gradient, loss = grad(
            learner.params, learner.target_params, network, config, sample, burn_in
        )
        step, optimizer_state = optimizer.update(gradient, learner.optimizer, learner.params)
        params = optax.apply_updates(learner.params, step)
        updates = next_update(config.target_period, learner.updates)
        rate = jnp.where(updates % config.target_period == 0, config.target_rate, 0.0)
        still = frozen(config.optimizer, params)
        target_params = follow(still, params, learner.target_params, rate)
        metrics = {"loss_sum": loss.mean, "q_sum": loss.q, "updates": jnp.int32(1)}
        metrics |= told(config.optimizer, gradient, learner.optimizer)
        return Learner(params, target_params, optimizer_state, updates), loss, metrics

    def learn(key: Key, state: DQNState, segment: Segment) -> tuple[DQNState, dict[str, Array]]:
        def update(state: DQNState, key: Key) -> tuple[DQNState, dict[str, Array]]:
            sample = replay.sample(key, state.replay)
            learner, loss, metrics = improve(state.learner, sample)
            replay_state, counts = replay.update(state.replay, sample.index, loss.priority)
            return state._replace(learner=learner, replay=replay_state), metrics | counts

        state, metrics = gradient_steps(key, state, update, config.updates)
        return state, exploration.told(config.exploration, state.env_steps, segment, metrics)

    def params(state: DQNState) -> Any:
        return state.learner.params

    def with_params(state: DQNState, params: Any) -> DQNState:
        return state._replace(learner=begin(params, state.learner.updates))

    def inspect(state: DQNState, memory: State, timestep: TimeStep) -> dict[str, Array]:
        _, q = network.step(state.learner.params, memory, timestep)
        return {"q": q, **network.inspect(state.learner.params, memory, timestep)}

    return Agent(
        init,
        network.initial_state,
        act,
        observe,
        learn,
        params,
        with_params,
        replay.warmup,
        inspect,
    )


def next_update(period: int, updates: Array) -> Array:
    """Return the count [] int32 after one more update; near int32's end, back by whole periods."""
    end = checks.INT32 // period * period
    return jnp.where(updates + 1 == end, period, updates + 1)


class Loss(NamedTuple):
    """Results of the loss on a batch of N windows."""

    mean: Array  # [] weighted
    q: Array  # [] mean of the action values
    priority: Array  # [N] for the replay memory


def q_loss(
    params: Any,
    target_params: Any,
    network: Network,
    config: DQNConfig,
    sample: Sample,
    burn_in: int = 0,
) -> tuple[Array, Loss]:
    """Return the mean loss [] over N windows of L actions, to be differentiated, and a `Loss`.

    `sample.segment` has [burn_in + L + 1, N] timesteps; the first `burn_in` actions only bring the
    memory up to date. Actions at `last` timesteps, which the environment ignores, and windows of
    weight 0 do not count.
    """
    segment = sample.segment
    frozen = jax.lax.stop_gradient(params)
    memory, target_memory, segment = burned_in(frozen, target_params, network, burn_in, segment)
    timestep = segment.timestep
    before, after = tree.at(timestep, slice(-1)), tree.at(timestep, slice(1, None))

    memory, q = network.unroll(params, memory, before)
    # The final timestep is only bootstrapped from, so no gradient is needed there.
    _, q_final = network.step(frozen, jax.lax.stop_gradient(memory), tree.at(timestep, -1))
    q_online = jnp.concatenate([jax.lax.stop_gradient(q)[1:], q_final[None]])
    target_memory, _ = network.step(target_params, target_memory, tree.at(timestep, 0))
    _, q_target = network.unroll(target_params, target_memory, after)

    chosen = best(q_online if config.double else q_target, after.legal)
    target = targets(config, after, value_of(q_target, chosen))
    error = jax.lax.stop_gradient(target) - value_of(q, segment.action)
    # Select before taking the loss: 0 * NaN is NaN, in the gradient too.
    matters = ~before.last & (sample.weight > 0)[None]
    loss = LOSSES[config.loss](jnp.where(matters, error, 0.0))
    mean = jnp.mean(loss * sample.weight[None])
    mix = config.experience.priority_mix
    return mean, Loss(mean, jnp.mean(q), priority(mix, error, ~before.last))


def targets(config: DQNConfig, after: TimeStep, value: Array) -> Array:
    """Return targets [L, N] from the timesteps after each action and their values [L, N]."""

    def returns(r: Array, discount: Array, v: Array, last: Array) -> Array:
        if config.td_lambda is None:
            return n_step_returns(r, discount, v, config.n_step, last)
        return lambda_returns(r, discount, v, jnp.where(last, 0.0, config.td_lambda))

    discount = config.discount * after.discount
    over_batch = jax.vmap(returns, in_axes=1, out_axes=1)
    if config.rescaling is None:
        return over_batch(after.reward, discount, value, after.last)
    value = unscale(value, config.rescaling)
    return rescale(over_batch(after.reward, discount, value, after.last), config.rescaling)


def _check(config: DQNConfig, replay: ReplayMemory) -> None:
    checks.widths("head", config.head)
    for field in ("updates", "n_step"):
        checks.positive(field, getattr(config, field))
    checks.positive("target_period", config.target_period, UPDATES)
    window = replay.length - replay.burn_in
    if config.n_step > window:
        raise ValueError(f"n_step: {config.n_step} rewards do not fit in window = {window}")
    checks.known("loss", config.loss, LOSSES)
    exploration.check(config.exploration)
    checks.within("priority_mix", config.experience.priority_mix, 0, 1)
    for field in ("discount", "target_rate", "rescaling", "td_lambda"):
        value = getattr(config, field)
        if value is not None:
            checks.within(field, value, 0, 1)
    if config.td_lambda is not None and config.n_step > 1:
        raise ValueError(f"td_lambda: {config.td_lambda} excludes n_step = {config.n_step}")
