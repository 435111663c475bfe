"""PQN: Q-learning from parallel environments, without replay and without a target network."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from memrl_jax import checks, shards, tree
from memrl_jax.agents import exploration
from memrl_jax.agents.exploration import (
    ExplorationConfig,
    best,
    discrete_actions,
    epsilon_greedy,
    value_of,
)
from memrl_jax.agents.minibatches import epochs
from memrl_jax.agents.optimizer import OptimizerConfig, make_optimizer, told
from memrl_jax.networks import QHead
from memrl_jax.returns import lambda_returns
from memrl_jax.settings import BodyConfig, LayersConfig, Settings, static
from memrl_jax.spaces import masked
from memrl_jax.types import Agent, Array, Body, Key, Network, Segment, Spec, State, TimeStep


class PQNConfig(Settings):
    """Settings of on-policy Q-learning from rollouts of many environments."""

    body: BodyConfig = BodyConfig(layers=LayersConfig(layer_norm=True))
    """Encoder and memory before the head."""
    optimizer: OptimizerConfig = OptimizerConfig(max_gradient_norm=10.0)
    """How gradients are followed."""
    exploration: ExplorationConfig = ExplorationConfig()
    """How random actions are mixed in."""
    head: tuple[int, ...] = static(())
    """Widths of the dense layers after the memory."""
    epochs: int = static(4)
    """Times that every rollout is gone through (update_epochs)."""
    minibatches: int = static(4)
    """Gradient steps an epoch, each from an equal share of the environments (num_minibatches)."""
    discount: float = 0.99
    """Gamma, per step."""
    td_lambda: float = 0.95
    """Lambda of the returns that values are learned from: 0 looks one reward ahead, 1 to the end of
    the rollout."""


class PQNState(NamedTuple):
    """The state of a PQN agent."""

    params: Any
    optimizer: Any
    env_steps: Array  # [] int32 environment steps; stays at its largest value


def pqn(config: PQNConfig, spec: Spec, body: Body) -> Agent:
    """Q-learning from the latest rollout, in minibatches of environments.

    `body` makes the network of action values [B, A] from its head; its layers should have
    LayerNorm, without which values may diverge. A minibatch is a subset of the environments: their
    whole rollouts are unrolled from the actor's memory before them, and targets are recomputed. The
    authors do so only with a memory, after four timesteps of the previous rollout; without one they
    compute targets once per rollout and shuffle timesteps. They use RAdam, here it is Adam.
    Raises ValueError for settings out of range, for actions that are not one `Discrete`, and when
    `learn` is traced, for minibatches that do not divide the environments.
    Gallici et al. (2025), section 4.
    """
    _check(config)
    actions = discrete_actions("pqn", spec)
    network = body(QHead(actions, config.head, layers=config.body.layers))
    optimizer = make_optimizer(config.optimizer)

    def init(key: Key, timestep: TimeStep) -> PQNState:
        params = network.init(key, timestep)
        return PQNState(params, optimizer.init(params), jnp.int32(0))

    def act(
        key: Key, state: PQNState, memory: State, timestep: TimeStep, explore: bool = True
    ) -> tuple[State, Array, Any]:
        memory, q = network.step(state.params, memory, timestep)
        if not explore:
            return memory, best(q, timestep.legal), ()
        action = epsilon_greedy(config.exploration, key, q, state.env_steps, timestep)
        return memory, action, ()

    def observe(state: PQNState, segment: Segment) -> PQNState:
        return state._replace(env_steps=exploration.count_steps(state.env_steps, segment))

    def learn(key: Key, state: PQNState, segment: Segment) -> tuple[PQNState, dict[str, Array]]:
        passes = config.epochs, config.minibatches
        state, metrics = epochs(key, state, lambda _: segment, update, *passes)
        return state, exploration.told(config.exploration, state.env_steps, segment, metrics)

    def update(state: PQNState, segment: Segment) -> tuple[PQNState, dict[str, Array]]:
        grad = jax.grad(q_loss, has_aux=True)
        gradient, metrics = grad(state.params, network, config, segment)
        metrics |= told(config.optimizer, gradient, state.optimizer)
        step, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, step)
        state = state._replace(params=params, optimizer=optimizer_state)
        return state, metrics | {"updates": jnp.int32(1)}

    def params(state: PQNState) -> Any:
        return state.params

    def with_params(state: PQNState, params: Any) -> PQNState:
        return state._replace(params=params, optimizer=optimizer.init(params))

    def inspect(state: PQNState, memory: State, timestep: TimeStep) -> dict[str, Array]:
        _, q = network.step(state.params, memory, timestep)
        return {"q": q, **network.inspect(state.params, memory, timestep)}

    memory = network.initial_state
    return Agent(init, memory, act, observe, learn, params, with_params, inspect=inspect)


def q_loss(
    params: Any, network: Network, config: PQNConfig, segment: Segment
) -> tuple[Array, dict[str, Array]]:
    """Return half the mean squared error [], to be differentiated, and metrics [].

    `segment` has T actions and [T + 1, N] timesteps. Actions at `last` timesteps, which the
    environment ignores, do not count.
    """
    _, q = network.unroll(params, segment.memory, segment.timestep)
    before, after = tree.at(segment.timestep, slice(-1)), tree.at(segment.timestep, slice(1, None))
    target = targets(config, after, jax.lax.stop_gradient(q[1:]))
    error = target - value_of(q[:-1], segment.action)
    # Select before squaring: 0 * NaN is NaN, in the gradient too.
    matters = ~before.last
    squared = optax.l2_loss(jnp.where(matters, error, 0.0))
    loss = squared.sum() / shards.divisor(matters.sum())
    return loss, {"loss_sum": loss, "q_sum": jnp.mean(q)}


def targets(config: PQNConfig, after: TimeStep, q: Array) -> Array:
    """Return targets [T, N] from the timesteps after each action and their values [T, N, A].

    Peng's Q(lambda): G = r + gamma ((1 - lambda) max Q + lambda G'), the maximum over legal
    actions; exploratory actions do not cut it.
    """
    value = jnp.max(masked(q, after.legal), axis=-1)
    lambda_t = jnp.where(after.last, 0.0, config.td_lambda)
    over_batch = jax.vmap(lambda_returns, in_axes=1, out_axes=1)
    return over_batch(after.reward, config.discount * after.discount, value, lambda_t)


def _check(config: PQNConfig) -> None:
    for field in ("epochs", "minibatches"):
        checks.positive(field, getattr(config, field))
    checks.widths("head", config.head)
    for field in ("discount", "td_lambda"):
        checks.within(field, getattr(config, field), 0, 1)
    exploration.check(config.exploration)
