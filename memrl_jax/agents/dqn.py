"""Deep Q-networks, feed-forward or recurrent: a transition is a window of length 1.

Every part of Rainbow's and R2D2's that is here can be switched on alone.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from memrl_jax import checks, tree
from memrl_jax.returns import lambda_returns, n_step_returns, rescale, unscale
from memrl_jax.types import (
    Agent,
    Array,
    Key,
    Network,
    ReplayMemory,
    Sample,
    Segment,
    State,
    TimeStep,
)

FRACTIONS = (
    "discount",
    "target_rate",
    "epsilon_start",
    "epsilon_end",
    "persistence",
    "priority_exponent",
    "priority_mix",
    "importance_start",
    "importance_end",
    "rescaling",
    "td_lambda",
)
SMALL, LARGE = 1e-30, 1e30  # within these, rates and their quotients are no zeros in float32
RANGES = dict.fromkeys(FRACTIONS, (0, 1)) | {
    "learning_rate": (0, LARGE),
    "adam_epsilon": (SMALL, LARGE),
    "max_gradient_norm": (SMALL, LARGE),
    "epsilon_spread": (0, LARGE),
    # Counts of int32 go no further.
    "epsilon_steps": (1, checks.INT32),
    "importance_steps": (1, checks.INT32),
    "decay_updates": (1, checks.INT32),
}
UPDATES = 500_000_000  # most that a target network or a restart may wait for
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
    burn_in: int = struct.field(pytree_node=False, default=0)
    """Actions before each window that only bring the memory up to date."""
    stored_state: bool = struct.field(pytree_node=False, default=False)
    """Begin where rollouts began, from the memory stored there; otherwise anywhere, from a fresh
    memory."""
    priority_exponent: float = 0.6
    """Prioritized replay: draw in proportion to priority to this power; 0 is uniform."""
    priority_mix: float = 0.9
    """Prioritized replay: share of the largest error in a window's priority, beside the mean."""
    importance_start: float = 0.4
    """Prioritized replay: power of the weights that correct the bias it makes, at first."""
    importance_end: float = 1.0
    """Prioritized replay: this power in the end; 1 corrects all of it."""
    importance_steps: float = 100_000.0
    """Prioritized replay: updates over which it goes from the first to the last, linearly."""
    learning_starts: int = struct.field(pytree_node=False, default=10_000)
    """Timesteps to collect before the first update."""
    updates: int = struct.field(pytree_node=False, default=1)
    """Gradient steps after every rollout."""
    learning_rate: float = 2.5e-4
    """Step size of Adam."""
    decay_updates: float | None = None
    """Updates over which the step size falls to zero, linearly, and once more after a restart; None
    keeps it as it is."""
    adam_epsilon: float = 1e-8
    """Added to the denominator of Adam's steps."""
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
    rescaling: float | None = None
    """Learn values on the scale h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x with this epsilon
    (Pohlen et al. 2018); None does not rescale."""
    target_period: int = struct.field(pytree_node=False, default=500)
    """Updates between two moves of the target network."""
    target_rate: float = 1.0
    """How far it moves towards the online network: 1 copies, less averages."""
    epsilon_start: float = 1.0
    """Probability of a random action at first."""
    epsilon_end: float = 0.05
    """Probability of a random action in the end."""
    epsilon_steps: float = 250_000.0
    """Steps of the environments over which it falls from the first to the last, linearly."""
    epsilon_spread: float = 0.0
    """Environment i of B explores with epsilon ** (1 + spread i / (B - 1)); 0 makes all alike
    (Horgan et al. 2018 use 7, with an epsilon of 0.4)."""
    persistence: float = 0.0
    """Probability of doing the last action again instead, whatever it was: random actions alone
    undo each other (Dabney et al. 2021)."""
    restart: int | None = struct.field(pytree_node=False, default=None)
    """Updates after which a fresh network takes over, once, with the replay of the old one: what is
    learned first can keep a network from learning more (Nikishin et al. 2022). None goes on."""
    restart_hold: int = struct.field(pytree_node=False, default=0)
    """Updates for which the old network (its target network) then goes on acting."""


class Learner(NamedTuple):
    """What an update changes."""

    params: Any
    target_params: Any
    optimizer: Any
    updates: Array  # [] int32; near its largest value it goes back, by whole target periods
    spare: Any  # with a restart, the parameters to begin anew with; after it, the old ones


class DQNState(NamedTuple):
    """The state of a DQN agent."""

    learner: Learner
    replay: State
    observed: Array  # [] int32 steps of the environments; stays at its largest value


