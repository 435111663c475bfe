"""Proximal policy optimization, feed-forward or with any memory."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from memrl_jax import checks, distributions, shards, spaces, tree
from memrl_jax.agents.minibatches import epochs
from memrl_jax.agents.optimizer import LARGE, OptimizerConfig, make_optimizer, told
from memrl_jax.distributions import Distribution
from memrl_jax.networks import actor_critic
from memrl_jax.normalize import Statistics, normalizer
from memrl_jax.returns import advantages
from memrl_jax.settings import BodyConfig, LayersConfig, Settings, static
from memrl_jax.spaces import Discrete
from memrl_jax.types import Agent, Array, Body, Key, Network, Segment, Spec, State, TimeStep


class PPOConfig(Settings):
    """Settings of proximal policy optimization."""

    body: BodyConfig = BodyConfig(encoder=(64, 64), layers=LayersConfig(orthogonal=True))
    """Encoder and memory before the head."""
    optimizer: OptimizerConfig = OptimizerConfig(5e-4, adam_epsilon=1e-5, max_gradient_norm=0.5)
    """How gradients are followed."""
    head: tuple[int, ...] = static(())
    """Widths of the dense layers after the memory, of the policy and again of the value."""
    separate: bool = static(False)
    """Give the value an encoder and a memory of its own, instead of the policy's."""
    epochs: int = static(4)
    """Times that every rollout is gone through (update_epochs, n_epochs)."""
    minibatches: int = static(4)
    """Gradient steps an epoch, each from an equal share of the environments (num_minibatches)."""
    refresh: bool = static(False)
    """Compute values and advantages anew in every epoch, instead of once a rollout."""
    discount: float = 0.99
    """Gamma, per step."""
    gae_lambda: float = 0.95
    """Lambda of generalized advantages: 0 looks one step ahead, 1 to the end of the rollout."""
    clip: float = 0.2
    """How far from 1 the ratio of an action's probabilities, new to old, still pays (clip_coef,
    clip_range)."""
    value_clip: float | None = None
    """How far from the old value a new one may go before it stops paying (clip_range_vf); None does
    not clip."""
    value_weight: float = 0.5
    """Weight of the value's loss, half the mean squared error (vf_coef)."""
    entropy_bonus: float = 0.01
    """Weight of the policy's entropy (ent_coef)."""
    max_kl: float | None = None
    """Skip the rest of a rollout's gradient steps once the approximate KL divergence from the old
    policy, in nats, is above this (target_kl); None goes on."""
    normalize_observations: bool = static(False)
    """Show observations of floats less their running mean, in running standard deviations."""
    normalize_rewards: bool = static(False)
    """Learn from rewards in running standard deviations of their discounted sums."""


class Learner(NamedTuple):
    """What a gradient step changes."""

    params: Any
    optimizer: Any


class PPOState(NamedTuple):
    """The state of a PPO agent."""

    learner: Learner
    statistics: Statistics


class Batch(NamedTuple):
    """T actions in B environments and their advantages, as the loss takes them."""

    memory: State  # [B, ...] the actor's before timestep 0
    timestep: TimeStep  # [T, B, ...] where each action was chosen, as the network sees it
    action: Any  # [T, B, ...] as sampled, not clipped
    log_prob: Array  # [T, B] of the action when it was sampled
    value: Array  # [T, B]
    advantage: Array  # [T, B]


