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
    action: Any  # [B, ...] a_{t-1}, a pytree like the space of actions; 0 at a start
    reward: Array  # [B] float32, r_t, earned on arriving here; 0 at a start
    discount: Array  # [B] float32, 0 iff the episode terminated here, else 1
    start: Array  # [B] bool: memories are reset before this step
    last: Array  # [B] bool: terminated or truncated here; the action taken here is ignored
    # [B, n] bool for every discrete part of the actions, like their space: which are allowed here,
    # one at least; () where all are, always.
    legal: Any = ()


class Segment(NamedTuple):
    """T actions and the T + 1 timesteps around them: what a rollout gives and a loss takes."""

    memory: State  # [B, ...] the actor's memory before timestep 0
    timestep: TimeStep  # [T + 1, B, ...]
    action: Any  # [T, B, ...] a pytree like the space of actions
    extras: Any  # [T, B, ...] what the policy adds, e.g. log-probabilities; () if nothing


class Spec(NamedTuple):
    """What can be seen and done: pytrees of `spaces.Discrete` and `spaces.Continuous`."""

    observations: Any  # arranged like an observation
    actions: Any  # arranged like an action: several discrete ones are a tuple of Discrete
    legal: bool = False  # whether timesteps tell which discrete actions are allowed


class Environment(NamedTuple):
    """One environment; `environments.batch` makes B of it.

    `step` after a `last` timestep ignores its action and gives the next episode's `start`.
    """

    reset: Callable[..., Any]  # key -> (state, TimeStep)
    step: Callable[..., Any]  # key, state, action -> (state, TimeStep)
    spec: Spec
    horizon: int  # no episode is longer than this many steps


def empty_record(*args: Any) -> dict[str, Array]:
    """Return an empty record: the `inspect` of what has nothing to show."""
    return {}


class NeuralMemory(NamedTuple):
    """A memory over one sequence; batch it with vmap. `start` resets it before the step.

    `inspect` tells what `step` does with the same arguments, by any of these names: `read` and
    `write` [heads, slots], how strongly a slot is addressed; `memory` [slots, width], what is held
    after the step; `attention` [hops, M], the weights of the last M inputs before this one, the
    oldest first.
    """

    init: Callable[..., Any]  # key, x [D] -> params
    initial_state: Callable[..., Any]  # () -> state
    step: Callable[..., Any]  # params, state, x [D], start [] -> (state, y)
    unroll: Callable[..., Any]  # params, state, xs [T, D], starts [T] -> (state, ys)
    inspect: Callable[..., dict[str, Array]] = empty_record  # as step -> name: weights


class Network(NamedTuple):
    """A batched function of timesteps with a memory; hides the neural-network library.

    `inputs` are what its head takes beside the memory's output, e.g. actions to be judged.
    """

    init: Callable[..., Any]  # key, TimeStep [B], *inputs [B, ...] -> params
    initial_state: Callable[..., Any]  # batch size -> state
    step: Callable[..., Any]  # params, state, TimeStep [B], *inputs -> (state, output)
    unroll: Callable[..., Any]  # params, state, TimeStep [T, B], *inputs -> (state, outputs)
    inspect: Callable[..., dict[str, Array]] = empty_record  # as step -> the memory's, [B, ...]


# Makes a network with a given head, a linen module: of one encoder and one memory, new parameters.
Body = Callable[[Any], Network]


class Sample(NamedTuple):
    """A batch of windows drawn from a replay memory."""

    segment: Segment  # N windows of L actions
    index: Any  # [N] handed back to `update`
    weight: Array  # [N] float32 importance weights; 0 if no window is whole yet


class ReplayMemory(NamedTuple):
    """Experience kept for learning."""

    init: Callable[..., Any]  # Segment example without a time axis -> state
    add: Callable[..., Any]  # state, Segment -> state
    sample: Callable[..., Any]  # key, state -> Sample
    update: Callable[..., Any]  # state, index, priority [N] -> (state, counts by name)
    can_sample: Callable[..., Array]  # state -> [] bool: some window is whole
    warmup: int  # adds before learning begins; from then on, that is so
    length: int  # actions in a window
    burn_in: int = 0  # of these, how many only bring the memory up to date


class Agent(NamedTuple):
    """A policy and how it learns.

    `act` explores, or does what is best so far. `inspect` tells what it has in mind then: `q`
    [B, A], the values of the actions, `policy` [B, A], their probabilities, `value` [B], whichever
    there are, and what the memory does, by the names of `NeuralMemory`. `params` are those that
    `act` uses; `with_params` puts others in their place, and begins targets and optimizers anew.
    """

    init: Callable[..., Any]  # key, TimeStep -> state
    initial_memory: Callable[..., Any]  # batch size -> memory
    act: Callable[
        ..., Any
    ]  # key, state, memory, TimeStep, explore=True -> (memory, action, extras)
    observe: Callable[..., Any]  # state, Segment -> state (on-policy: identity)
    learn: Callable[..., Any]  # key, state, Segment -> (state, metrics)
    params: Callable[..., Any]  # state -> {"encoder": ..., "memory": ..., "head": ...}
    with_params: Callable[..., Any]  # state, params -> state
    warmup: int = 0  # rollouts to observe before learning
    inspect: Callable[..., dict[str, Array]] = empty_record  # state, memory, TimeStep -> [B, ...]
