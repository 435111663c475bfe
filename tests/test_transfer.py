"""Parameters that one agent takes from another, parts that are frozen, and other environments."""

import json
import os
import re
import shutil
import signal
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memrl_jax
from memrl_jax import build, cli, draws, parallel, settings, tree
from memrl_jax.agents import AGENTS, OptimizerConfig
from memrl_jax.agents.optimizer import make_optimizer
from memrl_jax.config import Config, to_json
from memrl_jax.environments import batch
from memrl_jax.run import checkpoint, elsewhere, experiment, lanes, preparing, saved
from memrl_jax.run.host_program import make_host_program
from memrl_jax.run.pool import pools
from memrl_jax.run.program import Run
from memrl_jax.train import make_trainer
from tests.small import SMALL

KEY = jax.random.key(0)
BASE: dict[str, Any] = {
    "environment": "TMaze",
    "environments": 2,
    "rollout_length": 4,
    "total_steps": 80,
    "memory": "gru",
    "memory_args": {"features": 3},
    "encoder": (4,),
    "head": (4,),
    "max_gradient_norm": 0.1,
    "learning_starts": 16,
    "capacity": 160,
    "window": 4,
    "batch_size": 4,
    "minibatches": 1,
    "target_period": 1,
    "target_rate": 0.02,
    "entries": 8,
    "key_size": 3,
    "n_step": 2,
    "neighbours": 2,
}
SHARED = {"shared": True}
# What is frozen, in which agent; all other parts have to move.
FROZEN: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "dqn": ("dqn", {}, ("memory",)),
    "nec": ("nec", {}, ("memory",)),
    "pqn": ("pqn", {}, ("head",)),
    "ppo": ("ppo", {"separate": True}, ("memory", "critic")),
    "sac": ("sac", {}, ("memory", "critics", "log_temperature")),
    "sac, shared": ("sac", SHARED, ("critics", "encoder")),
}


def configured(name: str, **changes: Any) -> Config:
    """Return a small config of an agent, with those settings that it has."""
    config = Config(agent=AGENTS[name][0]())
    known = settings.named(config)
    return config.replace(**{k: x for k, x in BASE.items() if k in known} | changes)


def bits(x: Any) -> dict[str, bytes]:
    pairs = jax.tree_util.tree_leaves_with_path(x)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in pairs}


def zeros_of_both_signs(x: Any) -> Any:
    """Replace what is negative by -0: a step of 0 would make it 0."""
    return jax.tree.map(lambda x: jnp.where(x < 0, -0.0, x), x)


class Trained(NamedTuple):
    """Parameters by part; a part is in one place only."""

    given: Any  # what was taken, and frozen
    fresh: Any  # what the same key gives if nothing is taken
    first: Any
    last: Any
    followed: Any  # target parameters in the end, of the parts that have any


@cache
def trained(case: str) -> Trained:
    """Train an agent that takes and freezes what FROZEN says."""
    name, changes, parts = FROZEN[case]
    config = configured(name, **changes, freeze=parts)
    trainer, steps = build.make(config)
    env = build.make_environment(config)
    agent = build.make_agent(config, env)

    def shown(state: Any) -> Any:
        return apart(agent.params(state), changes)

    @jax.jit
    def train(key: Any) -> Trained:
        _, timestep = batch(env).reset(draws.split(key))
        params = agent.params(agent.init(key, timestep))
        given = {part: zeros_of_both_signs(params[part]) for part in parts}
        _, _, agent_key = draws.split(key, 3)  # as `trainer.init` does
        fresh = agent.init(agent_key, timestep)
        first, _ = trainer.init(key, given)
        last = jax.lax.fori_loop(0, steps, lambda _, x: trainer.step(x)[0], first)
        found = apart(given, changes), shown(fresh), shown(first.agent), shown(last.agent)
        return Trained(*found, targets(last.agent, changes))

    return train(KEY)