def ppo(config: PPOConfig, spec: Spec, body: Body) -> Agent:
    """Proximal policy optimization with a clipped objective and generalized advantages.

    `body` makes one network of policy and value from its head, or one of each. Feed-forward and
    recurrent ones are treated alike: the network is unrolled over whole rollouts, from the actor's
    memory before them, which is not recomputed. A minibatch is a subset of the environments. Any
    action space will do: discrete parts are categorical, continuous ones normal, clipped to their
    bounds only for the environment. Observations are normalised by the statistics of earlier
    rollouts, rewards by those that include this one. Raises ValueError for settings out of range,
    and when `learn` is traced, for minibatches that do not divide the environments.
    Schulman et al. (2017), equation 9; Schulman et al. (2016), equation 16.
    """
    _check(config)
    distribution = distributions.from_space(spec.actions)
    normalize = config.normalize_observations, config.normalize_rewards
    scales = normalizer(spec, *normalize, config.discount)
    network = actor_critic(
        body, distribution.size, config.head, config.body.layers, config.separate
    )
    optimizer = make_optimizer(config.optimizer)

    def begin(params: Any) -> Learner:
        return Learner(params, optimizer.init(params))

    def init(key: Key, timestep: TimeStep) -> PPOState:
        statistics = scales.init(timestep.reward.shape[0])
        return PPOState(
            begin(network.init(key, scales.normalize(statistics, timestep))), statistics
        )

    def act(
        key: Key, state: PPOState, memory: State, timestep: TimeStep, explore: bool = True
    ) -> tuple[State, Any, Any]:
        timestep = scales.normalize(state.statistics, timestep)
        memory, (parameters, _) = network.step(state.learner.params, memory, timestep)
        if not explore:
            action = distribution.mode(parameters, timestep.legal)
            return memory, distributions.clip(spec.actions, action), ()
        action, log_prob = distribution.sample_and_log_prob(key, parameters, timestep.legal)
        drawn = {"action": action, "log_prob": log_prob}
        return memory, distributions.clip(spec.actions, action), drawn

    def learn(key: Key, state: PPOState, segment: Segment) -> tuple[PPOState, dict[str, Array]]:
        before, after = (tree.at(segment.timestep, x) for x in (slice(-1), slice(1, None)))
        statistics, reward = scales.update_rewards(state.statistics, after)
        seen = segment._replace(timestep=scales.normalize(statistics, segment.timestep))

        def make_batch(carry: tuple[Learner, Array]) -> Batch:
            return with_advantages(carry[0].params, network, config, seen, reward)

        begun = state.learner, jnp.bool_(True)
        passes = config.epochs, config.minibatches, config.refresh
        (learner, _), metrics = epochs(key, begun, make_batch, update, *passes)
        # Updated last, so that learning sees the observations as the actor saw them.
        return PPOState(learner, scales.update_observations(statistics, before)), metrics

    def update(carry: tuple[Learner, Array], batch: Batch) -> Any:
        learner, going = carry
        grad = jax.grad(ppo_loss, has_aux=True)
        gradient, means = grad(learner.params, network, distribution, config, batch)
        step, optimizer_state = optimizer.update(gradient, learner.optimizer, learner.params)
        moved = Learner(optax.apply_updates(learner.params, step), optimizer_state)
        if config.max_kl is not None:
            going = going & (shards.mean(means["kl"]) <= config.max_kl)
            moved = tree.where(going, moved, learner)
        sums = {f"{name}_sum": x for name, x in means.items()}
        sums |= told(config.optimizer, gradient, learner.optimizer)
        sums = {name: jnp.where(going, x, 0.0) for name, x in sums.items()}
        return (moved, going), sums | {"updates": going.astype(jnp.int32)}

    def params(state: PPOState) -> Any:
        return state.learner.params

    def with_params(state: PPOState, params: Any) -> PPOState:
        return state._replace(learner=begin(params))

    def inspect(state: PPOState, memory: State, timestep: TimeStep) -> dict[str, Array]:
        timestep = scales.normalize(state.statistics, timestep)
        _, (parameters, value) = network.step(state.learner.params, memory, timestep)
        shown = {"value": value, **network.inspect(state.learner.params, memory, timestep)}
        if isinstance(spec.actions, Discrete):
            shown["policy"] = jax.nn.softmax(spaces.masked(parameters, timestep.legal), axis=-1)
        return shown

    def observe(state: PPOState, segment: Segment) -> PPOState:
        return state

    return Agent(init, network.initial_state, act, observe, learn, params, with_params, 0, inspect)


