"""Memory-augmented reinforcement learning as pure functions on JAX."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memrl_jax.config import Config, make_train, presets

__version__ = "0.1.0"

__all__ = ["Config", "make_train", "presets"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `memrl --help` need not wait for jax."""
    if name in __all__:
        return getattr(importlib.import_module("memrl_jax.config"), name)
    try:
        return importlib.import_module(f"memrl_jax.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"memrl_jax.{name}":
            raise
    raise AttributeError(f"module 'memrl_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
