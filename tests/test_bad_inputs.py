"""A table of bad inputs: each is answered in one line that names the field.

Most of it is made from the type hints of what is called: every whole number, number, switch, name
and list of every config, constructor and probe is given what it is not.
"""

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memrl_jax
from memrl_jax import build, cli, config, diagnose, environments, kinds, plot, statistics, tasks
from memrl_jax.memory import MEMORIES, from_cell, from_monoid, from_step
from memrl_jax.replay import REPLAYS
from memrl_jax.rollout import Episode
from memrl_jax.run.program import Run, check
from memrl_jax.settings import Settings, nested
from memrl_jax.tasks import answering, babi

LEAST = 400  # cases in the table
BASE = memrl_jax.presets["drqn"].replace(environment="TMaze")
NAN = float("nan")


class Case(NamedTuple):
    """A call with one bad value; what answers it must have `field` in its one line."""

    name: str
    field: str
    call: Callable[[], Any]


# What a value of a kind is not, whatever its range.
WRONG: dict[Any, list[Any]] = {
    int: [2.5, "x", True, None, [3], np.float32(2), -(10**30), 10**30],
    float: ["x", True, None, [0.5], 1j, np.ones(2), 1e60, 10**400, NAN],
    bool: ["x", 1, 0.0, None, [True]],
    str: [7, None, True, ["x"]],
    tuple: [8, None, "x", 2.5, ("x",), (None,), (True,)],
    Sequence: [8, None, "x", 2.5, ("x",), (None,), (True,)],
    Mapping: [None, 8, "x", [1]],
    Literal: ["xyzzy", None, 7, ["x"]],
}


def wrong(hint: Any) -> list[Any]:
    """Return what does not fit a hint."""
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if origin is Annotated:
        return [x for x in WRONG[int] if x is not None] + [arguments[1] + 1]
    if type(None) in arguments:
        return [x for x in wrong(arguments[0]) if x is not None]
    if origin is tuple and arguments[0] is str:
        return [x for x in WRONG[tuple] if x != ("x",)]
    beyond = [2**31] if origin is int else []
    return WRONG.get(origin, []) + beyond


def kinds_of(name: str, call: Callable[..., Any], of: Any, **given: Any) -> Iterator[Case]:
    """Give every argument of `of` what it is not, beside what is `given`."""
    for field, hint in kinds.hints(of).items():
        for value in wrong(hint):
            bound = functools.partial(call, **{**given, field: value})
            yield Case(f"{name} {field}={kinds.shown(value)}", field, bound)


def sizes_of(
    name: str, call: Callable[..., Any], of: Any, zero: Sequence[str] = (), **given: Any
) -> Iterator[Case]:
    """Give every whole number among the arguments of `of` -1 and, unless it may be, 0."""
    for field, hint in kinds.hints(of).items():
        if whole(hint) and field != "channels":  # an axis, which may be counted from the end
            for value in (-1,) if field in zero else (-1, 0):
                bound = functools.partial(call, **{**given, field: value})
                yield Case(f"{name} {field}={value}", field, bound)


def whole(hint: Any) -> bool:
    return hint is int or any(map(whole, get_args(hint)))


def make(**changes: Any) -> Any:
    return memrl_jax.make_train(BASE.replace(**changes))


def make_preset(name: str, /, **changes: Any) -> Any:
    return memrl_jax.make_train(memrl_jax.presets[name].replace(**changes))


def make_environment(name: str, /, **options: Any) -> Any:
    return build.make_environment(BASE.replace(environment=name, environment_args=options))


def read(**changes: Any) -> Any:
    """Read a config from a file in which these settings were changed."""
    given = json.loads(config.to_json(BASE))
    for name, value in changes.items():
        if not _put(given, name, value):
            given[name] = value
    return config.from_json(json.dumps(given))


def _put(given: Any, name: str, value: Any) -> bool:
    """Put a value where a setting of that name is, in whichever part."""
    if name in given:
        given[name] = value
        return True
    return any(_put(part, name, value) for part in given.values() if isinstance(part, dict))


def parts_of(settings: Settings) -> Iterator[type]:
    """Give the classes of a config and of the parts within it."""
    yield type(settings)
    for _, part in nested(settings):
        yield from parts_of(part)


def configs() -> Iterator[Case]:
    zero = ["burn_in", "learning_starts", "restart_hold"]
    for cls in parts_of(BASE):
        yield from kinds_of("make_train", make, cls)
        yield from sizes_of("make_train", make, cls, zero)

    def run(**options: Any) -> None:
        check(Run(**options))

    yield from kinds_of("Run", run, Run)
    yield from sizes_of("Run", run, Run, zero=["seed"])