def apart(params: Any, changes: Any) -> Any:
    """Leave out of critics the body that they share with the policy."""
    if changes != SHARED or "critics" not in params:
        return params
    return {**params, "critics": {"head": params["critics"]["head"]}}


def targets(state: Any, changes: Any) -> Any:
    """Return the target parameters by the parts that they follow; {} if there are none."""
    learner: Any = getattr(state, "learner", None)
    if hasattr(learner, "target_params"):
        return learner.target_params
    if not hasattr(learner, "target_critics"):
        return {}
    body = {name: x for name, x in learner.target_critics.items() if name in ("encoder", "memory")}
    followed = {"critics": learner.target_critics} | (body if changes == SHARED else {})
    return apart(followed, changes)


@pytest.mark.parametrize("case", FROZEN)
def test_what_is_taken_replaces_that_and_nothing_else(case: str) -> None:
    found = trained(case)
    assert found.first.keys() == found.fresh.keys() > found.given.keys()
    for part in found.first.keys() - {"tables"}:  # these hold what was done in the warm-up
        due = found.given.get(part, found.fresh[part])
        assert bits(found.first[part]) == bits(due), part
    for part in found.given.keys() - {"log_temperature"}:
        assert bits(found.given[part]) != bits(found.fresh[part]), part


@pytest.mark.parametrize("case", FROZEN)
def test_frozen_parts_keep_their_bits_and_all_others_move(case: str) -> None:
    found = trained(case)
    for part, x in found.given.items():
        assert bits(found.last[part]) == bits(x), part
    for part in found.first.keys() - found.given.keys() - {"tables"}:
        old, new = bits(found.first[part]), bits(found.last[part])
        assert all(new[path] != x for path, x in old.items()), part
    for part, x in found.followed.items():
        assert (bits(x) == bits(found.first[part])) == (part in found.given), part
    assert ("dqn" in case or "sac" in case) == bool(found.followed)


def test_a_frozen_gradient_counts_in_no_norm_and_has_no_moments() -> None:
    """Adam's first step is rate * g / (|g| + epsilon), g clipped by the norm of what moves."""
    rate, epsilon, most = 0.1, 1.0, 2.0
    gradient: Any = {"encoder": np.array([3, 4.0]), "memory": np.array([1e6]), "head": -np.ones(3)}
    config = OptimizerConfig(rate, None, epsilon, most, ("memory",))
    optimizer = make_optimizer(config)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), gradient)
    state = optimizer.init(params)
    step, _ = optimizer.update(params, state, params)
    norm = np.sqrt(np.sum(gradient["encoder"] ** 2) + np.sum(gradient["head"] ** 2))
    for part in ("encoder", "head"):
        clipped = gradient[part] * most / norm
        due = -rate * clipped / (np.abs(clipped) + epsilon)
        np.testing.assert_allclose(step[part], due, rtol=1e-5)
    assert step["memory"].tobytes() == np.array([-0.0], np.float32).tobytes()
    assert sorted(x.size for x in jax.tree.leaves(state) if x.ndim) == [2, 2, 3, 3]


@pytest.mark.parametrize("name", ["dqn", "sac"])
def test_unknown_parts_cannot_be_frozen(name: str) -> None:
    message = (
        "^freeze: 'memroy' is unknown; did you mean 'memory'\\? \\(one of: encoder, memory, head"
    )
    with pytest.raises(ValueError, match=message):
        trainer, _ = build.make(configured(name, freeze=("memroy",)))
        jax.eval_shape(trainer.init, KEY)


def test_what_is_frozen_does_not_restart() -> None:
    with pytest.raises(
        ValueError, match=r"^restart: 3 begins anew with all, also freeze = \('head"
    ):
        build.make(configured("dqn", restart=3, freeze=("head",)))


PARAMS: dict[str, Any] = {
    "memory": {"cell": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}},
    "rate": jnp.ones(()),
}
AGENT = SimpleNamespace(params=lambda state: state, with_params=lambda state, params: params)


