"""Memory-augmented reinforcement learning as pure functions on JAX."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memrl_jax.build import make_train
    from memrl_jax.config import Config
    from memrl_jax.deployment import deploy
    from memrl_jax.preset_configs import presets
    from memrl_jax.sweeps import sweep
    from memrl_jax.transfer import take

__version__ = "0.2.0"

__all__ = ["Config", "deploy", "make_train", "presets", "sweep", "take"]

_HOME = {
    "Config": "config",
    "deploy": "deployment",
    "make_train": "build",
    "presets": "preset_configs",
    "sweep": "sweeps",
    "take": "transfer",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `memrl --help` need not wait for jax."""
    if name in _HOME:
        return getattr(importlib.import_module(f"memrl_jax.{_HOME[name]}"), name)
    try:
        return importlib.import_module(f"memrl_jax.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"memrl_jax.{name}":
            raise
    raise AttributeError(f"module 'memrl_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
