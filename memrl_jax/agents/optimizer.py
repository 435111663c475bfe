"""The optimizer of all agents that learn by gradients."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from memrl_jax import checks, shards
from memrl_jax.schedules import linear
from memrl_jax.settings import Settings, static
from memrl_jax.types import Array

SMALL, LARGE = 1e-30, 1e30  # within these, a rate and 1 / rate are finite and not 0 in float32


class OptimizerConfig(Settings):
    """Adam (Kingma & Ba 2015)."""

    learning_rate: float = 2.5e-4
    """Learning rate of Adam."""
    decay_updates: float | None = None
    """Gradient steps over which the learning rate falls to zero, linearly, and once more after a
    restart; None keeps it as it is."""
    adam_epsilon: float = 1e-8
    """Added to the denominator of Adam's steps."""
    max_gradient_norm: float | None = None
    """Clip gradients to this global norm; None does not clip."""
    freeze: tuple[str, ...] = static(())
    """Parts of the parameters that keep their values, bit for bit, as do their targets: encoder,
    memory, head, or what else the agent has (critic: of ppo with separate; critics,
    log_temperature: of sac). Their gradients do not count in max_gradient_norm."""


def make_optimizer(config: OptimizerConfig, still: Any = None) -> optax.GradientTransformation:
    """Return Adam as configured, for parameters by part, {"encoder", "memory", ...}.

    Gradients are averaged over shards first. Parts in `freeze` get no steps, no moments, and count
    in no norm. `still` marks what is frozen where parameters are arranged otherwise: see `frozen`.
    Raises ValueError for settings out of range, and for unknown parts once the optimizer is
    initialised.
    """
    adam = _adam(config)
    if not config.freeze:
        return _averaging(adam)
    labels = partial(frozen, config) if still is None else still
    return _averaging(optax.partition({True: _no_steps(), False: adam}, labels))


def _averaging(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Give an optimizer gradients that are averaged over shards; its state is its own."""

    def update(gradient: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return optimizer.update(shards.mean(gradient), state, params)

    return optax.GradientTransformation(optimizer.init, update)


def frozen(config: OptimizerConfig, parts: Iterable[str]) -> Any:
    """Return which parts are frozen, {part: bool}, or False if none is: a prefix of parameters.

    Raises ValueError for unknown parts in `freeze`.
    """
    parts = list(parts)
    for name in config.freeze:
        checks.known("freeze", name, parts)
    return {name: name in config.freeze for name in parts} if config.freeze else False


def follow(still: Any, new: Any, old: Any, rate: Any) -> Any:
    """Return target parameters moved from `old` towards `new`; what is still stays as it is.

    Otherwise it would move too: the average of two equal numbers may be rounded.
    """
    moved = optax.incremental_update(new, old, rate)
    return jax.tree.map(lambda still, x, y: x if still else y, still, old, moved)


def _no_steps() -> optax.GradientTransformation:
    """Return a transformation to steps of -0, which alone leave every bit of 0 and -0 as it is."""

    def update(gradient: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree.map(lambda x: -jnp.zeros_like(x), gradient), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _adam(config: OptimizerConfig) -> optax.GradientTransformation:
    checks.within("learning_rate", config.learning_rate, 0, LARGE)
    checks.within("adam_epsilon", config.adam_epsilon, SMALL, LARGE)
    rate: Any = config.learning_rate
    if config.decay_updates is not None:
        checks.within("decay_updates", config.decay_updates, 1, checks.INT32)
        rate = linear(config.learning_rate, 0.0, config.decay_updates)
    adam = optax.adam(rate, eps=config.adam_epsilon)
    if config.max_gradient_norm is None:
        return adam
    checks.within("max_gradient_norm", config.max_gradient_norm, SMALL, LARGE)
    return optax.chain(optax.clip_by_global_norm(config.max_gradient_norm), adam)


def told(config: OptimizerConfig, gradient: Any, state: Any) -> dict[str, Array]:
    """Return metrics [] of a step from the optimizer state before it.

    `gradient_norm_sum`, global and before clipping, and `learning_rate_sum`, if the rate falls.
    """
    metrics = {"gradient_norm_sum": optax.tree.norm(shards.mean(gradient))}
    if config.decay_updates is not None:
        (_, count), *_ = optax.tree.get_all_with_path(state, "count")  # all are alike
        rate = linear(config.learning_rate, 0.0, config.decay_updates)
        metrics["learning_rate_sum"] = rate(count)
    return metrics