@pytest.mark.parametrize(
    ("given", "parts", "message"),
    [
        (
            {},
            ["memroy"],
            "take: 'memroy' is unknown; did you mean 'memory'? (one of: memory, rate)",
        ),
        ({"head": {}}, ["rate"], "take: 'rate' is unknown; (one of: head)"),
        (
            {"memory": {"cell": {"kernel": jnp.ones((3, 5)), "bias": jnp.ones(5)}}},
            ["memory"],
            "take: memory/cell/bias is float32[4] here, and float32[5] where it is taken from",
        ),
        (
            {"memory": {"cell": {"kernel": jnp.ones((3, 4))}}},
            ["memory"],
            "take: memory/cell/bias is float32[4] here, and missing where it is taken from",
        ),
        (
            {"memory": PARAMS["memory"] | {"more": jnp.ones(1)}},
            ["memory"],
            "take: memory/more is missing here, and float32[1] where it is taken from",
        ),
        (
            {"rate": jnp.int32(3)},
            ["rate"],
            "take: rate is float32[] here, and int32[] where it is taken from",
        ),
    ],
)
def test_what_does_not_fit_is_refused(given: Any, parts: list[str], message: str) -> None:
    agent: Any = AGENT
    with pytest.raises(ValueError) as error:
        memrl_jax.take(agent, PARAMS, given, parts)
    assert str(error.value) == message


SHORT = SMALL.replace(total_steps=320)
LONG = SHORT.replace(environment_args={"corridor": 5}, freeze=("memory",), head=(6,))
OPTIONS: dict[str, Any] = {"log_every": 80, "evaluate_every": 160, "evaluate_episodes": 4}
silent: Any = lambda *_: None  # noqa: E731


def start(out: Path, config: Config, first: Any = None, then: Any = silent, **more: Any) -> Path:
    run = Run(out=str(out), **OPTIONS | {"seeds": 2, "checkpoint_every": 80} | more)
    return experiment.start(config, run, silent, then, first).folder


def interrupt(progress: Any) -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two seeds on a corridor of 8."""
    return start(tmp_path_factory.mktemp("runs") / "source", SHORT)


@pytest.fixture(scope="module")
def first(source: Path) -> Any:
    """What three new seeds take from it."""
    return saved.take(str(source), ["encoder", "memory"], 3)


@pytest.fixture(scope="module")
def whole(source: Path, first: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that took it, and was never interrupted."""
    return start(tmp_path_factory.mktemp("runs") / "whole", LONG, first, seeds=3)


def params_of(folder: Path, timestep: int | None = None) -> dict[str, Any]:
    """Return the parameters [S, ...] of a run, as last saved or in an earlier checkpoint."""
    _, config, run = saved.read(str(folder))
    program = preparing.prepared(config, run)
    name = f"{timestep:012d}" if timestep else sorted((folder / "checkpoints").iterdir())[-1].stem
    carry = checkpoint.load(folder / f"checkpoints/{name}.ckpt", program.shapes)
    params: dict[str, Any] = jax.vmap(program.params)(carry.train.agent)
    return params


def test_seeds_take_from_seeds_of_the_same_number_in_turn(source: Path, first: Any) -> None:
    params = params_of(source)
    assert [*first.params] == ["encoder", "memory"]
    for part, x in first.params.items():
        assert bits(x) == bits(jax.tree.map(lambda x: x[np.array([0, 1, 0])], params[part]))
    record = {"run": str(source), "timestep": 320, "parts": ["encoder", "memory"]}
    assert first.record == record | {"config": sha256(to_json(SHORT).encode()).hexdigest()}


