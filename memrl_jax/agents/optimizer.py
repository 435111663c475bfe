"""The optimizer of all agents that learn by gradients."""

from typing import Any

import optax

from memrl_jax import checks
from memrl_jax.schedules import linear
from memrl_jax.settings import Settings
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


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Return Adam as configured; raises ValueError for settings out of range."""
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
    metrics = {"gradient_norm_sum": optax.tree.norm(gradient)}
    if config.decay_updates is not None:
        (_, count), *_ = optax.tree.get_all_with_path(state, "count")  # all are alike
        rate = linear(config.learning_rate, 0.0, config.decay_updates)
        metrics["learning_rate_sum"] = rate(count)
    return metrics
