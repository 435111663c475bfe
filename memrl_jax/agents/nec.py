"""Neural episodic control: values from the nearest entries in tables whose keys are learned."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from memrl_jax import checks, draws, episodic, tree
from memrl_jax.agents import exploration
from memrl_jax.agents.exploration import ExplorationConfig
from memrl_jax.agents.optimizer import LARGE, OptimizerConfig, make_optimizer, told
from memrl_jax.agents.windows import burned_in, gradient_steps, priority
from memrl_jax.episodic import Acted, Lookup, Tables
from memrl_jax.networks import EmbeddingHead
from memrl_jax.returns import n_step_returns
from memrl_jax.settings import BodyConfig, ReplayConfig, Settings, static
from memrl_jax.spaces import masked
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


class NECConfig(Settings):
    """Settings of neural episodic control."""

    body: BodyConfig = BodyConfig()
    """Encoder and memory before the keys."""
    experience: ReplayConfig = ReplayConfig(batch_size=32)
    """What is kept and drawn for gradient steps, beside the tables."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How gradients of the network are followed."""
    exploration: ExplorationConfig = ExplorationConfig()
    """How random actions are mixed in."""
    head: tuple[int, ...] = static(())
    """Widths of the dense layers between the memory and the keys."""
    entries: int = static(100_000)
    """Entries of each action's table; then a new one takes the place of the one written, or found
    as a neighbour when acting, least recently."""
    key_size: int = static(64)
    """Numbers in a key."""
    neighbours: int = static(50)
    """Nearest entries that a value is made of (p)."""
    discount: float = 0.99
    """Gamma, per step."""
    n_step: int = static(100)
    """Rewards in a target before it bootstraps (fewer at the end of an episode)."""
    value_rate: float = 0.1
    """How far the value of a key that is written again moves towards its new target (alpha)."""
    table_learning_rate: float = 0.01
    """Learning rate of the gradient steps on keys and values in the tables, which are plain ones on
    the error of each window."""
    updates: int = static(1)
    """Gradient steps after every rollout."""


class Learner(NamedTuple):
    """What a gradient step changes."""

    params: Any
    tables: Tables
    optimizer: Any


class NECState(NamedTuple):
    """The state of an NEC agent."""

    learner: Learner
    replay: State  # of timesteps whose targets are known; extras are the targets
    history: Acted  # [N, B, ...], N = n_step
    env_steps: Array  # [] int32 environment steps; stays at its largest value


