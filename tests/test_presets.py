"""Every preset can be trained with every memory that it can take.

Traced, not run: what `step` gives is like what it takes, so that three updates are as good as one.
That they are also carried out is in tests/test_agents.py and tests/test_memories_learn.py.
"""

from itertools import cycle
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from memrl_jax import build, settings
from memrl_jax.agents import DQNConfig
from memrl_jax.config import Config
from memrl_jax.memory import MEMORIES
from memrl_jax.preset_configs import presets
from tests.test_memories_learn import SMALLEST

TINY: dict[str, Any] = {
    "environment": "TMaze",
    "environments": 2,
    "rollout_length": 4,
    "total_steps": 960,
    "capacity": 320,
    "learning_starts": 200,
    "batch_size": 4,
    "encoder": (4,),
    "window": 8,
    "burn_in": 0,
    "entries": 16,
    "neighbours": 3,
    "n_step": 2,
    "minibatches": 2,
}


def tiny(preset: str) -> Config:
    config = presets[preset]
    known = settings.named(config)
    # A table takes what its preset is for, discrete observations.
    given = TINY | ({"environment": config.environment} if preset == "tabular" else {})
    return config.replace(**{k: x for k, x in given.items() if k in known})


def remembers(preset: str) -> bool:
    return "memory" in settings.named(presets[preset])


# Every preset as it is, and every memory with one of them: agents take turns. DQN with all of them
# is run in tests/test_memories_learn.py.
OTHERS = {type(presets[x].agent): x for x in filter(remembers, presets)}
del OTHERS[DQNConfig]
TURNS = zip(cycle(OTHERS.values()), MEMORIES, strict=False)
PAIRS = [(preset, None) for preset in presets] + [*TURNS]


@pytest.mark.parametrize("preset, memory", PAIRS)
def test_a_preset_trains_with_a_memory(preset: str, memory: str | None) -> None:
    config = tiny(preset)
    if memory is not None:
        args = SMALLEST.get(memory, {"features": 4})
        config = config.replace(memory=memory, memory_args=args)
    trains(config)


def trains(config: Config) -> None:
    """Trace three updates; raises what anything in them raises."""
    trainer, _ = build.make(config)
    train, sums = jax.eval_shape(trainer.init, jax.random.key(0))
    after, metrics = jax.eval_shape(trainer.step, train)
    assert jax.tree.map(_kind, after) == jax.tree.map(_kind, train)
    assert jax.tree.map(_kind, metrics) == jax.tree.map(_kind, sums)
    assert metrics["updates"].dtype == jnp.int32


def _kind(x: Any) -> Any:
    return x.shape, x.dtype, x.weak_type
