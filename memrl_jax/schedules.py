"""The only schedule: linear, with arguments that may be traced."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from memrl_jax.types import Array


def linear(first: Any, last: Any, span: Any) -> Callable[[Array], Array]:
    """Make `f(count [...]) -> [...]`, linear from `first` at 0 to `last` at `span`, then constant.

    All arguments may be traced, unlike those of `optax.linear_schedule`.
    """
    return lambda count: first + jnp.clip(count / span, 0.0, 1.0) * (last - first)
