"""Two CPU devices, as on the smallest machine that memrl is used on, and short compilations.

Files that take minutes come first, so that the workers end together.
"""

import gc
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from memrl_jax import compiled
from memrl_jax.cli import COLLECT

# What one worker, or an earlier run, has compiled need not be compiled again: jax reads these as it
# is imported, and so do the processes that tests start.
cache = Path(__file__).parents[1] / ".jax_cache"
cache.mkdir(exist_ok=True)
compiled.shrink(cache, 300_000_000)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax  # noqa: E402

# Nearly all that tests wait for is the compiler: with these it takes a half to a third of the time.
# `XLA_FLAGS= make test` compiles as users do.
flags = ["--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):  # those after it do not know the other
    flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(flags))

jax.config.update("jax_num_cpu_devices", 2)
gc.set_threshold(*COLLECT)

LONG = ("agents", "faults", "hosts", "memories_learn", "notebooks", "pages", "results", "sweep")


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Sort files alike in every worker."""
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONG)
