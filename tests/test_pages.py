"""The examples of the README and of the site's pages run as they stand, on shorter runs."""

import importlib.util
import re
import shlex
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import memrl_jax
from memrl_jax import cli, hosts, points, presets, settings
from memrl_jax import config as config_module
from memrl_jax.agents import AGENTS
from memrl_jax.commands import (
    completing,
    doctor,
    drawing,
    evaluating,
    listing,
    sweeping,
    training,
)
from memrl_jax.commands.arguments import fields_of, parse
from memrl_jax.environments import ENVIRONMENTS
from memrl_jax.memory import MEMORIES
from memrl_jax.run.trackers import TRACKERS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
TEXTS = dict(zip(NAMES, (page.read_text() for page in PAGES), strict=True))
WITH_PYTHON = [name for name in NAMES if "```python" in TEXTS[name]]
# What is written on a page, and what runs instead: the same with fewer updates.
SHORT = {
    "README.md": {"total_steps=60_000": "total_steps=400"},
    "docs/index.md": {"total_steps=60_000": "total_steps=400"},
    "docs/start.md": {
        "total_steps=30_000": "total_steps=800",
        "slice(-500, None)": "slice(None)",
    },
    "docs/how-to/environment.md": {"total_steps=60_000": "total_steps=400"},
    "docs/how-to/loss.md": {"(0), 300)": "(0), 3)"},
    "docs/how-to/debugging.md": {"steps=200": "steps=3"},
    "docs/how-to/memory.md": {"steps=300": "steps=30", "count=1000": "count=10"},
}
COMMANDS = {
    "evaluate": evaluating.Evaluate,
    "watch": drawing.Watch,
    "plot": drawing.Plot,
    "report": drawing.Report,
    "list": listing.List,
    "doctor": doctor.Doctor,
    "completion": completing.Completion,
}
OWN = {"Lighthouse", "leaky", "elman", "a2c", "q"}  # parts that pages make


