"""The data that flows through the library and the protocols its components follow.

A component is a NamedTuple of pure functions; every state is a pytree. Sizes in comments: `B`
environments, `T` steps, `L` actions in a window, `N` windows in a batch, `A` discrete actions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array
State = Any  # any pytree of arrays


class TimeStep(NamedTuple):
    """All that an agent may see at time t."""

    observation: Any  # [B, ...] any pytree
    action: Any  # [B, ...] a_{t-1}, a pytree like the action space; 0 at a start
    reward: Array  # [B] float32, r_t, received on arriving here; 0 at a start
    discount: Array  # [B] float32, 0 iff the episode terminated here, else 1
    start: Array  # [B] bool: memories are reset before this step
    last: Array  # [B] bool: terminated or truncated here; the action taken here is ignored
    # [B, n] bool for each discrete part of the action space, a pytree like it: which actions are
    # allowed here, at least one; () if the environment always allows all.
    legal: Any = ()


class Segment(NamedTuple):
    """T actions and the T + 1 timesteps around them: what a rollout returns and a loss takes."""

    memory: State  # [B, ...] the actor's memory before timestep 0
    timestep: TimeStep  # [T + 1, B, ...]
    action: Any  # [T, B, ...] a pytree like the action space
    extras: Any  # [T, B, ...] what the policy adds, e.g. log-probabilities; () if nothing


class Spec(NamedTuple):
    """The observation and action spaces: pytrees of `spaces.Discrete` and `spaces.Continuous`."""

    observations: Any  # a pytree like an observation
    actions: Any  # a pytree like an action, e.g. a tuple of several Discrete
    legal: bool = False  # whether `TimeStep.legal` says which discrete actions are allowed


class Environment(NamedTuple):
    """One environment; `environments.batch` makes B copies of it.

    After a `last` timestep, `step` ignores its action and returns the next episode's first one.
    """

    reset: Callable[..., Any]  # key -> (state, TimeStep)
    step: Callable[..., Any]  # key, state, action -> (state, TimeStep)
    spec: Spec
    horizon: int  # no episode is longer than this many steps


def empty_record(*args: Any) -> dict[str, Array]:
    """Return an empty record: the default `inspect`, with nothing to show."""
    return {}


class NeuralMemory(NamedTuple):
    """A memory over one sequence; batch it with vmap. `start` resets it before the step.

    `inspect` records what `step` does with the same arguments, under any of these names: `read` and
    `write` [heads, slots], how strongly each slot is addressed; `memory` [slots, width], the
    contents after the step; `attention` [hops, M], the weights of the M inputs before this one,
    oldest first.
    """

    init: Callable[..., Any]  # key, x [D] -> params
    initial_state: Callable[..., Any]  # () -> state
    step: Callable[..., Any]  # params, state, x [D], start [] -> (state, y)
    unroll: Callable[..., Any]  # params, state, xs [T, D], starts [T] -> (state, ys)
    inspect: Callable[..., dict[str, Array]] = empty_record  # as step -> {name: array}


class Network(NamedTuple):
    """A batched function of timesteps with a memory; hides the neural-network library.

    `inputs` are what its head takes besides the memory's output, e.g. actions to evaluate.
    """

    init: Callable[..., Any]  # key, TimeStep [B], *inputs [B, ...] -> params
    initial_state: Callable[..., Any]  # batch size -> state
    step: Callable[..., Any]  # params, state, TimeStep [B], *inputs -> (state, output)
    unroll: Callable[..., Any]  # params, state, TimeStep [T, B], *inputs -> (state, outputs)
    inspect: Callable[..., dict[str, Array]] = empty_record  # params, state, TimeStep -> [B, ...]


# head (a linen module) -> Network: an encoder and a memory before that head, with new parameters.
Body = Callable[[Any], Network]


class Sample(NamedTuple):
    """A batch of windows drawn from a replay memory."""

    segment: Segment  # N windows of L actions
    index: Any  # [N] which windows these are, for `update`
    weight: Array  # [N] float32 importance weights; 0 until the memory holds a whole window


class ReplayMemory(NamedTuple):
    """Experience kept for learning."""

    init: Callable[..., Any]  # example Segment without a time axis -> state
    add: Callable[..., Any]  # state, Segment -> state
    sample: Callable[..., Any]  # key, state -> Sample
    update: Callable[..., Any]  # state, index, priority [N] -> (state, {name: count})
    can_sample: Callable[..., Array]  # state -> [] bool: it holds a whole window
    warmup: int  # adds before learning begins; from then on, `can_sample` is true
    length: int  # actions in a window
    burn_in: int = 0  # the first of these, which only bring the memory up to date


class Agent(NamedTuple):
    """A policy and how it learns.

    `act` explores, or with `explore=False` acts greedily. `inspect` records what the agent then
    computes: action values `q` [B, A], action probabilities `policy` [B, A] and `value` [B], those
    that it has, and the memory's record, see `NeuralMemory`. `params` are the parameters that `act`
    uses, and critics', by part; `with_params` replaces them and resets target networks and
    optimizers.
    """

    init: Callable[..., Any]  # key, TimeStep -> state
    initial_memory: Callable[..., Any]  # batch size -> memory
    # key, state, memory, TimeStep, explore=True -> (memory, action, extras)
    act: Callable[..., Any]
    observe: Callable[..., Any]  # state, Segment -> state, e.g. with the segment in replay
    learn: Callable[..., Any]  # key, state, Segment -> (state, metrics)
    params: Callable[..., Any]  # state -> params by name, e.g. {"encoder", "memory", "head"}
    with_params: Callable[..., Any]  # state, params -> state
    warmup: int = 0  # rollouts to observe before learning
    inspect: Callable[..., dict[str, Array]] = empty_record  # state, memory, TimeStep -> [B, ...]
