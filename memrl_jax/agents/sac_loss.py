"""The losses of soft actor-critic: for the policy, two critics, and the temperature."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memrl_jax import tree
from memrl_jax.agents.soft import Choices
from memrl_jax.types import Array, Key, Network, Sample, Segment, State, TimeStep


class Networks(NamedTuple):
    """The policy and two critics: twin networks or, on a shared body, twin heads."""

    actor: Network
    critics: Network  # outputs [2, ...]
    shared: bool
    stored: bool  # whether windows begin with stored memories

    @property
    def carried(self) -> bool:
        """Whether the actor carries the critics' memories besides its own."""
        return self.stored and not self.shared

    def memories(self, memory: State, batch: int) -> tuple[State, State]:
        """Return the policy's and the critics' memories, from the one that the actor carried."""
        if self.shared:
            return memory, memory
        return memory if self.carried else (memory, self.critics.initial_state(batch))


def acting(params: Any) -> Any:
    """Return all parameters of the policy's network; a shared body is the critics', frozen."""
    return {**jax.lax.stop_gradient(params["critics"]), **params["actor"]}


class Loss(NamedTuple):
    """Results of the losses on N windows of L actions."""

    means: dict[str, Array]  # [] each; invalid actions do not contribute
    error: Array  # [L, N] mean absolute error of the two critics
    valid: Array  # [L, N] bool: the timestep is not `last`, and the window's weight is not 0


def sac_loss(
    params: Any,
    target_critics: Any,
    networks: Networks,
    choice: Choices,
    discount: Array | float,
    key: Key,
    sample: Sample,
    burn_in: int = 0,
) -> tuple[Array, Loss]:
    """Return the sum [] of three losses over N windows of L actions, and a `Loss`.

    The sum is to be differentiated: the first loss moves only the critics, the second the policy,
    the third the temperature. `sample.segment` has [burn_in + L + 1, N] timesteps; the first
    `burn_in` actions only bring memories up to date. Actions at `last` timesteps, which the
    environment ignores, and windows of weight 0 do not count.
    Haarnoja et al. (2018b), equations 5, 7 and 18; Christodoulou (2019), equations 10 to 12.
    """
    memories = burned_in(params, target_critics, networks, choice, burn_in, sample.segment)
    x = estimates(params, target_critics, networks, choice, discount, key, *memories)
    valid = ~x.last & (sample.weight > 0)[None]
    # Select before taking the losses: 0 * NaN is NaN, in the gradient too.
    error = jnp.where(valid[None], x.target[None] - x.q, 0.0)

    def mean(x: Array) -> Array:
        return jnp.mean(jnp.where(valid, x, 0.0) * sample.weight[None])

    def average(x: Array) -> Array:
        return jnp.sum(jnp.where(valid, x, 0.0)) / jnp.maximum(jnp.sum(valid), 1)

    critics = mean(jnp.sum(jnp.square(error), axis=0) / 2)
    actor = -mean(x.value)
    temperature = jnp.exp(params["log_temperature"])
    surplus = jax.lax.stop_gradient(x.entropy - x.target_entropy)
    means = {
        "loss": critics,
        "actor_loss": actor,
        "q": average(jnp.mean(x.q, axis=0)),
        "entropy": average(x.entropy),
        "temperature": temperature,
    }
    loss = critics + actor + temperature * mean(surplus)
    return loss, Loss(means, jnp.mean(jnp.abs(error), axis=0), valid)


class Estimates(NamedTuple):
    """What policy and critics compute at the timesteps of L actions, in N windows."""

    q: Array  # [2, L, N] values of the actions taken
    target: Array  # [L, N] targets of `q`
    value: Array  # [L, N] of what the policy would choose, with the entropy bonus
    entropy: Array  # [L, N] of the policy
    target_entropy: Array  # [L, N] or []
    last: Array  # [L, N] bool: an episode ended there


def estimates(
    params: Any,
    target_critics: Any,
    networks: Networks,
    choice: Choices,
    discount: Array | float,
    key: Key,
    memories: tuple[State, State, State],
    segment: Segment,
) -> Estimates:
    """Return what policy and critics compute for a segment [L + 1, N] that follows `memories`.

    Gradients flow through `q` to the critics only, through `value` and `entropy` to the policy.
    """
    frozen = jax.lax.stop_gradient(params)
    before, after = (tree.at(segment.timestep, x) for x in (slice(-1), slice(1, None)))
    actor_memory, critics_memory, target_memory = memories
    actor_memory, policy = networks.actor.unroll(acting(params), actor_memory, before)
    # The final timestep is only bootstrapped from, so no gradient is needed there.
    actor_memory, final = jax.lax.stop_gradient(actor_memory), tree.at(segment.timestep, -1)
    _, final = networks.actor.step(acting(frozen), actor_memory, final)
    drawn, entropy = choice.draw(key, tree.append(policy, final), segment.timestep.legal)

    def value(critics: Any, memory: State, timestep: TimeStep, part: slice) -> Array:
        chosen = tree.at(drawn, part)
        _, q = networks.critics.unroll(critics, memory, timestep, *choice.inputs(chosen))
        # Not jnp.min: its gradient looks for inputs equal to the result; rounding may leave none.
        worth = choice.expected(jnp.minimum(q[0], q[1]), chosen)
        return worth + jnp.exp(frozen["log_temperature"]) * entropy[part]

    first = tree.at((before, drawn), 0)
    target_memory, _ = networks.critics.step(
        target_critics, target_memory, first[0], *choice.inputs(first[1])
    )
    bootstrap = value(target_critics, target_memory, after, slice(1, None))
    made = choice.from_action(segment.action)
    _, q = networks.critics.unroll(params["critics"], critics_memory, before, *choice.inputs(made))
    return Estimates(
        jax.vmap(choice.expected, (0, None))(q, made),
        jax.lax.stop_gradient(after.reward + discount * after.discount * bootstrap),
        value(frozen["critics"], critics_memory, before, slice(-1)),
        entropy[:-1],
        choice.target_entropy(before.legal),
        before.last,
    )


def burned_in(
    params: Any,
    target_critics: Any,
    networks: Networks,
    choice: Choices,
    burn_in: int,
    segment: Segment,
) -> tuple[tuple[State, State, State], Segment]:
    """Unroll all networks over the first `burn_in` actions, which are not learned from.

    Returns the memories [N, ...] of policy, critics and target critics, and what is left of the
    segment, [L + 1, N] timesteps.
    Kapturowski et al. (2019), section 3.
    """
    actor_memory, critics_memory = networks.memories(
        segment.memory, segment.timestep.reward.shape[1]
    )
    if not burn_in:
        return (actor_memory, critics_memory, critics_memory), segment
    frozen = jax.lax.stop_gradient(params)
    prefix = tree.at(segment.timestep, slice(burn_in))
    inputs = choice.inputs(choice.from_action(tree.at(segment.action, slice(burn_in))))
    actor_memory, _ = networks.actor.unroll(acting(frozen), actor_memory, prefix)
    target_memory, _ = networks.critics.unroll(target_critics, critics_memory, prefix, *inputs)
    critics_memory, _ = networks.critics.unroll(frozen["critics"], critics_memory, prefix, *inputs)
    rest = segment.timestep, segment.action, segment.extras
    rest = tree.at(rest, slice(burn_in, None))
    return (actor_memory, critics_memory, target_memory), Segment(segment.memory, *rest)