def blocks(name: str, language: str) -> list[str]:
    """Return the blocks of code of a page, those within lists and tabs, too."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXTS[name], flags=re.DOTALL | re.MULTILINE)


def trained(names: dict[str, Any], config: Any) -> dict[str, Any]:
    """Train a config that a page has made, with one seed."""
    _, metrics = jax.jit(memrl_jax.make_train(config))(jax.random.key(0))
    return jax.device_get(metrics)


def of_parts(names: dict[str, Any]) -> None:
    assert names["metrics"]["loss_sum"].shape == (3, 8, 6)
    assert names["sample"].segment.action.shape == (40, 32)


def of_environments(names: dict[str, Any]) -> None:
    assert names["by_length"]["loss_sum"].shape == (3, 2)


def of_transfer(names: dict[str, Any]) -> None:
    learned = names["agent"].params(names["after"].agent)
    jax.tree.map(np.testing.assert_array_equal, learned["memory"], names["params"]["memory"])


def of_environment(names: dict[str, Any]) -> None:
    assert names["metrics"]["episodes"].sum() > 0
    _, metrics = jax.jit(names["train"])(jax.random.key(0))
    assert metrics["updates"].sum() == 5


def of_agent(names: dict[str, Any]) -> None:
    own = names["config"].replace(environment="TMaze", total_steps=1_200, encoder=(8,))
    assert config_module.agent_name(own) == "a2c"
    metrics = trained(names, own)
    assert metrics["updates"].sum() == 3 and np.isfinite(metrics["loss_sum"]).all()
    own = names["recurrent"].replace(environment="TMaze", replay="prioritized", encoder=(8,))
    metrics = trained(names, own.replace(total_steps=960 + 3 * 32))
    assert metrics["updates"].sum() == 3 and np.isfinite(metrics["loss_sum"]).all()


def of_start(names: dict[str, Any]) -> None:
    table = np.asarray(names["table"])
    assert table.shape == (10, 10) and np.isfinite(table[np.tril_indices(10)]).all()


def of_loss(names: dict[str, Any]) -> None:
    assert names["values"][0] == pytest.approx(np.log(4), rel=0.2)
    assert names["values"][-1] < names["values"][0]


# What the blocks of a page leave behind.
CHECKS = {
    "docs/how-to/parts.md": of_parts,
    "docs/environments/index.md": of_environments,
    "docs/how-to/transfer.md": of_transfer,
    "docs/how-to/environment.md": of_environment,
    "docs/how-to/agent.md": of_agent,
    "docs/start.md": of_start,
    "docs/how-to/loss.md": of_loss,
}


@pytest.fixture
def short() -> Iterator[None]:
    """Make the presets small enough to be run, and forget in the end what pages enter."""
    registries: list[dict[str, Any]] = [ENVIRONMENTS, MEMORIES, AGENTS, TRACKERS, presets]
    before = [dict(x) for x in registries]
    for name, config in presets.items():
        presets[name] = small(config)
    yield
    for registry, was in zip(registries, before, strict=True):
        registry.clear()
        registry.update(was)


def small(config: Any) -> Any:
    """Return a config with a few updates and a small replay memory."""
    sizes = {"capacity": 400, "learning_starts": 200, "batch_size": 4, "memory_args": {}}
    rollout = config.environments * config.rollout_length
    changes = {k: x for k, x in sizes.items() if k in settings.named(config)}
    return config.replace(total_steps=2 * rollout if 400 % rollout else 400, **changes)


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_examples_run(name: str, short: None) -> None:
    code = "".join(blocks(name, "python"))
    for written, shorter in SHORT.get(name, {}).items():
        assert code.count(written) == 1
        code = code.replace(written, shorter)
    names: dict[str, Any] = {}
    exec(compile(code, name, "exec"), names)
    CHECKS.get(name, lambda names: None)(names)


def test_pages_have_examples() -> None:
    assert len(WITH_PYTHON) > 15 and CHECKS.keys() | SHORT.keys() <= set(WITH_PYTHON)


@pytest.mark.parametrize("name", [name for name in NAMES if "```sh" in TEXTS[name]])
def test_commands_exist(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line of a shell can be parsed: its options exist, its values are of their types."""
    monkeypatch.setitem(sys.modules, "my_module", types.ModuleType("my_module"))
    monkeypatch.setitem(presets, "a2c", presets["ppo"])  # that of the page on agents
    for line in "".join(blocks(name, "sh")).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["memrl"]:
            _, words = hosts.place([word for word in words if word != "&"], {})
            parsed(words[1], words[2:])
        if words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]), line
        if words[:1] == ["make"]:
            assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(), line


def parsed(command: str, words: list[str]) -> None:
    """Parse the words of one of memrl's commands, and look up the parts that are named."""
    assert command in cli.HELP
    if "--resume" in words:
        resumed = {"train": training.Resume, "sweep": sweeping.Resume}[command]
        parse(resumed, words, command)
    elif command in COMMANDS:
        parse(COMMANDS[command], words, command)
    else:
        plain = training.Trained(**fields_of(presets[words[0]])), training.Around()
        made: Any = {"train": training.Train, "sweep": sweeping.Options}[command]
        given = parse(made, words[1:], command, made(*plain))
        known(given.config)
        for word in getattr(given, "vary", ()):
            setting, _, text = word.partition("=")
            assert setting in settings.named(given.config)
            assert points.values(setting, text)


def known(config: Any) -> None:
    """Check that the parts of a config are there, or are of the reader's own."""
    body = settings.named(config)
    for name, registry in ((config.environment, ENVIRONMENTS), (body.get("memory"), MEMORIES)):
        assert name is None or ":" in name or name in registry or name in OWN


def test_pictures_and_links_of_the_readme_exist() -> None:
    text = re.sub(r"```.*?```", "", TEXTS["README.md"], flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)h][^)]*)\)", text):
        assert (ROOT / target).exists(), target
