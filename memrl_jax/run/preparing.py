"""The program of a run, within JAX or on the host."""

from collections.abc import Callable

import jax

from memrl_jax.config import Config
from memrl_jax.environments import on_host
from memrl_jax.run.host_program import make_host_program
from memrl_jax.run.lanes import NOTHING, Varied
from memrl_jax.run.program import Program, Run, make_program
from memrl_jax.run.taken import Taken

Prepare = Callable[[Config, Run, Varied, Taken | None], Program]


def prepared(
    config: Config, run: Run, varied: Varied = NOTHING, first: Taken | None = None
) -> Program:
    """Prepare a run, within JAX or on the host as its environment is; see `make_program`."""
    params = first.params if first else None
    if not on_host(config.environment):
        return make_program(config, run, varied, params)
    for those, what in ((varied, "point"), (jax.process_count() > 1, "process")):
        if those:
            said = f"{config.environment} steps on the host, one {what} at a time"
            raise ValueError(f"environment: {said}")
    return make_host_program(config, run, params)