def nec(config: NECConfig, spec: Spec, body: Body, replay: ReplayMemory) -> Agent:
    """Episodic control with learned keys.

    `body` makes the network of keys [B, D]; with a memory, keys are computed from its output.
    Q(s, a) is the mean over the nearest entries of a's table, weighted by the kernel of their
    distance; 0 if there is none. Ties are broken at random. n-step targets bootstrap from the value
    of the best action, as estimated when acting, also at a time limit. They enter the tables as
    soon as they are known, n steps later or where the episode ends, and the replay memory n steps
    later. Replayed windows train the network, and the keys and values of the neighbours. Raises
    ValueError for settings out of range and for actions that are not one `Discrete`.
    Pritzel et al. (2017), algorithm 1 and equations 1 to 5.
    """
    _check(config)
    actions = exploration.discrete_actions("nec", spec)
    network = body(EmbeddingHead(config.key_size, config.head, config.body.layers))
    optimizer = make_optimizer(config.optimizer)

    def init(key: Key, timestep: TimeStep) -> NECState:
        batch = timestep.reward.shape[0]
        params, memory = network.init(key, timestep), network.initial_state(batch)
        tables = episodic.empty(actions, config.entries, config.key_size)
        zero, no_key = jnp.zeros(batch, jnp.float32), jnp.zeros((batch, config.key_size))
        acted = Acted(timestep, timestep.action, no_key, zero, kept(memory))
        history = episodic.begin(acted, config.n_step)
        example = Segment(memory, timestep, timestep.action, extras=zero)
        learner = Learner(params, tables, optimizer.init(params))
        return NECState(learner, replay.init(example), history, jnp.int32(0))

    def kept(memory: State) -> State:
        """Return the actor's memory if the replay memory stores it, else ()."""
        return memory if config.experience.stored_state else ()

    def look(learner: Learner, memory: State, timestep: TimeStep) -> tuple[State, Array, Any]:
        """Return the next memory, Q [B, A] and extras, with the slots [B, A, K] of neighbours."""
        after, key = network.step(learner.params, memory, timestep)
        near = episodic.nearest(learner.tables, key, config.neighbours)
        q = episodic.kernel_mean(near.distance, near.values, near.found)
        value = jnp.max(masked(q, timestep.legal), axis=-1)
        return after, q, (Lookup(key, value), near.slot, kept(memory))

    def act(
        key: Key, state: NECState, memory: State, timestep: TimeStep, explore: bool = True
    ) -> tuple[State, Array, Any]:
        tie_key, key = draws.split(key)
        memory, q, extras = look(state.learner, memory, timestep)
        q = exploration.break_ties(tie_key, q, timestep.legal)
        if not explore:
            return memory, exploration.best(q, timestep.legal), extras
        action = exploration.epsilon_greedy(config.exploration, key, q, state.env_steps, timestep)
        return memory, action, extras

    def merge(old: Array, new: Array) -> Array:
        return old + config.value_rate * (new - old)

    def observe(state: NECState, segment: Segment) -> NECState:
        steps = segment.action.shape[0]
        lookup, slot, memory = segment.extras
        timestep = tree.at(segment.timestep, slice(-1))
        acted = Acted(timestep, segment.action, lookup.key, lookup.value, memory)
        acted, history = episodic.join(state.history, acted)
        target = targets(config, acted)
        tables = episodic.touch(state.learner.tables, slot.reshape(-1, *slot.shape[2:]))
        tables, _ = episodic.remember(tables, acted, target, steps, config.n_step, merge)
        # The oldest timesteps: all their targets are known by now.
        oldest = tree.at(acted.timestep, slice(steps + 1))
        memory = tree.at(acted.memory, 0) if config.experience.stored_state else segment.memory
        known = Segment(memory, oldest, acted.action[:steps], target[:steps])
        learner, replayed = state.learner._replace(tables=tables), replay.add(state.replay, known)
        env_steps = exploration.count_steps(state.env_steps, segment)
        return NECState(learner, replayed, history, env_steps)

    def improve(learner: Learner, sample: Sample) -> tuple[Learner, Loss, dict[str, Array]]:
        params, tables, optimizer_state = learner
        memory, _, segment = burned_in(params, params, network, replay.burn_in, sample.segment)
        before = tree.at(segment.timestep, slice(-1))
        query, back = jax.vjp(lambda params: network.unroll(params, memory, before)[1], params)
        action = segment.action.reshape(-1)
        near = episodic.nearest(tables, query.reshape(-1, config.key_size), config.neighbours)
        slot, found, keys, values, _ = near.of(action)
        weight = jnp.where(before.last, 0.0, sample.weight[None])
        grad = jax.grad(error_loss, argnums=(0, 1, 2), has_aux=True)
        (by_query, by_keys, by_values), loss = grad(
            query, keys, values, found, segment.extras, weight
        )
        (gradient,) = back(by_query)
        metrics = {"loss_sum": loss.mean, "q_sum": loss.q, "updates": jnp.int32(1)}
        metrics |= told(config.optimizer, gradient, optimizer_state)
        step, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        params = optax.apply_updates(params, step)
        # The loss is a mean over windows; an entry in the tables moves by its own window's error.
        rate = -config.table_learning_rate * weight.size
        tables = episodic.adjust(tables, action, slot, found, rate * by_keys, rate * by_values)
        return Learner(params, tables, optimizer_state), loss, metrics

    def learn(key: Key, state: NECState, segment: Segment) -> tuple[NECState, dict[str, Array]]:
        def update(state: NECState, key: Key) -> tuple[NECState, dict[str, Array]]:
            sample = replay.sample(key, state.replay)
            learner, loss, metrics = improve(state.learner, sample)
            size = priority(config.experience.priority_mix, loss.error, loss.valid)
            replay_state, counts = replay.update(state.replay, sample.index, size)
            return state._replace(learner=learner, replay=replay_state), metrics | counts

        state, metrics = gradient_steps(key, state, update, config.updates)
        return state, exploration.told(config.exploration, state.env_steps, segment, metrics)

    def params(state: NECState) -> Any:
        return {**state.learner.params, "tables": state.learner.tables}

    def with_params(state: NECState, params: Any) -> NECState:
        own = {name: x for name, x in params.items() if name != "tables"}
        learner = Learner(own, params["tables"], optimizer.init(own))
        return state._replace(learner=learner, history=episodic.forget(state.history))

    def inspect(state: NECState, memory: State, timestep: TimeStep) -> dict[str, Array]:
        _, q, _ = look(state.learner, memory, timestep)
        return {"q": q, **network.inspect(state.learner.params, memory, timestep)}

    memory = network.initial_state
    return Agent(init, memory, act, observe, learn, params, with_params, replay.warmup, inspect)


class Loss(NamedTuple):
    """Results of the loss on a batch of N windows of L actions."""

    mean: Array  # [] weighted
    q: Array  # [] mean of the action values
    error: Array  # [L, N]
    valid: Array  # [L, N] bool: which actions count


def error_loss(
    query: Array, keys: Array, values: Array, found: Array, target: Array, weight: Array
) -> tuple[Array, Loss]:
    """Return the mean loss [], to be differentiated by queries, keys and values, and a `Loss`.

    `query` [L, N, D] are the keys of the replayed timesteps; `keys` [L * N, K, D], `values` and
    `found` [L * N, K] are their neighbours. `target` and `weight` are [L, N]; weights are 0 where
    an action does not count.
    """
    distance = episodic.squared_distance(query.reshape(-1, 1, query.shape[-1]), keys)
    q = episodic.kernel_mean(distance, values, found).reshape(target.shape)
    # Select before taking the loss: 0 * NaN is NaN, in the gradient too.
    valid = weight > 0
    error = jnp.where(valid, target - q, 0.0)
    mean = jnp.mean(optax.l2_loss(error) * weight)
    return mean, Loss(mean, jnp.mean(q), error, valid)


def targets(config: NECConfig, acted: Acted) -> Array:
    """Return the n-step returns [R - 1, B] of the actions at R timesteps but the latest."""
    after, value = tree.at((acted.timestep, acted.value), slice(1, None))

    def returns(r: Array, discount: Array, v: Array, last: Array) -> Array:
        return n_step_returns(r, discount, v, config.n_step, last)

    over_batch = jax.vmap(returns, in_axes=1, out_axes=1)
    return over_batch(after.reward, config.discount * after.discount, value, after.last)


def _check(config: NECConfig) -> None:
    checks.widths("head", config.head)
    for field in ("entries", "key_size", "n_step", "updates"):
        checks.positive(field, getattr(config, field))
    checks.positive("neighbours", config.neighbours, config.entries)
    for field in ("discount", "value_rate"):
        checks.within(field, getattr(config, field), 0, 1)
    checks.within("table_learning_rate", config.table_learning_rate, 0, LARGE)
    checks.within("priority_mix", config.experience.priority_mix, 0, 1)
    exploration.check(config.exploration)