def files() -> Iterator[Case]:
    """Settings of config.json: what JSON can hold of what they are not."""
    for cls in parts_of(BASE):
        for field, hint in kinds.hints(cls).items():
            for value in wrong(hint):
                if field != "agent" and isinstance(value, str | int | float | None | list | tuple):
                    bound = functools.partial(read, **{field: value})
                    yield Case(f"from_json {field}={value!r}", field, bound)
    texts = ["", "x", "[1]", "3", "null", '{"agent": 3}', '{"agent": {}}', '{"agent": {"name": 1}}']
    texts += ['{"agent": {"name": "dqm"}}', "[" * 100_000, '{"agent": null}', '{"agent": ["name"]}']
    for text in texts:
        field = "agent" if "agent" in text else "config"
        yield Case(f"from_json {text:.30}", field, functools.partial(config.from_json, text))
    yield Case("from_json None", "config", lambda: config.from_json(None))  # type: ignore[arg-type]
    yield Case("a setting of no config", "enviroment", lambda: read(enviroment=3))


def constructors() -> Iterator[Case]:
    zero = {"ntm": ["shifts"], "stack": ["feedforward"]}
    for name, memory in MEMORIES.items():
        yield from kinds_of(name, memory, memory)
        yield from sizes_of(name, memory, memory, zero.get(name, []))
    ring: dict[str, Any] = {"segments": 4, "period": 6, "length": 5, "batch_size": 8}
    for name, replay in REPLAYS.items():
        yield from kinds_of(name, replay, replay, **ring)
        yield from sizes_of(name, replay, replay, **ring)
        for field in ("exponent", "importance") if name == "prioritized" else ():
            for value in ("x", None, True, NAN, -0.1, 1.1, 1j):
                bound = functools.partial(replay, **{**ring, field: value})
                yield Case(f"{name} {field}={value}", field, bound)
    for name, task in tasks.TASKS.items():
        yield from kinds_of(name, task, task)
        yield from sizes_of(name, task, task)
    probe: dict[str, Any] = {"task": tasks.copy(), "memory": MEMORIES["none"]()}
    yield from kinds_of("make_probe", tasks.make_probe, tasks.make_probe, **probe)
    yield from sizes_of("make_probe", tasks.make_probe, tasks.make_probe, **probe)
    wrong_parts: dict[str, list[Any]] = {
        "task": [3, None],
        "memory": [3, None, MEMORIES["gru"]],
        "learning_rate": [0.0, -1.0, float("inf")],
        "max_gradient_norm": [0.0, -1.0, float("inf")],
    }
    for field, values in wrong_parts.items():
        for value in values:
            yield bad(field, tasks.make_probe, **{**probe, field: value})
    yield from kinds_of("generate", babi.generate, babi.generate, task=1)
    yield from sizes_of("generate", babi.generate, babi.generate, zero=["seed"], task=1)