def dqn(config: DQNConfig, network: Network, replay: ReplayMemory) -> Agent:
    """Q-learning from replayed windows.

    `network` maps timesteps to action values [B, A]. With a recurrent network and longer windows
    this is DRQN with random updates; `replay` must give windows of burn_in + window actions.
    Raises ValueError for settings out of range.
    Mnih et al. (2015), algorithm 1; Hausknecht & Stone (2015), section 5.
    """
    _check(config)
    optimizer = _optimizer(config)

    def begin(params: Any, spare: Any) -> Learner:
        # A copy of its own: two names for one array could not both be donated.
        target_params = jax.tree.map(jnp.copy, params)
        return Learner(params, target_params, optimizer.init(params), jnp.int32(0), spare)

    def init(key: Key, timestep: TimeStep) -> DQNState:
        batch = timestep.reward.shape[0]
        if config.restart is None:
            learner = begin(network.init(key, timestep), spare=())
        else:
            learner = begin(*(network.init(k, timestep) for k in jax.random.split(key)))
        memory = network.initial_state(batch)
        example = Segment(memory, timestep, jnp.zeros(batch, jnp.int32), extras=())
        return DQNState(learner, replay.init(example), jnp.int32(0))

    def act(
        key: Key, state: DQNState, memory: State, timestep: TimeStep, explore: bool = True
    ) -> tuple[State, Array, Any]:
        memory, q = network.step(acting(config, state.learner), memory, timestep)
        action = jnp.argmax(q, axis=-1).astype(jnp.int32)
        if explore:
            probability = epsilon(config, state.observed, action.shape[0])
            action = epsilon_greedy(
                key, action, q.shape[-1], probability, timestep, config.persistence
            )
        return memory, action, ()

    def observe(state: DQNState, segment: Segment) -> DQNState:
        replay_state = replay.add(state.replay, segment)
        # What is done at the end of an episode is no step: the next one begins.
        steps = jnp.sum(~segment.timestep.last[:-1], dtype=jnp.int32)
        return state._replace(replay=replay_state, observed=tree.count(state.observed, steps))

    def improve(learner: Learner, sample: Sample) -> tuple[Learner, Loss]:
        grad = jax.grad(q_loss, has_aux=True)
        gradient, loss = grad(learner.params, learner.target_params, network, config, sample)
        step, optimizer_state = optimizer.update(gradient, learner.optimizer, learner.params)
        params = optax.apply_updates(learner.params, step)
        updates = next_update(config, learner.updates)
        rate = jnp.where(updates % config.target_period == 0, config.target_rate, 0.0)
        target_params = optax.incremental_update(params, learner.target_params, rate)
        learner = Learner(params, target_params, optimizer_state, updates, learner.spare)
        return restart(learner), loss

    def restart(learner: Learner) -> Learner:
        if config.restart is None:
            return learner
        fresh = begin(learner.spare, spare=learner.target_params)._replace(updates=learner.updates)
        return tree.where(learner.updates == config.restart, fresh, learner)

    def learn(key: Key, state: DQNState, segment: Segment) -> tuple[DQNState, dict[str, Array]]:
        def update(state: DQNState, key: Key) -> tuple[DQNState, dict[str, Array]]:
            sample = replay.sample(key, state.replay)
            learner, loss = improve(state.learner, sample)
            replay_state, counts = replay.update(state.replay, sample.index, loss.priority)
            metrics = {"loss_sum": loss.mean, "q_sum": loss.q, "updates": jnp.int32(1), **counts}
            return state._replace(learner=learner, replay=replay_state), metrics

        state, metrics = jax.lax.scan(update, state, jax.random.split(key, config.updates))
        return state, jax.tree.map(lambda x: jnp.sum(x, dtype=x.dtype), metrics)

    def inspect(state: DQNState, memory: State, timestep: TimeStep) -> dict[str, Array]:
        params = acting(config, state.learner)
        _, q = network.step(params, memory, timestep)
        return {"q": q, **network.inspect(params, memory, timestep)}

    return Agent(init, network.initial_state, act, observe, learn, replay.warmup, inspect)


def acting(config: DQNConfig, learner: Learner) -> Any:
    """Return the parameters to act with: for a while after a restart, the old ones."""
    if config.restart is None:
        return learner.params
    since = learner.updates - config.restart
    held = (since >= 0) & (since < config.restart_hold)
    return tree.where(held, learner.spare, learner.params)


