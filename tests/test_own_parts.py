"""Parts from a module of the user's: on the command line, and in every run that names them."""

import contextlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import memrl_jax
from memrl_jax import build, cli, config, imports
from memrl_jax.agents import AGENTS
from memrl_jax.environments import ENVIRONMENTS
from memrl_jax.memory import MEMORIES
from memrl_jax.replay import REPLAYS
from memrl_jax.settings import BodyConfig

MODULE = '''
"""A bit to remember, a memory that forgets it slowly, and an agent with a setting of its own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

import memrl_jax
from memrl_jax.agents import AGENTS, DQNConfig, dqn
from memrl_jax.environments import ENVIRONMENTS, TMaze, from_gymnax
from memrl_jax.memory import DIAGONAL, MEMORIES, from_monoid, gru
from memrl_jax.replay import REPLAYS, uniform
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Environment, Spec, TimeStep


def bit(delay: int = 2) -> Environment:
    """See a bit, and say it `delay` steps later."""

    def seen(state, reward, start, last):
        shown = jnp.where(state["time"] == 0, 2.0 * state["bit"] - 1.0, 0.0)[None]
        discount = 1 - last.astype(jnp.float32)
        return state, TimeStep(shown, state["said"], reward, discount, start, last)

    def reset(key):
        bit = jax.random.bernoulli(key).astype(jnp.int32)
        state = {"bit": bit, "time": jnp.int32(0), "said": jnp.int32(0), "over": jnp.bool_(False)}
        return seen(state, jnp.float32(0), jnp.bool_(True), jnp.bool_(False))

    def step(key, state, action):
        over = state["time"] + 1 == delay
        after = {**state, "time": state["time"] + 1, "said": action, "over": over}
        reward = (over & (action == state["bit"])).astype(jnp.float32)
        fresh, stepped = reset(key), seen(after, reward, jnp.bool_(False), over)
        return jax.tree.map(lambda x, y: jnp.where(state["over"], x, y), fresh, stepped)

    box = Continuous((1,), jnp.dtype(jnp.float32), -1.0, 1.0)
    return Environment(reset, step, Spec(box, Discrete(2)), delay)


class Maze(TMaze):
    """An environment in the shape of gymnax's."""


maze = Maze(corridor=3)
made = bit(3)


class _Leaky(nn.Module):
    size: int

    def setup(self):
        self.project = nn.Dense(self.size)

    def lift(self, x):
        b = self.project(x)
        return jnp.full_like(b, 0.9), 0.1 * b

    def read(self, state, x):
        return state


def leaky(size: int = 8):
    """Forget by a tenth a step."""
    return from_monoid(DIAGONAL, _Leaky(size), lambda: jnp.zeros(size))


class MyConfig(DQNConfig):
    """Settings of `my`."""

    greed: float = 0.5
    """Share of the rate of exploration that is left."""


def my(config, parts):
    config = config.replace(epsilon_end=config.exploration.epsilon_end * config.greed)
    body, replay = parts.body(config.body), parts.replay(config.experience)
    return dqn(config, parts.spec, body, replay)


def recent(segments: int, period: int, length: int, batch_size: int, stride: int):
    return uniform(segments, period, length, batch_size, stride)


memory_of_one = gru(features=4)
MEMORIES["leaky"] = leaky
ENVIRONMENTS["bit"] = bit
AGENTS["my"] = (MyConfig, my)
REPLAYS["recent"] = recent
memrl_jax.presets["mine"] = memrl_jax.Config(
    environment="bit", environments=2, rollout_length=4, total_steps=160, agent=MyConfig()
).replace(
    memory="leaky",
    encoder=(8,),
    head=(),
    replay="recent",
    window=4,
    batch_size=4,
    capacity=80,
    learning_starts=40,
    greed=0.25,
)
'''
SEEDS = ["--seeds", "2", "--evaluate-episodes", "2", "--evaluate-every", "80"]
SEEDS += ["--checkpoint-every", "80"]


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Begin in an empty folder; forget what its modules brought, as a new process would."""
    monkeypatch.chdir(tmp_path)
    registries: list[dict[str, Any]] = [AGENTS, ENVIRONMENTS, MEMORIES, REPLAYS, memrl_jax.presets]
    before, paths = [dict(x) for x in registries], list(sys.path)

    def forget() -> None:
        for registry, entries in zip(registries, before, strict=True):
            registry.clear()
            registry.update(entries)
        sys.path[:] = paths
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
                del sys.modules[name]

    yield forget
    forget()


@pytest.fixture
def memrl(forget: Callable[[], None]) -> Callable[..., str]:
    """Run a command that succeeds, as if in a process of its own; return what it says."""

    def run(*words: Any) -> str:
        forget()
        with contextlib.redirect_stdout(io.StringIO()) as said:
            assert cli.main([str(word) for word in words]) == 0
        return said.getvalue()

    return run


def write(text: str = MODULE, name: str = "mine.py") -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)


def test_own_parts_from_training_to_pictures(memrl: Callable[..., str]) -> None:
    """Only `train` is told of the module."""
    write()
    said = memrl("train", "mine", "--import", "mine", *SEEDS, "--out", "run")
    assert said.endswith("finished: run\n")
    stored = json.loads(Path("run/config.json").read_text())["config"]
    assert stored["imports"] == ["mine"] and stored["agent"]["name"] == "my"
    assert stored["agent"]["greed"] == 0.25
    assert stored["agent"]["experience"]["replay"] == "recent"
    *_, last = sorted(Path("run/checkpoints").iterdir())
    last.unlink()
    assert memrl("train", "--resume", "run").endswith("finished: run\n")
    assert "IQM" in memrl("evaluate", "run", "--episodes", 2)
    assert "2 steps" in memrl("watch", "run", "--out", "film.gif")
    assert memrl("plot", "run", "--out", "curves.png") == "curves.png\n"
    assert Path("film.gif").exists() and Path("curves.png").exists()


def test_own_parts_are_listed(memrl: Callable[..., str]) -> None:
    write()
    listed = re.split(r"[\s,]+", memrl("list", "--import", "mine.py"))
    assert {"bit", "leaky", "recent", "my", "mine", "CartPole-v1", "dqn"} <= set(listed)
    assert "leaky" not in memrl("list")


def test_settings_of_an_own_agent_are_options(capsys: pytest.CaptureFixture[str]) -> None:
    write()
    with pytest.raises(SystemExit):
        cli.main(["train", "mine", "--import=mine", "--help"])
    assert "--greed" in capsys.readouterr().out


SMALL = memrl_jax.presets["drqn"].replace(environment="TMaze")


@pytest.mark.parametrize(
    "environment, options, horizon",
    [
        ("mine:bit", {"delay": 5}, 5),
        ("mine:made", {}, 3),
        ("mine:Maze", {"corridor": 4}, 10),
        ("mine:Maze", {"corridor": 4, "max_steps_in_episode": 6}, 6),
        ("mine:maze", {"max_steps_in_episode": 7}, 7),
        ("mine.py:bit", {}, 2),
        ("below/other.py:bit", {}, 2),
    ],
)
def test_environments_named_in_a_module(
    environment: str, options: dict[str, Any], horizon: int
) -> None:
    write()
    write(name="below/other.py")
    own = SMALL.replace(environment=environment, environment_args=options)
    assert build.make_environment(own).horizon == horizon
    memrl_jax.make_train(own)
    assert config.from_json(config.to_json(own)) == own


@pytest.mark.parametrize(
    "memory, options, shape", [("leaky", {"size": 5}, (5,)), ("memory_of_one", {}, (4,))]
)
def test_memories_named_in_a_module(
    memory: str, options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    write()
    made = build.make_memory(BodyConfig(memory=f"mine:{memory}", memory_args=options))
    assert made.initial_state().shape == shape


def test_a_replay_named_in_a_module() -> None:
    write()
    own = SMALL.replace(replay="mine:recent")
    memrl_jax.make_train(own)
    with pytest.raises(ValueError, match=r"^frames: 2 .* mine:recent"):
        memrl_jax.make_train(own.replace(frames=2))


def test_what_is_entered_later_counts() -> None:
    """Nothing is frozen when the library is imported."""
    with pytest.raises(ValueError, match=r"^config: agent: 'my' is unknown"):
        config.from_json('{"agent": {"name": "my"}}')
    write()
    imports.load("imports", "mine")
    assert type(config.from_json('{"agent": {"name": "my"}}').agent).__name__ == "MyConfig"
    AGENTS["another"] = AGENTS["my"]
    with pytest.raises(ValueError, match=r"^agent: MyConfig is the config of my and another$"):
        config.to_json(memrl_jax.presets["mine"])


BROKEN = {
    "syntax.py": "def f(:\n",
    "raises.py": "x = 1\nraise RuntimeError('two\\nlines')\n",
    "leaves.py": "raise SystemExit(0)\n",
    "missing.py": "import nowhere_to_be_found\n",
    "copy.py": "",
}


@pytest.mark.parametrize(
    "named, message",
    [
        ("syntax", r"imports: 'syntax' raised SyntaxError: invalid syntax \(syntax.py, line 1\)"),
        ("raises", r"imports: 'raises' raised RuntimeError: two lines \(.*raises.py, line 2\)"),
        ("leaves.py", r"imports: 'leaves.py' raised SystemExit: 0 \(.*leaves.py, line 1\)"),
        ("missing", "imports: 'missing' raised ModuleNotFoundError: .*'nowhere_to_be_found'.*"),
        ("rises", r"imports: 'rises' is no module; did you mean 'raises'\? \(looked for in .*\)"),
        ("rises.py", r"imports: 'rises.py' is no file; did you mean 'raises.py'\? \(looked .*\)"),
        ("copy.py", r"imports: 'copy.py' has the name of another module \(.*copy.py\); rename it"),
    ],
)
def test_modules_that_cannot_be_imported(named: str, message: str) -> None:
    for name, text in BROKEN.items():
        write(text, name)
    with pytest.raises(ValueError) as error:
        memrl_jax.make_train(SMALL.replace(imports=(named,)))
    assert re.fullmatch(message, str(error.value)), error.value


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"environment": "mine:bitt"},
            "environment: mine: 'bitt' is .*; did you mean 'bit'.*",
        ),
        ({"memory": "mine:leeky"}, "memory: mine: 'leeky' is unknown; did you mean 'leaky'.*"),
        ({"environment": "mine:bit", "environment_args": {"delay": "x"}}, ".*delay='x' is not .*"),
        ({"environment": "mine:bit", "environment_args": {"dely": 3}}, ".*did you mean 'delay'.*"),
        ({"environment": "mine:Maze", "environment_args": {"x": 3}}, ".*'x' is unknown.*"),
        ({"environment": "mine:made", "environment_args": {"x": 3}}, ".*x=3 is unknown; .*none.*"),
        ({"environment": "mine:leaky"}, "environment: NeuralMemory has no `reset`"),
        ({"memory": "mine:leaky", "memory_args": {"size": 2.5}}, "memory_args: size=2.5 is not .*"),
        ({"memory": "mine:bit"}, "memory: Environment.* is not a NeuralMemory"),
        ({"memory": "mine:maze"}, "memory: .* is not a function"),
    ],
)
def test_parts_that_are_none(change: dict[str, Any], message: str) -> None:
    write()
    with pytest.raises(ValueError) as error:
        memrl_jax.make_train(SMALL.replace(**change))
    assert re.fullmatch(message, str(error.value)), error.value
