"""Two CPU devices, as on the smallest machine that memrl is used on, and short compilations."""

import os
from importlib.metadata import version

import jax

# Nearly all that tests wait for is the compiler: with these it takes a half to a third of the time.
# `XLA_FLAGS= make test` compiles as users do.
flags = ["--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):  # those after it do not know the other
    flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(flags))

jax.config.update("jax_num_cpu_devices", 2)