def test_a_run_begins_with_what_it_takes(first: Any, tmp_path: Path) -> None:
    began = []
    for name, given in (("taking", first), ("fresh", None)):
        out = start(tmp_path / name, LONG, given, interrupt, seeds=3)
        assert json.loads((out / "config.json").read_text())["run"]["taken"] == (
            given and given.record
        )
        began.append(params_of(out, timestep=80))  # when the warm-up is over
    taking, fresh = began
    for part in ("encoder", "memory", "head"):
        assert bits(taking[part]) == bits(first.params.get(part, fresh[part])), part
    (tmp_path / "fresh").rename(tmp_path / "taking-1")
    rewrite(tmp_path / "taking-1", "run", "seed", value=1)
    assert [pool.seeds for pool in pools([*map(str, sorted(tmp_path.iterdir()))])] == [3, 3]


def test_frozen_parameters_are_the_sources_in_the_end(whole: Path, first: Any) -> None:
    params = params_of(whole)
    assert bits(params["memory"]) == bits(first.params["memory"])
    assert bits(params["encoder"]) != bits(first.params["encoder"])


@pytest.mark.parametrize("killed", ["while training", "before its first checkpoint"])
def test_a_resumed_run_needs_its_source_no_more(
    source: Path, whole: Path, tmp_path: Path, killed: str
) -> None:
    gone = Path(shutil.copytree(source, tmp_path / "gone"))
    taking = saved.take(str(gone), ["encoder", "memory"], 3)
    out = start(tmp_path / "new", LONG, taking, interrupt, seeds=3)
    shutil.rmtree(gone)
    if killed != "while training":
        shutil.rmtree(out / "checkpoints")
        (out / "checkpoints").mkdir()
        (out / "metrics.npz").unlink(missing_ok=True)
        (out / "progress.jsonl").unlink(missing_ok=True)
    assert experiment.resume(str(out), silent, silent).finished
    assert (out / "metrics.npz").read_bytes() == (whole / "metrics.npz").read_bytes()
    for part, x in params_of(out).items():
        assert bits(x) == bits(params_of(whole)[part])


def rewrite(folder: Path, *where: str, value: Any) -> None:
    """Set one entry of a run's config.json."""
    entry = given = json.loads((folder / "config.json").read_text())
    for name in where[:-1]:
        entry = entry[name]
    entry[where[-1]] = value
    (folder / "config.json").write_text(json.dumps(given))


