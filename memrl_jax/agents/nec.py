"""Neural episodic control: values from the nearest of what was seen, by keys that are learned."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from memrl_jax import checks, tree
from memrl_jax.agents import exploration
from memrl_jax.agents.dqn import priority
from memrl_jax.agents.exploration import ExplorationConfig, best, discrete_actions, epsilon_greedy
from memrl_jax.agents.optimizer import LARGE, OptimizerConfig, make_optimizer
from memrl_jax.episodic import (
    Acted,
    Lookup,
    Neighbours,
    Tables,
    adjust,
    begin,
    empty,
    join,
    kernel_mean,
    nearest,
    remember,
    squared_distance,
    touch,
)
from memrl_jax.networks import EmbeddingHead
from memrl_jax.returns import n_step_returns
from memrl_jax.settings import BodyConfig, ReplayConfig, Settings, static
from memrl_jax.spaces import masked
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
    """What an update changes."""

    params: Any
    tables: Tables
    optimizer: Any


class NECState(NamedTuple):
    """The state of an NEC agent."""

    learner: Learner
    replay: State  # of timesteps whose targets are known; extras are the targets
    history: Acted  # [N, B, ...], N = n_step
    observed: Array  # [] int32 environment steps; stays at its largest value


def nec(config: NECConfig, spec: Spec, body: Body, replay: ReplayMemory) -> Agent:
    """Episodic control with learned keys.

    `body` makes the network of keys [B, D] from their head; with a memory, keys come from what it
    gives. Q(s, a) is the mean over the nearest entries of a's table, weighted by the kernel of
    their distance; 0 where there is none. n-step targets, which bootstrap from the value of the
    best action when it was acted there, enter the tables and the replay memory as soon as they are
    known: n steps later, at the end of the episode, or, with the value there, at a time limit. The
    error of replayed windows is followed down by the network's parameters, and by the keys and
    values of the neighbours. Raises ValueError for settings out of range, for actions that are not
    one `Discrete`, and for stored memories, which are of other timesteps by then.
    Pritzel et al. (2017), algorithm 1 and equations 1 to 5.
    """
    _check(config)
    actions = discrete_actions("nec", spec)
    network = body(EmbeddingHead(config.key_size, config.head, config.body.layers))
    optimizer = make_optimizer(config.optimizer)

    def init(key: Key, timestep: TimeStep) -> NECState:
        batch = timestep.reward.shape[0]
        params, memory = network.init(key, timestep), network.initial_state(batch)
        tables = empty(actions, config.entries, config.key_size)
        zero, no_key = jnp.zeros(batch, jnp.float32), jnp.zeros((batch, config.key_size))
        history = begin(Acted(timestep, timestep.action, no_key, zero), config.n_step)
        example = Segment(memory, timestep, timestep.action, extras=zero)
        learner = Learner(params, tables, optimizer.init(params))
        return NECState(learner, replay.init(example), history, jnp.int32(0))

    def look(learner: Learner, memory: State, timestep: TimeStep) -> tuple[State, Array, Any]:
        """Return the memory, Q [B, A], and what was looked up, with the neighbours [B, A, K]."""
        memory, key = network.step(learner.params, memory, timestep)
        near = nearest(learner.tables, key, config.neighbours)
        q = kernel_mean(near.distance, near.values, near.found)
        value = jnp.max(masked(q, timestep.legal), axis=-1)
        return memory, q, (Lookup(key, value), near.slot)

    def act(
        key: Key, state: NECState, memory: State, timestep: TimeStep, explore: bool = True
    ) -> tuple[State, Array, Any]:
        memory, q, lookup = look(state.learner, memory, timestep)
        if not explore:
            return memory, best(q, timestep.legal), lookup
        action = epsilon_greedy(config.exploration, key, q, state.observed, timestep)
        return memory, action, lookup

    def observe(state: NECState, segment: Segment) -> NECState:
        steps = segment.action.shape[0]
        lookup, slot = segment.extras
        timestep = tree.at(segment.timestep, slice(-1))
        acted = Acted(timestep, segment.action, lookup.key, lookup.value)
        acted, history = join(state.history, acted)
        target = targets(config, acted)
        tables = touch(state.learner.tables, slot.reshape(-1, *slot.shape[2:]))
        merge = towards(config.value_rate)
        tables, _ = remember(tables, acted, target, steps, config.n_step, merge)
        # The oldest timesteps: by now the targets of all of them are known.
        oldest = tree.at(acted.timestep, slice(steps + 1))
        known = Segment(segment.memory, oldest, acted.action[:steps], target[:steps])
        # What is done at the end of an episode is no step: the next one begins.
        count = jnp.sum(~timestep.last, dtype=jnp.int32)
        return NECState(
            state.learner._replace(tables=tables),
            replay.add(state.replay, known),
            history,
            tree.count(state.observed, count),
        )

    def improve(learner: Learner, sample: Sample) -> tuple[Learner, Loss]:
        params, tables, optimizer_state = learner
        segment = refreshed(params, network, replay.burn_in, sample.segment)
        before = tree.at(segment.timestep, slice(-1))
        keys, back = jax.vjp(lambda p: network.unroll(p, segment.memory, before)[1], params)
        near = of_actions(
            nearest(tables, keys.reshape(-1, config.key_size), config.neighbours),
            segment.action.reshape(-1),
        )
        matters = ~before.last & (sample.weight > 0)[None]
        grad = jax.grad(error_loss, argnums=(0, 1, 2), has_aux=True)
        gradients, loss = grad(
            keys, near.keys, near.values, near.found, segment.extras, matters, sample.weight
        )
        step, optimizer_state = optimizer.update(back(gradients[0])[0], optimizer_state, params)
        params = optax.apply_updates(params, step)
        # The loss is a mean; what is stored moves by its own window alone.
        rate = -config.table_learning_rate * matters.size
        tables = adjust(
            tables,
            segment.action.reshape(-1),
            near.slot,
            near.found,
            rate * gradients[1],
            rate * gradients[2],
        )
        return Learner(params, tables, optimizer_state), loss

    def learn(key: Key, state: NECState, segment: Segment) -> tuple[NECState, dict[str, Array]]:
        def update(state: NECState, key: Key) -> tuple[NECState, dict[str, Array]]:
            sample = replay.sample(key, state.replay)
            learner, loss = improve(state.learner, sample)
            size = priority(config.experience.priority_mix, loss.error, loss.matters)
            replay_state, counts = replay.update(state.replay, sample.index, size)
            metrics = {"loss_sum": loss.mean, "q_sum": loss.q, "updates": jnp.int32(1), **counts}
            return state._replace(learner=learner, replay=replay_state), metrics

        state, metrics = jax.lax.scan(update, state, jax.random.split(key, config.updates))
        return state, jax.tree.map(lambda x: jnp.sum(x, dtype=x.dtype), metrics)

    def params(state: NECState) -> Any:
        return {**state.learner.params, "tables": state.learner.tables}

    def with_params(state: NECState, params: Any) -> NECState:
        own = {name: x for name, x in params.items() if name != "tables"}
        return state._replace(learner=Learner(own, params["tables"], optimizer.init(own)))

    def inspect(state: NECState, memory: State, timestep: TimeStep) -> dict[str, Array]:
        _, q, _ = look(state.learner, memory, timestep)
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


class Loss(NamedTuple):
    """What a batch of N windows of L actions amounts to."""

    mean: Array  # [] weighted
    q: Array  # [] mean of the action values
    error: Array  # [L, N]
    matters: Array  # [L, N] bool: where anything was done


def error_loss(
    query: Array,
    keys: Array,
    values: Array,
    found: Array,
    target: Array,
    matters: Array,
    weight: Array,
) -> tuple[Array, Loss]:
    """Return the mean loss, to be differentiated by queries, keys and values, and its parts.

    `query` [L, N, D] are the keys of what was seen, `keys` [L * N, K, D], `values` and `found`
    [L * N, K] their neighbours, `target` and `matters` [L, N], `weight` [N].
    """
    distance = squared_distance(query.reshape(-1, 1, query.shape[-1]), keys)
    q = kernel_mean(distance, values, found).reshape(target.shape)
    # Chosen before the loss is taken: 0 times NaN is NaN, backwards too.
    error = jnp.where(matters, target - q, 0.0)
    mean = jnp.mean(optax.l2_loss(error) * weight[None])
    return mean, Loss(mean, jnp.mean(q), error, matters)


def of_actions(near: Neighbours, action: Array) -> Neighbours:
    """Return the neighbours [M, K] in the table of each action [M], of those in all [M, A, K]."""
    return jax.tree.map(lambda x: x[jnp.arange(action.shape[0]), action], near)


def refreshed(params: Any, network: Network, burn_in: int, segment: Segment) -> Segment:
    """Return a segment less its first `burn_in` actions, with the memory after these."""
    if not burn_in:
        return segment
    prefix, rest = slice(burn_in), slice(burn_in, None)
    memory, _ = network.unroll(params, segment.memory, tree.at(segment.timestep, prefix))
    return Segment(memory, *tree.at((segment.timestep, segment.action, segment.extras), rest))


def targets(config: NECConfig, acted: Acted) -> Array:
    """Return the n-step returns [R - 1, B] of what was done at R timesteps but the latest."""
    after, value = tree.at((acted.timestep, acted.value), slice(1, None))

    def returns(r: Array, discount: Array, v: Array, last: Array) -> Array:
        return n_step_returns(r, discount, v, config.n_step, last)

    over_batch = jax.vmap(returns, in_axes=1, out_axes=1)
    return over_batch(after.reward, config.discount * after.discount, value, after.last)


def towards(rate: Any) -> Callable[[Array, Array], Array]:
    """Return `merge(old, new)`: the old value moved by `rate` of the way to the new one."""
    return lambda old, new: old + rate * (new - old)


def _check(config: NECConfig) -> None:
    for field in ("entries", "key_size", "n_step", "updates"):
        checks.positive(field, getattr(config, field))
    checks.positive("neighbours", config.neighbours, config.entries)
    for field in ("discount", "value_rate"):
        checks.within(field, getattr(config, field), 0, 1)
    checks.within("table_learning_rate", config.table_learning_rate, 0, LARGE)
    checks.within("priority_mix", config.experience.priority_mix, 0, 1)
    exploration.check(config.exploration)
    if config.experience.stored_state:
        raise ValueError(
            "stored_state: True, but nec replays what was done n_step = "
            f"{config.n_step} timesteps before a rollout's memory"
        )