def bad(field: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Case:
    """Make a case of a call."""
    given = [*map(kinds.shown, args), *(f"{k}={kinds.shown(x)}" for k, x in kwargs.items())]
    bound = functools.partial(call, *args, **kwargs)
    return Case(f"{call.__module__}.{call.__name__} {', '.join(given)}", field, bound)


def by_hand() -> Iterator[Case]:
    """What hints do not tell."""
    yield bad("decays", MEMORIES["memory_trace"], decays=(2.0,))
    yield bad("decays", MEMORIES["memory_trace"], decays=())
    yield bad("heads", MEMORIES["gtrxl"], features=64, heads=5)
    for name, field in {  # loops of so many turns would never be traced
        "stack": "count",
        "gtrxl": "layers",
        "memn2n": "hops",
        "kv_memory": "hops",
        "dnc": "write_heads",
        "frame_stack": "frames",
    }.items():
        yield bad(field, MEMORIES[name], **{field: 2**31 - 1})
    yield bad("shifts", MEMORIES["ntm"], slots=2**31 - 1, shifts=2**30 - 1)
    yield bad("hidden", MEMORIES["s5"], hidden=6, blocks=4)
    yield bad("step_min", MEMORIES["s5"], step_min=0.5, step_max=0.1)
    yield bad("step_max", MEMORIES["s5"], step_max=float("inf"))
    yield bad("r_min", MEMORIES["lru"], r_min=0.9, r_max=0.5)
    yield bad("r_max", MEMORIES["lru"], r_max=1.5)
    yield bad("max_phase", MEMORIES["lru"], max_phase=-1.0)
    yield bad("gate_bias", MEMORIES["gtrxl"], gate_bias=float("inf"))
    yield bad("slots", MEMORIES["ntm"], slots=2, shifts=1)
    yield bad("layer", MEMORIES["stack"], layer="grus")
    yield bad("cell", from_cell, None)
    yield bad("cell", from_cell, nn.GRUCell)  # the class, not one of it
    yield bad("scan", from_monoid, memrl_jax.memory.DIAGONAL, nn.Dense(3), tuple, "parallel")
    yield bad("monoid", from_monoid, 3, nn.Dense(3), tuple)
    yield bad("initial_state", from_step, len, (), len)
    yield bad("stride", REPLAYS["uniform"], 4, 6, 5, 8, stride=4)
    yield bad("length", REPLAYS["uniform"], 4, 6, 24, 8)
    yield bad("radix", REPLAYS["prioritized"], 4, 6, 5, 8, radix=1)
    yield bad("length", tasks.copy, length=3, shortest=4)
    yield bad("items", tasks.associative_recall, items=9, width=1, bits=3)
    yield bad("power", tasks.multi_query_recall, power=float("inf"))
    yield bad("steps", tasks.train, None, jax.random.key(0), 0)
    for task in (0, 21, 2.5, "x", None, True, [], [1, "x"], [21]):
        yield bad("task", babi.load, ".", task)
    for path in (3, None, "absent"):
        yield bad("path", babi.load, path)
    data = babi.generate(1, count=40)
    wrong_settings: dict[str, list[Any]] = {
        "features": [0, "x"],
        "hops": [0, None],
        "tying": ["adjcent", 3],
        "encode_positions": ["no", 1],
        "noise": [2.0, "x"],
        "linear_epochs": [-1, 0.5],
        "epochs": [0, True],
        "halve_every": [0, "x"],
        "learning_rate": [0.0, NAN],
        "batch_size": [0, 99],
        "max_norm": [0.0, "x"],
        "held_out": [1.5, None],
    }
    for field, values in wrong_settings.items():
        for value in values:
            setting = answering.SINGLE._replace(**{field: value})
            yield Case(f"Setting {field}={value}", field, functools.partial(fitted, data, setting))


def fitted(data: Any, setting: Any) -> None:
    answering.make_answerer(data, setting)
    answering.schedule(setting)


def settings() -> Iterator[Case]:
    """Settings that fit their hints, but not each other or what there is."""
    yield bad("environments x rollout_length", make, environments=2**16, rollout_length=2**16)
    yield bad("total_steps", make, total_steps=7)
    yield bad("total_steps", make, total_steps=2**53 + 1)
    yield bad("encoder", make, encoder=(8, 0))
    yield bad("encoder", make, encoder=(2**31,))
    yield bad("head", make, head=(-1,))
    for name in ("ppo", "pqn", "sac", "nec"):
        yield bad("head", make_preset, name, head=(-1,))
    yield bad("frames", make, frames=2**31 - 1)
    yield bad("agent", make, agent=3)
    yield bad("agent", make, agent=memrl_jax.Config())
    yield bad("environment", make, environment="TMase")
    yield bad("environment", make, environment="nowhere_to_be_found:TMaze")
    yield bad("environment", make, environment="math:tau_")
    yield bad("environment", make, environment="math:tau")
    yield bad("memory", make, memory="grus")
    yield bad("memory", make, memory="math:pi")
    yield bad("memory", make, memory="nowhere_to_be_found:gru")
    yield bad("memory", make, memory="math:sinn")
    yield bad("memory", make, memory="os:getcwd")
    yield bad("imports", make, imports=("nowhere_to_be_found",))
    yield bad("imports", make, imports=("nowhere/to_be_found.py",))
    yield bad("imports", make, imports=("this.py",))
    for value in (1.5, "x", None, True, 0, 2**31, [1], -3):
        yield bad("features", make, memory_args={"features": value})
    yield bad("feature", make, memory_args={"feature": 3})
    yield bad("corridr", make, environment_args={"corridr": 3})
    clashes: dict[str, Any] = {
        "replay": "unifrom",
        "capacity": 2**31,
        "window": 50_000,
        "n_step": 17,
        "loss": "hubber",
        "discount": 1.5,
        "td_lambda": -0.1,
        "learning_rate": float("inf"),
        "max_gradient_norm": 0.0,
        "adam_epsilon": 0.0,
        "target_rate": 2.0,
        "restart_hold": 3,
        "rescaling": 2,
        "priority_exponent": 0.9,
        "importance_updates": 9.0,
        "epsilon_steps": 0.0,
        "learning_starts": 500_000,
    }
    for field, value in clashes.items():
        named = "total_steps" if field == "learning_starts" else field
        yield bad(named, make, **{field: value})
    for name, constructor in {
        "TMaze": environments.tmaze,
        "IMaze": environments.imaze,
        "PatternMatching": environments.pattern_matching,
        "SingleGoal": environments.single_goal,
        "SequentialGoals": environments.sequential_goals,
        "OriginalMaze": environments.original,
        "bAbI": environments.babi,
    }.items():
        yield from kinds_of(name, functools.partial(make_environment, name), constructor)
    for name, field in (("IMaze", "rows"), ("IMaze", "columns"), ("TMaze", "corridor")):
        for value in (0, -1):
            yield bad(field, make_environment, name, **{field: value})
    yield from kinds_of("tmaze", environments.tmaze, environments.tmaze)
    yield bad("lengths", make_environment, "IMaze", lengths=(5, 2))
    yield bad("task", make_environment, "bAbI", task=3)
    yield bad("name", environments.from_gymnax, environments.TMaze(), name="x")


NONE: dict[str, Any] = {x: {} if x == "record" else np.zeros((0, 2)) for x in Episode._fields}
EPISODE = Episode(**NONE)  # without a step


def analyses() -> Iterator[Case]:
    """Statistics and diagnostics of arrays that are none."""
    for x in ([], 3.0, [NAN], [1j], ["x"], np.zeros((0, 3)), None):
        yield bad("x", statistics.iqm, x)
        yield bad("x", statistics.bootstrap, x)
    yield bad("x", statistics.stratified, [1.0, 2.0])
    wrong_options: dict[str, list[Any]] = {
        "level": [0.0, 1.0, 2, NAN, "x", None],
        "resamples": [0, 2.5, "x", None],
        "seed": [-1, 2.5, "x"],
    }
    for field, values in wrong_options.items():
        for value in values:
            yield bad(field, statistics.bootstrap, [1.0, 2.0], **{field: value})
    curve: Any
    for curve in ([1.0, NAN], 3.0, [[1j]], [["x"]]):
        yield bad("values", statistics.carry_forward, curve)
    two, three = np.ones((2, 3)), np.ones((2, 1, 3))
    table: Any
    for table in (np.ones(3), three, np.zeros((0, 0)), 1j * two):
        yield bad("table", diagnose.memory_span, table)
    fraction: Any
    for fraction in (0.0, -1.0, 1.5, NAN, "x", None, 1j):
        yield bad("fraction", diagnose.memory_span, two, fraction)
    xs: Any
    for xs in ((), jnp.zeros(()), jnp.zeros((0, 2)), (jnp.zeros(2), jnp.zeros(3))):
        yield bad("xs", diagnose.sensitivity, jnp.sin, xs)
        yield bad("xs", diagnose.erasure, lambda s, x: (s, x), 0.0, xs)
        yield bad("xs", diagnose.record, lambda s, x: (s, x), lambda s, x: {}, 0.0, xs)
    yield bad("xs", diagnose.sensitivity, jnp.sin, jnp.arange(3))
    yield bad("unroll", diagnose.sensitivity, jnp.sum, jnp.ones(3))
    keys = jax.random.split(jax.random.key(0), 2)
    lengths: Any
    for lengths in ((), (0,), (5, -1), ("x",), (2.5,), (None,)):
        yield bad("lengths", diagnose.extrapolation, len, lengths, keys, ())


def pictures() -> Iterator[Case]:
    """Pictures of arrays that are none."""
    two, three = np.ones((2, 3)), np.ones((2, 1, 3))
    x: Any = np.arange(3)
    y: Any
    for y in (np.ones(3), np.ones((2, 2)), np.zeros((0, 3)), 1j * two, NAN * two):
        yield bad("seeds", plot.curves, {"seeds": (x, y)})
    yield bad("x", plot.curves, {"seeds": (x, np.inf * two)})
    yield bad("series", plot.curves, {})
    yield bad("path", plot.curves, {"a": (x, two)}, "curves.jpg")
    for x in ([], [3, 2], [0, 1], 5, [1j, 2j], ["x"]):
        yield bad("lengths", plot.extrapolation, x, {"a": two}, trained=(1, 2))
    yield bad("trained", plot.extrapolation, [1, 2, 3], {"a": two}, trained=(3, 2))
    for y in (np.ones(3), np.zeros((0, 0)), two, 1j * np.ones((3, 3))):
        yield bad("gradient", plot.sensitivity, y)
        yield bad("distance", plot.erasure, y)
    yield bad("memory_span", plot.sensitivity, np.ones((3, 3)), memory_span=5)
    for y in ([], np.ones(3), two, 1j * three, NAN * three):
        yield bad("write", plot.addresses, {"write": y})
        yield bad("attention", plot.attention, y)
    yield bad("record", plot.addresses, {})
    for y in ([], np.ones(3), 1j * two, NAN * two):
        yield bad("weights", plot.hops, y, ["a", "b", "c"])
    yield bad("labels", plot.hops, two, ["a"])
    seen, actions = np.ones((3, 2)), np.zeros(3, int)
    yield bad("observations", plot.episode, [], actions, actions)
    yield bad("observations", plot.episode, np.ones(3), actions, actions)
    yield bad("observations", plot.episode, 1j * seen, actions, actions)
    yield bad("actions", plot.episode, seen, actions - 1, actions)
    yield bad("actions", plot.episode, seen, actions + 0.5, actions)
    yield bad("actions", plot.episode, seen, actions + 10**9, actions)
    yield bad("rewards", plot.episode, seen, actions, [1.0])
    yield bad("rewards", plot.episode, seen, actions, 1j * actions)
    yield bad("q", plot.episode, seen, actions, actions, q=np.ones(3))
    yield bad("episodes", plot.film, [], "x.gif")
    yield bad("episode", plot.film, [EPISODE], "x.gif")


PARTS = (configs, files, constructors, by_hand, settings, analyses, pictures)
CASES = [case for part in PARTS for case in part()]


@pytest.mark.parametrize(
    "case", CASES, ids=[re.sub(" at 0x[0-9a-f]+", "", case.name)[:80] for case in CASES]
)
def test_a_bad_value_is_answered_in_one_line(case: Case) -> None:
    with pytest.raises(ValueError) as error:
        case.call()
    message = str(error.value)
    assert case.field in message and len(message.splitlines()) == 1, message
    assert len(message) < 2000


# What is typed, and what must be named.
WORDS: list[tuple[str, str]] = [
    ("trian", "command"),
    ("--hlep", "command"),
    ("train dqm", "preset"),
    ("train --resum x", "preset"),
    ("train drqn extra", "extra"),
    ("train drqn --sedes 3", "--seeds"),
    ("train drqn --seeds", "--seeds"),
    ("train drqn --seeds 1 --seeds 2", "--seeds"),
    ("train drqn --total-steps=8 --total_steps 8", "--total-steps"),
    ("train drqn --memory-args features=1 features=2", "features"),
    ("train drqn --memory-args features", "--memory-args"),
    ("train drqn --environment-args =3", "--environment-args"),
    ("train drqn --memory-args features=null", "features"),
    ("train drqn --memory-args features=1e3", "features"),
    ("train drqn --memory-args features=[8]", "features"),
    ("train drqn --memory-args features={}", "features"),
    ("train drqn --memory-args features=100000000000", "features"),
    ("train drqn --memory-args features=true", "features"),
    ("train drqn --memory lru --memory-args r_max=NaN", "r_max"),
    ("train drqn --memory lru --memory-args scan=tree", "scan"),
    ("train drqn --memory deltanet --memory-args gated=1", "gated"),
    ("train drqn --environment TMaze --environment-args corridor=99999999999", "corridor"),
    ("train drqn --environment TMaze --environment-args active=3", "active"),
    ("train drqn --environment IMaze --environment-args lengths=5", "lengths"),
    ("train drqn --environment IMaze --environment-args rows=4.0", "rows"),
    ("train drqn --environment bAbI --environment-args split=dev", "split"),
    ("train drqn --capacity 4000000000", "capacity"),
    ("train drqn --total-steps 9007199254740993", "total_steps"),
    ("train drqn --environments 65536 --rollout-length 65536", "environments x rollout_length"),
    ("train drqn --batch-size 4294967296", "batch_size"),
    ("train drqn --seeds 4294967296", "seeds"),
    ("train drqn --seed 4294967296", "seed"),
    ("train drqn --evaluate-episodes 2147483648", "evaluate_episodes"),
    ("train drqn --evaluate-every 9007199254740993", "evaluate_every"),
    ("train drqn --restart 4294967296", "restart"),
    ("train drqn --learning-rate nan", "learning_rate"),
    ("train drqn --learning-rate inf", "learning_rate"),
    ("train drqn --learning-rate 1e99", "learning_rate"),
    ("train drqn --max-gradient-norm 0", "max_gradient_norm"),
    ("train drqn --adam-epsilon 0", "adam_epsilon"),
    ("train drqn --max-gigabytes nan", "max_gigabytes"),
    ("train drqn --double maybe", "maybe"),
    ("train drqn --import", "--import"),
    ("train drqn --import nowhere_to_be_found", "imports"),
    ("train drqn --import nowhere.py", "imports"),
    ("train mine --import nowhere.py", "imports"),
    ("train drqn --environment nowhere_to_be_found:Maze", "environment"),
    ("train drqn --environment math:tau", "environment"),
    ("train drqn --memory math:gru", "memory"),
    ("train drqn --memory math:pi", "memory"),
    ("train drqn --replay math:pi", "replay"),
    ("list --import nowhere_to_be_found", "imports"),
    ("list everything", "everything"),
    ("evaluate nowhere", "run"),
    ("evaluate nowhere --episodes 2.5", "--episodes"),
    ("watch nowhere --out film.mp4", "out"),
    ("watch nowhere --out absent/film.gif", "out"),
    ("watch nowhere --out folder.gif", "out"),
    ("watch nowhere --out {long}.gif", "out"),
    ("watch nowhere --seed x", "--seed"),
    ("plot", "runs"),
    ("plot nowhere --out absent/curves.png", "out"),
    ("plot nowhere --out folder.png", "out"),
    ("plot nowhere --out {long}.png", "out"),
]


@pytest.mark.parametrize("words, named", WORDS)
def test_what_is_typed_wrong_is_answered_in_one_line(
    words: str,
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("folder.gif", "folder.png"):
        (tmp_path / folder).mkdir()
    before = sorted(tmp_path.rglob("*"))
    given = words.replace("{long}", 300 * "x").split()
    if words.startswith("train drqn"):  # what passes by mistake is not trained
        safe = {"--max-gigabytes": "0", "--environment": "TMaze"}
        given[2:2] = [x for pair in safe.items() if pair[0] not in given for x in pair]
    code = cli.main(given)
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and named in err, (code, out, err)
    assert re.fullmatch("memrl: .+\n", err) and "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


# Entries of a run's config.json, and what must be named.
ENTRIES: list[tuple[tuple[str, ...], Any, str]] = [
    (("run",), 5, "config.json"),
    (("run",), None, "config.json"),
    (("run", "seeds"), "three", "seeds"),
    (("run", "seeds"), 0, "seeds"),
    (("run", "seeds"), True, "seeds"),
    (("run", "seed"), 2**32, "seed"),
    (("run", "log_every"), 1.5, "log_every"),
    (("run", "log_evry"), 3, "log_evry"),
    (("run", "target_return"), "high", "target_return"),
    (("config",), 3, "config"),
    (("config", "agent"), None, "agent"),
    (("config", "agent", "name"), "dqm", "agent"),
    (("config", "agent", "double"), "no", "double"),
    (("config", "agent", "capacity"), 2**40, "capacity"),
    (("config", "memory_args"), ["features"], "memory_args"),
    (("config", "environment_args", "corridor"), "long", "corridor"),
    (("config", "imports"), ["nowhere_to_be_found"], "imports"),
    (("config", "imports"), "nowhere", "imports"),
    (("config", "encoder"), [8, "x"], "encoder"),
]


@pytest.mark.parametrize("where, value, named", ENTRIES)
def test_a_bad_entry_of_a_run_is_answered_in_one_line(
    where: tuple[str, ...],
    value: Any,
    named: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given: Any = {"config": json.loads(config.to_json(BASE)), "run": {}}
    place = given
    for name in where[:-1]:
        place = place[name]
    place[where[-1]] = value
    (tmp_path / "config.json").write_text(json.dumps(given))
    assert cli.main(["train", "--resume", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert re.fullmatch("memrl: .+\n", err) and out == "" and named in err, err


def test_the_table_is_long() -> None:
    assert len(CASES) + len(WORDS) + len(ENTRIES) >= LEAST
    assert len({case.name for case in CASES}) > 0.9 * len(CASES)