def test_what_was_taken_cannot_be_edited(whole: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole, tmp_path / "copy"))
    rewrite(copy, "run", "taken", "timestep", value=7)
    with pytest.raises(ValueError, match=r"taken is .*'timestep': 320.* in the file, .*: 7"):
        experiment.resume(str(copy), silent, silent)
    shutil.rmtree(copy / "checkpoints")
    (copy / "metrics.npz").unlink()
    (copy / "checkpoints").mkdir()
    with pytest.raises(
        ValueError, match=r"taken\.ckpt: has .*320.*, and config.json says that .*: 7"
    ):
        experiment.resume(str(copy), silent, silent)
    with pytest.raises(ValueError, match=r"^taken: .* is what `first` tells, and not given$"):
        start(tmp_path / "new", LONG, taken={"run": "x"})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--take memory", "from: memory of which run? name its folder"),
        ("--from {run}", "take: nothing; name at least one part"),
        ("--from nowhere --take memory", "run: nowhere is not a run folder (no config.json in it)"),
        (
            "--from {run} --take memory,haed",
            "take: 'haed' is unknown; did you mean 'head'? (one of: encoder, head, memory)",
        ),
        (
            "--from {run} --take memory,encoder --no-previous-action",
            "take: encoder/params/MLP_0/Dense_0/kernel is float32[3, 8] here, "
            "and float32[7, 8] where it is taken from",
        ),
        ("--freeze memory,haed", "freeze: 'haed' is unknown; did you mean 'head'? "),
    ],
)
def test_words_that_are_wrong(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    out = tmp_path / "new"
    given = WORDS + words.format(run=source)
    assert cli.main(["train", "drqn", *given.split(), "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"memrl: {message}") and said.err.count("\n") == 1
    assert not out.exists()


WORDS = (
    "--environment TMaze --environment-args corridor=5 --environments 2 --encoder 8 --head 6 "
    "--memory-args features=8 --total-steps 320 --window 4 --batch-size 4 --capacity 160 "
    "--learning-starts 80 --target-period 5 --seeds 3 --log-every 80 --evaluate-every 160 "
    "--evaluate-episodes 4 --checkpoint-every 80 "
)


def test_the_command_line_takes_and_freezes(
    source: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new"
    words = WORDS + f"--freeze memory --from {source} --take encoder,memory --out {out}"
    assert cli.main(["train", "drqn", *words.split()]) == 0
    assert (out / "metrics.npz").read_bytes() == (whole / "metrics.npz").read_bytes()
    assert "finished" in capsys.readouterr().out


def test_a_run_is_evaluated_elsewhere_and_left_as_it_is(source: Path) -> None:
    before = bits_of_files(source)
    usual = saved.evaluate(str(source), 3, 1)
    same = saved.evaluate(str(source), 3, 1, "TMaze")
    other = saved.evaluate(str(source), 3, 1, None, {"corridor": 11})
    chex.assert_trees_all_equal(usual, same)
    _, config, _ = saved.read(str(source))
    env = build.make_environment(config.replace(environment_args={"corridor": 11}))
    agent = build.make_agent(config, build.make_environment(config))
    play = make_trainer(env, agent, 2, 4).evaluate
    _, _, states = saved.trained(str(source))
    keys = parallel.seed_keys(1, 2, lanes.EVALUATE)
    for seed in range(2):
        due = jax.jit(play, static_argnums=2)(keys[seed], tree.at(states, seed), 3)
        chex.assert_trees_all_close(tree.at(other, seed), jax.device_get(due), atol=1e-6)
    assert bits_of_files(source) == before


def bits_of_files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_memrl_evaluate_elsewhere(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(source), "--episodes", "2", "--environment-args", "corridor=11"]
    assert cli.main(words) == 0
    assert "source: greedy episodes in TMaze corridor=11" in capsys.readouterr().out
    for name, message in {
        "CartPole-v1": r"environment: observations of CartPole-v1 are Continuous\(shape=\(4,\), "
        r".*, and of TMaze, in which the run was trained, Continuous\(shape=\(2,\), ",
        "gymnasium:CartPole-v1": "environment: of gymnasium:CartPole-v1 and TMaze, in which the "
        "run was trained, one steps on the host and the other does not",
        "TMazes": "environment: 'TMazes' is unknown; did you mean 'TMaze'",
    }.items():
        assert cli.main(["evaluate", str(source), "--environment", name]) == 2
        assert re.match(f"memrl: {message}", said := capsys.readouterr().err), said
        assert said.count("\n") == 1


def test_runs_on_the_host_take_too_and_are_evaluated_elsewhere() -> None:
    config = memrl_jax.presets["ppo"].replace(
        environment="gymnasium:tests.hosted:Counting-v0",
        environments=2,
        rollout_length=4,
        minibatches=2,
        total_steps=16,
        encoder=(8,),
    )
    run, keys = Run(seeds=2, evaluate_episodes=3), parallel.seed_keys(0, 2)
    plain = make_host_program(config, run)
    params_of = jax.vmap(plain.params)
    fresh = params_of(plain.init((keys, {}, None)).train.agent)
    given = {"encoder": jax.tree.map(lambda x: x + 1, fresh["encoder"])}
    program = make_host_program(config, run, given)
    agents = program.init((keys, {}, given)).train.agent
    assert bits(params_of(agents)) == bits(fresh | given)
    other = elsewhere.moved(config, None, {"number": 1})
    lengths = [
        evaluate((keys, agents, {})).length for evaluate in (plain.evaluate, plain.elsewhere(other))
    ]
    assert [np.unique(x).tolist() for x in lengths] == [[2], [3]]
