"""Tabular Q-learning, with eligibility traces and a memory of the last observations."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax import checks, spaces, tree
from memrl_jax.agents import exploration
from memrl_jax.agents.exploration import ExplorationConfig, best, discrete_actions, epsilon_greedy
from memrl_jax.settings import Settings, static
from memrl_jax.spaces import discrete, flat_index, masked, parts
from memrl_jax.types import Agent, Array, Key, Segment, Spec, State, TimeStep

MOST = 100_000_000  # values in a table, or in the traces of all environments


class TabularConfig(Settings):
    """Settings of Q-learning in a table."""

    exploration: ExplorationConfig = ExplorationConfig()
    """How random actions are mixed in."""
    remembered: int = static(1)
    """Last observations of an episode that together are the state: 1 is the present one alone."""
    learning_rate: float = 0.1
    """Learning rate (alpha): how far a value moves towards its target."""
    visits_exponent: float = 0.0
    """The learning rate is divided by the visits to the state and action to this power: 0 keeps it
    as it is; 1, with a learning rate of 1, averages all targets."""
    discount: float = 0.99
    """Discount (gamma) per environment step."""
    td_lambda: float | None = None
    """Keep eligibility traces (Watkins's Q(lambda)), which fall by this factor times the discount
    per environment step; None keeps none."""
    initial_value: float = 0.0
    """What all values are at first; more than can be reached makes the agent try everything."""


class TabularState(NamedTuple):
    """The state of a tabular agent: S states, A actions, B environments."""

    q: Array  # [S, A] float32
    visits: Array  # [S, A] int32 transitions learned from; they stay at their largest value
    trace: Any  # [B, S, A] float32, the eligibility in each environment; () without td_lambda
    env_steps: Array  # [] int32 environment steps; stays at its largest value


class Transition(NamedTuple):
    """One step of one environment; `transitions` makes [B, T] of a segment."""

    state: Array  # [] int32, its number
    action: Array  # [] int32
    reward: Array  # [] float32
    discount: Array  # [] float32, 0 where the episode terminated
    after: Array  # [] int32, the number of the state that followed
    legal: Any  # [A] bool in `state`; () where all are
    legal_after: Any  # [A] bool in the state that followed; () where all are
    start: Array  # [] bool: an episode began in `state`
    last: Array  # [] bool: one ended in `state`, so the action was ignored


def tabular(config: TabularConfig, spec: Spec) -> Agent:
    """Q-learning in one table that all environments share.

    The parts of an observation are numbered row-major. What an update does: see `learn_from`.
    Raises ValueError for observations or actions that are not discrete, for tables that are too
    large, and for settings out of range.
    Watkins & Dayan (1992), equation 1.
    """
    _check(config)
    actions = discrete_actions("tabular", spec)
    states, recall = remembering(config.remembered, spec, actions)

    def init(key: Key, timestep: TimeStep) -> TabularState:
        q = jnp.full((states, actions), config.initial_value, jnp.float32)
        trace = traces(config, q, timestep.reward.shape[0])
        return TabularState(q, jnp.zeros(q.shape, jnp.int32), trace, jnp.int32(0))

    def initial_memory(batch: int) -> Array:
        return jnp.zeros(batch, jnp.int32)

    def act(
        key: Key, state: TabularState, memory: Array, timestep: TimeStep, explore: bool = True
    ) -> tuple[State, Array, Any]:
        memory, number = recall(memory, timestep)
        q = state.q[number]
        if not explore:
            return memory, best(q, timestep.legal), ()
        action = epsilon_greedy(config.exploration, key, q, state.env_steps, timestep)
        return memory, action, ()

    def observe(state: TabularState, segment: Segment) -> TabularState:
        return state._replace(env_steps=exploration.count_steps(state.env_steps, segment))

    def learn(
        key: Key, state: TabularState, segment: Segment
    ) -> tuple[TabularState, dict[str, Array]]:
        _, numbers = jax.lax.scan(recall, segment.memory, segment.timestep)
        state, metrics = learn_from(config, state, transitions(numbers, segment))
        return state, exploration.told(config.exploration, state.env_steps, segment, metrics)

    def params(state: TabularState) -> dict[str, Array]:
        return {"q": state.q}

    def with_params(state: TabularState, params: dict[str, Array]) -> TabularState:
        fresh = jax.tree.map(jnp.zeros_like, state)
        return fresh._replace(q=params["q"], env_steps=state.env_steps)

    def inspect(state: TabularState, memory: Array, timestep: TimeStep) -> dict[str, Array]:
        return {"q": state.q[recall(memory, timestep)[1]]}

    return Agent(init, initial_memory, act, observe, learn, params, with_params, inspect=inspect)


def remembering(count: int, spec: Spec, actions: int) -> tuple[int, Callable[..., Any]]:
    """Return how many states the last `count` observations make, and `recall`, which numbers them.

    `recall(memory, timestep) -> (memory, state)`, all int32 [B]. The lowest digit of a state, base
    n, is the number of the present observation. Those before it are higher digits, base n + 1, in
    which 0 means that the episode had not begun; `memory` is these digits at the next timestep.
    Raises ValueError for observations that are not discrete, and for tables above MOST values.
    """
    if not discrete(spec.observations):
        raise ValueError(f"agent: tabular takes Discrete observations, not {spec.observations}")
    n = math.prod(map(spaces.count, parts(spec.observations)))
    before = (n + 1) ** (count - 1)
    if n * before * actions > MOST:
        raise ValueError(
            f"remembered: {count} observations of {n} values and {actions} actions make a table "
            f"of {n * before * actions} values, which is above {MOST}"
        )

    def recall(memory: Array, timestep: TimeStep) -> tuple[Array, Array]:
        memory = jnp.where(timestep.start, 0, memory)
        observation = flat_index(spec.observations, timestep.observation)
        return (memory * (n + 1) + observation + 1) % before, memory * n + observation

    return n * before, recall


def traces(config: TabularConfig, q: Array, batch: int) -> Any:
    """Return traces [B, S, A] of 0 for a table [S, A]; () without td_lambda."""
    if config.td_lambda is None:
        return ()
    if batch * q.size > MOST:
        raise ValueError(
            f"td_lambda: traces in {batch} environments for a table of {q.size} values are "
            f"{batch * q.size} values, which is above {MOST}"
        )
    return jnp.zeros((batch, *q.shape), jnp.float32)


def transitions(numbers: Array, segment: Segment) -> Transition:
    """Return the transitions [B, T] of a segment whose states have these numbers [T + 1, B]."""
    before = tree.at(segment.timestep, slice(-1))
    after = tree.at(segment.timestep, slice(1, None))
    steps = Transition(
        state=numbers[:-1],
        action=segment.action,
        reward=after.reward,
        discount=after.discount,
        after=numbers[1:],
        legal=before.legal,
        legal_after=after.legal,
        start=before.start,
        last=before.last,
    )
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), steps)


def learn_from(
    config: TabularConfig, state: TabularState, steps: Transition
) -> tuple[TabularState, dict[str, Array]]:
    """Update the table by transitions [B, T], one after another.

    The environments take turns, each with all its T transitions in time order, so an update sees
    all earlier ones, and a learning rate means the same for any number of environments. Of the
    metrics, `updates` counts transitions and `loss_sum` adds up half their squared errors.
    """

    def step(carry: tuple[Array, Array, Any], transition: Transition) -> tuple[Any, Any]:
        return update(config, *carry, transition)

    def turn(table: tuple[Array, Array], x: tuple[Any, Transition]) -> tuple[Any, Any]:
        trace, steps = x
        (q, visits, trace), metrics = jax.lax.scan(step, (*table, trace), steps)
        return (q, visits), (trace, metrics)

    table = state.q, state.visits
    (q, visits), (trace, metrics) = jax.lax.scan(turn, table, (state.trace, steps))
    state = TabularState(q, visits, trace, state.env_steps)
    return state, jax.tree.map(lambda x: jnp.sum(x, dtype=x.dtype), metrics)


def update(
    config: TabularConfig, q: Array, visits: Array, trace: Any, step: Transition
) -> tuple[tuple[Array, Array, Any], dict[str, Array]]:
    """Update values and visits [S, A] and the traces [S, A] of one environment by one transition.

    Without traces, Q(s, a) += alpha delta. With them, all traces are cut where an episode starts or
    the action is not greedy by the present values, and otherwise decay by gamma lambda; that of
    (s, a) is set to 1 (replacing traces), and Q += alpha trace delta.
    Watkins (1989), section 7.4; Sutton & Barto (1998), figure 7.14; Singh & Sutton (1996).
    """
    here = step.state, step.action
    taken = ~step.last
    best_after = jnp.max(masked(q[step.after], step.legal_after))
    target = step.reward + config.discount * step.discount * best_after
    error = jnp.where(taken, target - q[here], 0.0)
    metrics = {
        "loss_sum": jnp.square(error) / 2,
        "q_sum": jnp.where(taken, q[here], 0.0),
        "updates": taken.astype(jnp.int32),
    }
    visits = visits.at[here].set(tree.count(visits[here], metrics["updates"]))
    if config.td_lambda is None:
        return (q.at[here].add(rate(config, visits[here]) * error), visits, trace), metrics
    best_here = jnp.max(masked(q[step.state], step.legal))
    cut = step.start | (q[here] < best_here)
    trace = jnp.where(cut, 0.0, config.discount * config.td_lambda * trace).at[here].set(1.0)
    return (q + rate(config, visits) * trace * error, visits, trace), metrics


def rate(config: TabularConfig, visits: Array) -> Array:
    """Return the learning rate [...] after `visits` [...]."""
    return config.learning_rate / jnp.maximum(visits, 1) ** config.visits_exponent


def _check(config: TabularConfig) -> None:
    exploration.check(config.exploration)
    checks.positive("remembered", config.remembered, 30)
    for field in ("learning_rate", "visits_exponent", "discount", "td_lambda"):
        if getattr(config, field) is not None:
            checks.within(field, getattr(config, field), 0, 1)
    checks.within("initial_value", config.initial_value, -1e30, 1e30)
