"""The examples of the README run as they stand, one after another, on shorter runs."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

import memrl_jax
from memrl_jax import config as config_module
from memrl_jax import settings
from memrl_jax.agents import AGENTS
from memrl_jax.environments import ENVIRONMENTS
from memrl_jax.memory import MEMORIES
from memrl_jax.run.trackers import TRACKERS

README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.fixture
def short(monkeypatch):
    """Make the presets small enough to be run."""
    for name, config in memrl_jax.presets.items():
        changes = {"capacity": 400, "learning_starts": 200, "batch_size": 4, "memory_args": {}}
        changes = {k: x for k, x in changes.items() if k in settings.named(config)}
        small = config.replace(total_steps=400, **changes)
        monkeypatch.setitem(memrl_jax.presets, name, small)


def test_examples_run(short):
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 12
    names: dict = {}
    try:
        for block in blocks:
            exec(block, names)
        assert names["metrics"]["loss_sum"].shape == (3, 8, 6)
        assert names["by_length"]["loss_sum"].shape == (3, 2)
        learned = names["agent"].params(names["after"].agent)
        jax.tree.map(np.testing.assert_array_equal, learned["memory"], names["params"]["memory"])
        assert names["sample"].segment.action.shape == (40, 32)
        _, metrics = jax.jit(names["train"])(names["key"])
        assert metrics["updates"].sum() == 5
        own = names["config"].replace(environment="TMaze", total_steps=1_200, encoder=(8,))
        assert config_module.agent_name(own) == "a2c"
        _, metrics = jax.jit(memrl_jax.make_train(own))(names["key"])
        assert metrics["updates"].sum() == 3 and np.isfinite(metrics["loss_sum"]).all()
    finally:
        ENVIRONMENTS.pop("Recall", None)
        MEMORIES.pop("leaky", None)
        AGENTS.pop("a2c", None)
        TRACKERS.pop("printer", None)


def test_commands_exist(capsys):
    from memrl_jax.cli import HELP

    for command in re.findall(r"^memrl (\w+)", README, flags=re.MULTILINE):
        assert command in HELP


def test_pictures_and_links_exist():
    text = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)h][^)]*)\)", text):
        assert (Path(__file__).parent.parent / target).exists(), target