def with_advantages(
    params: Any, network: Network, config: PPOConfig, segment: Segment, reward: Array
) -> Batch:
    """Return a rollout with values and generalized advantages computed from `params`.

    `reward` [T, B] is used in place of the timesteps' rewards. What follows a `last` timestep is
    another episode; the action there has advantage 0.
    """
    before, after = (tree.at(segment.timestep, x) for x in (slice(-1), slice(1, None)))
    _, (_, value) = network.unroll(params, segment.memory, segment.timestep)
    discount = config.discount * after.discount
    lambda_t = jnp.where(after.last, 0.0, config.gae_lambda)
    advantage = jax.vmap(advantages, in_axes=1, out_axes=1)(reward, discount, value, lambda_t)
    advantage = jnp.where(before.last, 0.0, advantage)
    drawn = segment.extras
    return Batch(segment.memory, before, drawn["action"], drawn["log_prob"], value[:-1], advantage)


def ppo_loss(
    params: Any, network: Network, distribution: Distribution, config: PPOConfig, batch: Batch
) -> tuple[Array, dict[str, Array]]:
    """Return the loss [] of T actions in B environments, to be differentiated, and its parts [].

    All means, also those that normalise the advantages, leave out actions at `last` timesteps,
    which the environment ignores. Over shards, loss and parts are to be averaged.
    """
    _, (parameters, value) = network.unroll(params, batch.memory, batch.timestep)
    legal, counts = batch.timestep.legal, ~batch.timestep.last
    steps = shards.divisor(jnp.sum(counts, dtype=jnp.float32))

    def mean(x: Array) -> Array:
        return jnp.sum(jnp.where(counts, x, 0.0)) / steps

    log_prob = distribution.log_prob(parameters, batch.action, legal)
    log_ratio = jnp.where(counts, log_prob - batch.log_prob, 0.0)
    ratio = jnp.exp(log_ratio)
    within = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
    advantage = jnp.where(counts, batch.advantage - shards.mean(mean(batch.advantage)), 0.0)
    advantage = advantage / (jnp.sqrt(shards.mean(mean(advantage**2))) + 1e-8)
    means = {
        "policy_loss": -mean(jnp.minimum(advantage * ratio, advantage * within)),
        "value_loss": 0.5 * mean(squared_error(config.value_clip, value, batch)),
        "value": mean(value),
        "entropy": mean(distribution.entropy(parameters, legal)),
        # Unlike the mean of -log ratio it is never negative, and has less variance (Schulman 2020).
        "kl": mean(ratio - 1 - log_ratio),
        "clipped": mean(jnp.abs(ratio - 1) > config.clip),
    }
    loss = means["policy_loss"] + config.value_weight * means["value_loss"]
    loss -= config.entropy_bonus * means["entropy"]
    return loss, means | {"loss": loss}


def squared_error(clip: Array | float | None, value: Array, batch: Batch) -> Array:
    """Return squared errors of values [T, B]; with `clip`, the larger of clipped and unclipped."""
    target = batch.value + batch.advantage
    error = (value - target) ** 2
    if clip is None:
        return error
    moved = batch.value + jnp.clip(value - batch.value, -clip, clip)
    return jnp.maximum(error, (moved - target) ** 2)


def _check(config: PPOConfig) -> None:
    checks.widths("head", config.head)
    for field in ("epochs", "minibatches"):
        checks.positive(field, getattr(config, field))
    for field in ("discount", "gae_lambda"):
        checks.within(field, getattr(config, field), 0, 1)
    for field in ("value_weight", "entropy_bonus"):
        checks.within(field, getattr(config, field), 0, LARGE)
    for field in ("clip", "value_clip", "max_kl"):
        if getattr(config, field) is not None:
            checks.above(field, getattr(config, field), 0)