def next_update(config: DQNConfig, updates: Array) -> Array:
    """Count on for ever: near the end of int32 go back by whole target periods, past a restart."""
    period = config.target_period
    past = (config.restart or 0) + config.restart_hold
    first, end = (past // period + 1) * period, checks.INT32 // period * period
    return jnp.where(updates + 1 == end, first, updates + 1)


class Loss(NamedTuple):
    """What a batch of N windows amounts to."""

    mean: Array  # [] weighted
    q: Array  # [] mean of the action values
    priority: Array  # [N] for the replay memory


def q_loss(
    params: Any, target_params: Any, network: Network, config: DQNConfig, sample: Sample
) -> tuple[Array, Loss]:
    """Return the mean loss over N windows of L actions, to be differentiated, and its parts.

    The action taken at a `last` timestep is ignored by the environment and here, and so is a window
    that weighs 0.
    """
    segment = sample.segment
    frozen = jax.lax.stop_gradient(params)
    memory, target_memory, segment = burn_in(frozen, target_params, network, config, segment)
    timestep = segment.timestep
    before, after = tree.at(timestep, slice(-1)), tree.at(timestep, slice(1, None))

    memory, q = network.unroll(params, memory, before)
    # The final timestep only bootstraps, so nothing is differentiated there.
    _, q_final = network.step(frozen, jax.lax.stop_gradient(memory), tree.at(timestep, -1))
    q_online = jnp.concatenate([jax.lax.stop_gradient(q)[1:], q_final[None]])
    target_memory, _ = network.step(target_params, target_memory, tree.at(timestep, 0))
    _, q_target = network.unroll(target_params, target_memory, after)

    best = jnp.argmax(q_online if config.double else q_target, axis=-1)
    target = targets(config, after, _pick(q_target, best))
    error = jax.lax.stop_gradient(target) - _pick(q, segment.action)
    # Chosen before the loss is taken: 0 times NaN is NaN, backwards too.
    matters = ~before.last & (sample.weight > 0)[None]
    loss = LOSSES[config.loss](jnp.where(matters, error, 0.0))
    mean = jnp.mean(loss * sample.weight[None])
    return mean, Loss(mean, jnp.mean(q), priority(config, error, ~before.last))


def burn_in(
    params: Any, target_params: Any, network: Network, config: DQNConfig, segment: Segment
) -> tuple[State, State, Segment]:
    """Unroll both networks over the actions that are not learned from.

    Returns their memories and the rest of the segment. Kapturowski et al. (2019), section 3.
    """
    if not config.burn_in:
        return segment.memory, segment.memory, segment
    prefix, rest = slice(config.burn_in), slice(config.burn_in, None)
    timestep = tree.at(segment.timestep, prefix)
    memory, _ = network.unroll(params, segment.memory, timestep)
    target_memory, _ = network.unroll(target_params, segment.memory, timestep)
    timestep, action, extras = tree.at((segment.timestep, segment.action, segment.extras), rest)
    return memory, target_memory, Segment(memory, timestep, action, extras)


def priority(config: DQNConfig, error: Array, valid: Array) -> Array:
    """Mix the largest and the mean size of a window's errors [L, N], where valid: [N].

    Kapturowski et al. (2019), section 2.3.
    """
    size = jnp.where(valid, jnp.abs(error), 0.0)
    mean = size.sum(axis=0) / jnp.maximum(valid.sum(axis=0), 1)
    return config.priority_mix * size.max(axis=0) + (1 - config.priority_mix) * mean


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


def epsilon(config: DQNConfig, observed: Array, batch: int) -> Array:
    """Return the probability [B] of a random action after `observed` timesteps."""
    fraction = jnp.clip(observed / config.epsilon_steps, 0.0, 1.0)
    base = config.epsilon_start + fraction * (config.epsilon_end - config.epsilon_start)
    return base ** (1 + config.epsilon_spread * jnp.linspace(0, 1, batch, dtype=jnp.float32))


def epsilon_greedy(
    key: Key,
    greedy: Array,
    actions: int,
    probability: Array,
    timestep: TimeStep,
    persistence: float,
) -> Array:
    """Replace each action [B] by a uniformly random one with this probability.

    Then by the last one with probability `persistence`, where an episode does not start.
    """
    explore, choice, again = jax.random.uniform(key, (3, *greedy.shape), jnp.float32)
    action = jnp.where(explore < probability, (choice * actions).astype(jnp.int32), greedy)
    return jnp.where((again < persistence) & ~timestep.start, timestep.action, action)


def _pick(q: Array, action: Array) -> Array:
    return jnp.take_along_axis(q, action[..., None], axis=-1)[..., 0]


def _optimizer(config: DQNConfig) -> optax.GradientTransformation:
    first, span = config.learning_rate, config.decay_updates
    # Not optax.linear_schedule, which looks at `span`: it may be traced.
    rate = first if span is None else lambda count: first * jnp.maximum(0.0, 1 - count / span)
    adam = optax.adam(rate, eps=config.adam_epsilon)
    if config.max_gradient_norm is None:
        return adam
    return optax.chain(optax.clip_by_global_norm(config.max_gradient_norm), adam)


def _check(config: DQNConfig) -> None:
    checks.fields(config)
    for field in ("updates", "n_step"):
        checks.positive(field, getattr(config, field))
    checks.positive("target_period", config.target_period, UPDATES)
    if config.n_step > config.window:
        raise ValueError(f"n_step: {config.n_step} rewards do not fit in window = {config.window}")
    checks.at_least("burn_in", config.burn_in, 0)
    checks.at_least("restart_hold", config.restart_hold, 0, UPDATES)
    if config.restart is not None:
        checks.positive("restart", config.restart, UPDATES)
    elif config.restart_hold:
        raise ValueError(f"restart_hold: {config.restart_hold} updates after restart = None")
    checks.known("loss", config.loss, LOSSES)
    for field, bounds in RANGES.items():
        value = getattr(config, field)
        if value is not None:
            checks.within(field, value, *bounds)
    if config.td_lambda is not None and config.n_step > 1:
        raise ValueError(f"td_lambda: {config.td_lambda} excludes n_step = {config.n_step}")
