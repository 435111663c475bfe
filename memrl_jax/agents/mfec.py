"""Model-free episodic control: repeat the actions that led to the highest returns."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax import checks, draws, episodic, spaces, tree
from memrl_jax.agents import exploration
from memrl_jax.agents.exploration import ExplorationConfig
from memrl_jax.episodic import Acted, Lookup, Tables
from memrl_jax.networks import features
from memrl_jax.returns import lambda_returns
from memrl_jax.settings import Settings, static
from memrl_jax.spaces import Continuous, Discrete, masked
from memrl_jax.types import Agent, Array, Key, Segment, Spec, State, TimeStep


class MFECConfig(Settings):
    """Settings of model-free episodic control."""

    exploration: ExplorationConfig = ExplorationConfig()
    """How random actions are mixed in."""
    entries: int = static(100_000)
    """Entries of each action's table; then a new one takes the place of the one written least
    recently."""
    key_size: int | None = static(None)
    """Numbers in a key, to which observations are projected at random, fewer than are observed (64
    where it was published); None takes observations as they are. Numbers with declared bounds are
    divided by them first, so that distances mean something."""
    neighbours: int = static(11)
    """Nearest entries whose values are averaged where the observation itself has none (k)."""
    discount: float = 0.99
    """Gamma, per step."""


class MFECState(NamedTuple):
    """The state of an MFEC agent."""

    projection: Any  # [F, D] float32, 1 or -1; () if observations are the keys
    tables: Tables
    history: Acted  # [horizon, B], timesteps without observations
    env_steps: Array  # [] int32 environment steps; stays at its largest value


def mfec(config: MFECConfig, spec: Spec, horizon: int) -> Agent:
    """Episodic control from the returns of whole episodes, none longer than `horizon` steps.

    Q(s, a) is the largest return that followed a in s, if a was taken there, and otherwise the mean
    over the nearest states where it was; 0 if there is none. Ties are broken at random. Actions
    enter the tables when their episode ends or is cut by a time limit; at a time limit, returns
    bootstrap from the value of the best action. The projection has random signs rather than normal
    numbers (Achlioptas 2003), so that its sums can be the same bits for every batch size. Raises
    ValueError for settings out of range and for actions that are not one `Discrete`.
    Blundell et al. (2016), algorithm 1 and equations 1 and 2.
    """
    seen = sum(map(width, spaces.parts(spec.observations)))
    _check(config, seen)
    actions = exploration.discrete_actions("mfec", spec)

    def init(key: Key, timestep: TimeStep) -> MFECState:
        projection: Any = ()
        if config.key_size is not None:
            projection = draws.rademacher(key, (seen, config.key_size), jnp.float32)
        tables = episodic.empty(actions, config.entries, config.key_size or seen)
        first, value = keys(projection, timestep), jnp.zeros_like(timestep.reward)
        example = Acted(outline(timestep), timestep.action, first, value)
        return MFECState(projection, tables, episodic.begin(example, horizon), jnp.int32(0))

    def keys(projection: Any, timestep: TimeStep) -> Array:
        return project(vector(spec.observations, timestep), projection)

    def values(state: MFECState, key: Array) -> Array:
        """Return Q [B, A] for keys [B, D]."""
        near = episodic.nearest(state.tables, key, config.neighbours)
        slot, held = episodic.find(state.tables, key)
        own = tree.take(state.tables.values, (jnp.arange(actions)[None], slot))
        return jnp.where(held, own, episodic.plain_mean(near.values, near.found))

    def act(
        key: Key, state: MFECState, memory: State, timestep: TimeStep, explore: bool = True
    ) -> tuple[State, Array, Lookup]:
        tie_key, key = draws.split(key)
        own = keys(state.projection, timestep)
        q = values(state, own)
        lookup = Lookup(own, jnp.max(masked(q, timestep.legal), axis=-1))
        q = exploration.break_ties(tie_key, q, timestep.legal)
        if not explore:
            return memory, exploration.best(q, timestep.legal), lookup
        action = exploration.epsilon_greedy(config.exploration, key, q, state.env_steps, timestep)
        return memory, action, lookup

    def observe(state: MFECState, segment: Segment) -> MFECState:
        return state._replace(env_steps=exploration.count_steps(state.env_steps, segment))

    def learn(key: Key, state: MFECState, segment: Segment) -> tuple[MFECState, dict[str, Array]]:
        lookup, steps = segment.extras, segment.action.shape[0]
        timestep = outline(tree.at(segment.timestep, slice(-1)))
        acted = Acted(timestep, segment.action, lookup.key, lookup.value)
        acted, history = episodic.join(state.history, acted)
        target = returns(config.discount, acted)
        tables, new = episodic.remember(state.tables, acted, target, steps, horizon, jnp.maximum)
        metrics = {
            "updates": jnp.sum(new, dtype=jnp.int32),
            "q_sum": jnp.sum(target, where=new, dtype=jnp.float32),
        }
        metrics = exploration.told(config.exploration, state.env_steps, segment, metrics)
        return state._replace(tables=tables, history=history), metrics

    def params(state: MFECState) -> Any:
        return {"projection": state.projection, "tables": state.tables}

    def with_params(state: MFECState, params: Any) -> MFECState:
        return state._replace(**params, history=episodic.forget(state.history))

    def inspect(state: MFECState, memory: State, timestep: TimeStep) -> dict[str, Array]:
        return {"q": values(state, keys(state.projection, timestep))}

    def initial_memory(batch: int) -> State:
        return ()

    return Agent(init, initial_memory, act, observe, learn, params, with_params, inspect=inspect)


def vector(observations: Any, timestep: TimeStep) -> Array:
    """Return the whole observation as one vector [..., F] of numbers of comparable scale.

    As in `networks.features`, except that floats too are divided by the largest absolute value that
    their declared bounds allow, where these are less than 2^31 - 1 apart.
    """
    batch = timestep.reward.ndim

    def part(space: Any, x: Array) -> Array:
        seen = features(space, x, batch)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return seen
        return seen / sizes(space).reshape((1,) * batch + seen.shape[batch:])

    parts = spaces.over(part, observations, timestep.observation)
    return jnp.concatenate(jax.tree.leaves(parts), axis=-1)


def width(space: Discrete | Continuous) -> int:
    """Return how many numbers of `vector` come from one part of the observations."""
    size = math.prod(space.shape)
    return space.n * size if isinstance(space, Discrete) else size


def sizes(space: Continuous) -> Array:
    """Return the largest absolute value [*shape] that bounds allow; 1 where it is unknown or 0."""
    low, high = jnp.float32(space.low), jnp.float32(space.high)
    size = jnp.maximum(jnp.abs(low), jnp.abs(high))
    told = (high - low < 2**31 - 1) & (size > 0)
    return jnp.broadcast_to(jnp.where(told, size, 1.0), space.shape)


def project(x: Array, projection: Any) -> Array:
    """Return the keys [B, D] of vectors [B, F] by a projection [F, D] of signs, or () for none.

    Terms are added in a fixed order: a matrix product may round otherwise in a batch of another
    size, but equal observations must get equal keys.
    """
    if isinstance(projection, tuple):
        return x

    def add(total: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        column, signs = pair
        return total + column[:, None] * signs[None], None

    zero = jnp.zeros((x.shape[0], projection.shape[1]), jnp.float32)
    return jax.lax.scan(add, zero, (x.T, projection), unroll=8)[0]


def returns(discount: Any, acted: Acted) -> Array:
    """Return the discounted returns [R - 1, B], each until its episode ends, from R timesteps."""
    after, value = tree.at((acted.timestep, acted.value), slice(1, None))
    goes_on = jnp.where(after.last, 0.0, 1.0)
    over_batch = jax.vmap(lambda_returns, in_axes=1, out_axes=1)
    return over_batch(after.reward, discount * after.discount, value, goes_on)


def outline(timestep: TimeStep) -> TimeStep:
    """Return timesteps [..., B] without observations and legal actions."""
    return timestep._replace(observation=(), legal=())


def _check(config: MFECConfig, seen: int) -> None:
    checks.positive("entries", config.entries)
    if config.key_size is not None and checks.positive("key_size", config.key_size) >= seen:
        raise ValueError(f"key_size: {config.key_size} is not below the {seen} numbers observed")
    checks.positive("neighbours", config.neighbours, config.entries)
    checks.within("discount", config.discount, 0, 1)
    exploration.check(config.exploration)
