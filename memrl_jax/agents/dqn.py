"""Deep Q-networks, feed-forward or recurrent: a transition is a window of length 1."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from memrl_jax import checks, tree
from memrl_jax.returns import lambda_returns, n_step_returns
from memrl_jax.types import Agent, Array, Key, Network, ReplayMemory, Segment, State, TimeStep

LOSSES = {"squared": optax.l2_loss, "huber": optax.huber_loss}


class DQNConfig(struct.PyTreeNode):
    """Floats may be traced and vmapped over; whole numbers, names and switches recompile."""

    replay: str = struct.field(pytree_node=False, default="uniform")
    """Replay memory that windows are drawn from."""
    capacity: int = struct.field(pytree_node=False, default=10_000)
    """Timesteps kept, over all environments."""
    batch_size: int = struct.field(pytree_node=False, default=128)
    """Windows in a batch."""
    window: int = struct.field(pytree_node=False, default=1)
    """Actions in a window: 1 learns from transitions, more from sequences."""
    learning_starts: int = struct.field(pytree_node=False, default=10_000)
    """Timesteps to collect before the first update."""
    updates: int = struct.field(pytree_node=False, default=1)
    """Gradient steps after every rollout."""
    learning_rate: float = 2.5e-4
    """Step size of Adam."""
    max_gradient_norm: float | None = None
    """Clip gradients to this global norm; None does not clip."""
    discount: float = 0.99
    """Gamma, per step."""
    n_step: int = struct.field(pytree_node=False, default=1)
    """Rewards in a target before it bootstraps (fewer at the end of a window)."""
    td_lambda: float | None = None
    """Use lambda-returns with this lambda instead of n-step returns."""
    double: bool = struct.field(pytree_node=False, default=True)
    """Choose the bootstrap action with the online network (van Hasselt et al. 2016)."""
    dueling: bool = struct.field(pytree_node=False, default=False)
    """Split the head into value and advantage (Wang et al. 2016)."""
    loss: str = struct.field(pytree_node=False, default="squared")
    """Loss of the temporal-difference error: squared, or huber for returns of about 1 (beyond that
    it fits a median: rare deaths are overruled and values can grow without bound)."""
    target_period: int = struct.field(pytree_node=False, default=500)
    """Updates between two moves of the target network."""
    target_rate: float = 1.0
    """How far it moves towards the online network: 1 copies, less averages."""
    epsilon_start: float = 1.0
    """Probability of a random action at first."""
    epsilon_end: float = 0.05
    """Probability of a random action in the end."""
    epsilon_steps: float = 250_000.0
    """Timesteps over which it falls from the first to the last, linearly."""


class Learner(NamedTuple):
    """What an update changes."""

    params: Any
    target_params: Any
    optimizer: Any
    updates: Array  # [] int32


class DQNState(NamedTuple):
    """The state of a DQN agent."""

    learner: Learner
    replay: State
    observed: Array  # [] int32 timesteps observed


def dqn(config: DQNConfig, network: Network, replay: ReplayMemory) -> Agent:
    """Q-learning from replayed windows.

    `network` maps timesteps to action values [B, A]. With a recurrent network and longer windows
    this is DRQN with random updates. Raises ValueError for settings out of range.
    Mnih et al. (2015), algorithm 1; Hausknecht & Stone (2015), section 5.
    """
    _check(config)
    optimizer = _optimizer(config)

    def init(key: Key, timestep: TimeStep) -> DQNState:
        batch = timestep.reward.shape[0]
        params = network.init(key, timestep)
        # A copy of its own: two names for one array could not both be donated.
        target_params = jax.tree.map(jnp.copy, params)
        learner = Learner(params, target_params, optimizer.init(params), jnp.int32(0))
        memory = network.initial_state(batch)
        example = Segment(memory, timestep, jnp.zeros(batch, jnp.int32), extras=())
        return DQNState(learner, replay.init(example), jnp.int32(0))

    def act(
        key: Key, state: DQNState, memory: State, timestep: TimeStep, explore: bool = True
    ) -> tuple[State, Array, Any]:
        memory, q = network.step(state.learner.params, memory, timestep)
        action = jnp.argmax(q, axis=-1).astype(jnp.int32)
        if explore:
            action = epsilon_greedy(key, action, q.shape[-1], epsilon(config, state.observed))
        return memory, action, ()

    def observe(state: DQNState, segment: Segment) -> DQNState:
        replay_state = replay.add(state.replay, segment)
        return state._replace(replay=replay_state, observed=state.observed + segment.action.size)

    def update(learner: Learner, replay_state: State, key: Key) -> tuple[Learner, Any]:
        sample = replay.sample(key, replay_state)
        grad = jax.value_and_grad(q_loss, has_aux=True)
        aux, gradient = grad(
            learner.params, learner.target_params, network, config, sample.segment, sample.weight
        )
        step, optimizer_state = optimizer.update(gradient, learner.optimizer, learner.params)
        params = optax.apply_updates(learner.params, step)
        updates = learner.updates + 1
        rate = jnp.where(updates % config.target_period == 0, config.target_rate, 0.0)
        target_params = optax.incremental_update(params, learner.target_params, rate)
        return Learner(params, target_params, optimizer_state, updates), aux

    def learn(key: Key, state: DQNState, segment: Segment) -> tuple[DQNState, dict[str, Array]]:
        def step(learner: Learner, key: Key) -> tuple[Learner, Any]:
            return update(learner, state.replay, key)

        keys = jax.random.split(key, config.updates)
        learner, (loss, q) = jax.lax.scan(step, state.learner, keys)
        metrics = {"loss_sum": loss.sum(), "q_sum": q.sum(), "updates": jnp.int32(config.updates)}
        return state._replace(learner=learner), metrics

    return Agent(init, network.initial_state, act, observe, learn, replay.warmup)


def q_loss(
    params: Any,
    target_params: Any,
    network: Network,
    config: DQNConfig,
    segment: Segment,
    weight: Array,
) -> tuple[Array, Array]:
    """Return the mean loss over N windows of L actions, and the mean of Q.

    The action taken at a `last` timestep is ignored by the environment and here.
    """
    timestep = segment.timestep
    before, after = tree.at(timestep, slice(-1)), tree.at(timestep, slice(1, None))

    memory, q = network.unroll(params, segment.memory, before)
    # The final timestep only bootstraps, so nothing is differentiated there.
    _, q_final = network.step(*jax.lax.stop_gradient((params, memory)), tree.at(timestep, -1))
    q_online = jnp.concatenate([jax.lax.stop_gradient(q)[1:], q_final[None]])
    target_memory, _ = network.step(target_params, segment.memory, tree.at(timestep, 0))
    _, q_target = network.unroll(target_params, target_memory, after)

    best = jnp.argmax(q_online if config.double else q_target, axis=-1)
    target = targets(config, after, _pick(q_target, best))
    error = jax.lax.stop_gradient(target) - _pick(q, segment.action)
    loss = LOSSES[config.loss](error) * weight * ~before.last
    return jnp.mean(loss), jnp.mean(q)


def targets(config: DQNConfig, after: TimeStep, value: Array) -> Array:
    """Return targets [L, N] from the timesteps after each action and their values [L, N]."""

    def returns(r: Array, discount: Array, v: Array, last: Array) -> Array:
        if config.td_lambda is None:
            return n_step_returns(r, discount, v, config.n_step, last)
        return lambda_returns(r, discount, v, jnp.where(last, 0.0, config.td_lambda))

    discount = config.discount * after.discount
    over_batch = jax.vmap(returns, in_axes=1, out_axes=1)
    return over_batch(after.reward, discount, value, after.last)


def epsilon(config: DQNConfig, observed: Array) -> Array:
    """Return the probability of a random action after `observed` timesteps."""
    fraction = jnp.clip(observed / config.epsilon_steps, 0.0, 1.0)
    return config.epsilon_start + fraction * (config.epsilon_end - config.epsilon_start)


def epsilon_greedy(key: Key, greedy: Array, actions: int, probability: Array) -> Array:
    """Replace each action [B] by a uniformly random one with this probability."""
    explore, choice = jax.random.uniform(key, (2, *greedy.shape))
    return jnp.where(explore < probability, (choice * actions).astype(jnp.int32), greedy)


def _pick(q: Array, action: Array) -> Array:
    return jnp.take_along_axis(q, action[..., None], axis=-1)[..., 0]


def _optimizer(config: DQNConfig) -> optax.GradientTransformation:
    adam = optax.adam(config.learning_rate)
    if config.max_gradient_norm is None:
        return adam
    return optax.chain(optax.clip_by_global_norm(config.max_gradient_norm), adam)


def _check(config: DQNConfig) -> None:
    for field in ("updates", "n_step", "target_period"):
        checks.positive(field, getattr(config, field))
    if config.n_step > config.window:
        raise ValueError(f"n_step: {config.n_step} rewards do not fit in window = {config.window}")
    checks.known("loss", config.loss, LOSSES)
    for field in ("discount", "target_rate", "epsilon_start", "epsilon_end"):
        checks.within(field, getattr(config, field), 0, 1)
    checks.within("learning_rate", config.learning_rate, 0, float("inf"))
    checks.within("epsilon_steps", config.epsilon_steps, 1, float("inf"))
    if config.td_lambda is not None:
        checks.within("td_lambda", config.td_lambda, 0, 1)
        if config.n_step > 1:
            raise ValueError(f"td_lambda: {config.td_lambda} excludes n_step = {config.n_step}")
    if config.max_gradient_norm is not None:
        checks.within("max_gradient_norm", config.max_gradient_norm, 0, float("inf"))
