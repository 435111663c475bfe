"""Environments of Gymnasium on the host: their streams of timesteps, and runs in them."""

import contextlib
import io
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import memrl_jax
from memrl_jax import cli, parallel, tree
from memrl_jax.agents import AGENTS
from memrl_jax.environments import declared, from_gymnasium, make
from memrl_jax.environments.check import draw, observed
from memrl_jax.environments.foreign import converted
from memrl_jax.environments.host import HostEnvironment
from memrl_jax.run import experiment, saved
from memrl_jax.run.host_program import make_host_program
from memrl_jax.run.program import Run
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Agent, TimeStep
from tests.hosted import Counting, Echo, Masked

COPIES, STEPS = 4, 30
FLOAT, INT = np.float32, np.int32


def taken(env: HostEnvironment, actions: np.ndarray) -> TimeStep:
    """Return the timesteps [T + 1, B] around given actions [T, B]."""
    timesteps = [env.reset(7), *map(env.step, actions)]
    return jax.tree.map(lambda *xs: np.stack(xs), *timesteps)


def slowly(made: Any, actions: np.ndarray) -> list[list[tuple]]:
    """Step plain environments one by one, [B][T + 1]: the fields of a timestep but for `legal`."""
    streams = []
    for number in range(COPIES):
        env = made(number)
        stream = [(env.reset(seed=7 + number)[0], 0, 0.0, 1.0, True, False)]
        for action in actions[:, number]:
            if stream[-1][-1]:
                stream.append((env.reset()[0], 0, 0.0, 1.0, True, False))
                continue
            seen, reward, terminated, truncated, _ = env.step(np.int64(action + 5))
            last = terminated or truncated
            stream.append((seen, action, reward, 1.0 - terminated, False, last))
        streams.append(stream)
    return streams


def copies(made: Any, mode: AutoresetMode | None) -> HostEnvironment:
    """Adapt environments number 0 to 3, given one at a time, or together in some autoreset mode."""
    if mode is None:
        numbers = iter(range(COPIES))
        return from_gymnasium(lambda: made(next(numbers)), COPIES)
    makers = [partial(made, number) for number in range(COPIES)]
    return from_gymnasium(lambda: SyncVectorEnv(makers, autoreset_mode=mode), COPIES)


@pytest.mark.parametrize("mode", [None, *AutoresetMode])
def test_every_autoreset_mode_gives_the_stream_of_plain_environments(mode: Any) -> None:
    actions = np.random.default_rng(0).integers(3, size=(STEPS, COPIES), dtype=INT)
    env = copies(Counting, mode)
    found = taken(env, actions)
    for number, stream in enumerate(slowly(Counting, actions)):
        for field, values in zip(TimeStep._fields, zip(*stream, strict=True), strict=False):
            given = getattr(found, field)[:, number]
            np.testing.assert_array_equal(given, np.stack(values).astype(given.dtype))
    assert found.last.sum() > 20 and found.legal == ()
    assert (found.discount == 0).any(axis=0).tolist() == [True, False, True, False]
    dtypes = [found.observation.dtype, found.action.dtype, found.reward.dtype, found.discount.dtype]
    assert dtypes == [FLOAT, INT, FLOAT, FLOAT]


@pytest.mark.parametrize("mode", [None, *AutoresetMode])
def test_a_mask_in_the_info_says_what_is_legal(mode: Any) -> None:
    env = copies(Masked, mode)
    assert env.spec.legal and env.spec.actions == Discrete(3)
    timestep = env.reset(0)
    for _ in range(STEPS):
        time = timestep.observation[:, 1].astype(int)
        only = np.arange(3) == time[:, None] % 3
        np.testing.assert_array_equal(timestep.legal, only | timestep.last[:, None])
        # What is thrown away has to be legal where the next episode begins.
        timestep = env.step(np.where(timestep.last, 0, time % 3))
    assert timestep.legal.dtype == bool


def test_timesteps_are_not_changed_by_later_ones() -> None:
    env = copies(Counting, None)
    first = env.reset(0)
    kept = jax.tree.map(np.copy, first)
    for _ in range(5):
        env.step(np.zeros(COPIES, INT))
    jax.tree.map(np.testing.assert_array_equal, first, kept)


BITS = spaces.MultiBinary((2, 2))
SPACES: dict[str, tuple[spaces.Space, Any, Any]] = {  # and ours, of observations and of actions
    "discrete": (spaces.Discrete(4, start=-1), Discrete(4), Discrete(4)),
    "multi-discrete": (
        spaces.MultiDiscrete([[2, 3]], start=[[1, -1]]),
        (Discrete(2), Discrete(3)),
        (Discrete(2), Discrete(3)),
    ),
    "bits": (BITS, Discrete(2, (2, 2)), (Discrete(2),) * 4),
    "float64": (
        spaces.Box(-0.1, 0.1, (2,), np.float64),
        Continuous((2,), np.dtype(FLOAT), -0.1, 0.1),
        Continuous((2,), np.dtype(FLOAT), -0.1, 0.1),
    ),
    "bytes": (
        spaces.Box(0, 255, (2, 1), np.uint8),
        Continuous((2, 1), np.dtype(np.uint8), 0, 255),
        Continuous((2, 1), np.dtype(np.uint8), 0, 255),
    ),
}
NESTED = spaces.Dict({"b": spaces.Tuple([SPACES["discrete"][0], BITS]), "a": SPACES["float64"][0]})


def plain(space: Any) -> str:
    """Write a space of ours without the arrays of its bounds."""

    def text(part: Any) -> Any:
        low_high = [float(np.min(part.low)), float(np.max(part.high))] if part[2:] else []
        return repr((*part[:2], np.round(low_high, 6)) if part[2:] else part)

    return str(memrl_jax.spaces.over(text, space))


@pytest.mark.parametrize("name", SPACES)
def test_every_space_is_converted_and_back(name: str) -> None:
    given, seen, done = SPACES[name]
    env = from_gymnasium(Echo, 2, observations=given, actions=given)
    assert (plain(env.spec.observations), plain(env.spec.actions)) == (plain(seen), plain(done))
    steps(env)
    there = converted("actions", given, acting=True)
    for _ in range(20):
        action = given.sample()
        ours = jax.tree.map(lambda x: np.asarray(x, INT), there.ours(action))
        if name == "float64":
            ours = np.asarray(action, FLOAT)
        back = env.theirs(ours)
        assert given.contains(back) and np.asarray(back).dtype == np.asarray(action).dtype
        np.testing.assert_allclose(back, action, atol=1e-7)


def test_spaces_within_spaces() -> None:
    env = from_gymnasium(Echo, 2, observations=NESTED, actions=NESTED)
    steps(env)
    assert plain(env.spec.observations["b"]) == str((repr(Discrete(4)), repr(Discrete(2, (2, 2)))))
    assert plain(env.spec.actions["b"][1]) == str((repr(Discrete(2)),) * 4)


def steps(env: HostEnvironment) -> None:
    """Take random actions in two copies, and hold what is seen against the declared spaces."""

    def drawn(key: Any) -> Any:
        return jax.device_get(jax.vmap(partial(draw, env.spec.actions))(jax.random.split(key)))

    keys = [jax.random.key(i) for i in range(8)]
    timesteps = [env.reset(0), *(env.step(drawn(key)) for key in keys)]
    for copy in range(2):
        one = jax.tree.map(lambda *xs: np.stack(xs)[:, copy], *timesteps)  # noqa: B023
        declared.check_declared("seen", env.spec.observations, tree.at(one.observation, 0))
        observed(env, one)  # type: ignore[arg-type]


def test_copies_may_have_processes_of_their_own() -> None:
    apart, together = (from_gymnasium("CartPole-v1", 2, kind) for kind in ("async", "sync"))
    actions = np.ones((15, 2), INT)
    jax.tree.map(np.testing.assert_array_equal, taken(apart, actions), taken(together, actions))
    assert apart.horizon == 500
    apart.close()


class Broken(Counting):
    def step(self, action: Any) -> Any:
        raise KeyError("the\nkey")


class Unmasked(Masked):
    def told(self) -> dict:
        return {} if self.time else super().told()


def vector(**options: Any) -> SyncVectorEnv:
    return SyncVectorEnv([Counting] * 2, **options)


def unnamed() -> SyncVectorEnv:
    made = vector()
    del made.metadata["autoreset_mode"]
    return made


class Forgetful(SyncVectorEnv):
    """Resets all copies whatever it is told."""

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return super().reset(seed=seed)


def forgetful() -> SyncVectorEnv:
    numbers = [partial(Counting, 0), partial(Counting, 3)]
    return Forgetful(numbers, autoreset_mode=AutoresetMode.SAME_STEP)


@pytest.mark.parametrize(
    "source, options, message",
    [
        ("CartPol-v1", {}, "environment: gymnasium:CartPol-v1 raised NameNotFound: .*CartPole"),
        ("CartPole-v1", {"gravitas": 1}, "gymnasium:CartPole-v1 raised TypeError: .*gravitas"),
        ("no_such:Env-v0", {}, "environment: gymnasium:no_such:Env-v0 raised ModuleNotFoundError"),
        ("CartPole-v1", {"vectorization": "asink"}, "vectorization: 'asink' .*'async'"),
        (lambda: 3, {}, "int is neither Env nor VectorEnv"),
        (Counting(), {"number": 1}, "environment: Counting: number of what is made already"),
        (Counting(), {}, "environments: 2 copies of environment: Counting are one and the same"),
        (lambda: SyncVectorEnv([Counting] * 3), {}, "environments: 2 are not the 3 of"),
        (vector, {"vectorization": "sync"}, "vectorization: sync of what is a VectorEnv already"),
        (unnamed, {}, "environment: unnamed: metadata tells no autoreset_mode"),
        (Broken, {}, "environment: Broken: step raised KeyError: 'the"),
        (Unmasked, {}, "environment: Unmasked: step raised ValueError: action_mask is missing"),
        (forgetful, {}, "environment: forgetful: step raised ValueError: does not keep to reset"),
    ],
    ids=lambda x: getattr(x, "__name__", str(x))[:30],
)
def test_mistakes_are_told_in_one_line(source: Any, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        env = from_gymnasium(source, 2, **options)
        env.reset(0)
        for _ in range(4):
            env.step(np.zeros(2, INT))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(3),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Discrete(2), None),
        spaces.OneOf([spaces.Discrete(2), spaces.Discrete(3)]),
        spaces.Box(0, 2**40, (1,), np.int64),
    ],
    ids=lambda space: type(space).__name__,
)
def test_spaces_that_are_refused(space: spaces.Space) -> None:
    said = "int64 from 0 to 1099511627776 does not fit in int32"
    if not isinstance(space, spaces.Box):
        said = f"space {type(space).__name__} is none of Discrete, MultiDiscrete, MultiBinary, Box"
    with pytest.raises(ValueError, match=f"^environment: Echo: observations: {said}"):
        from_gymnasium(Echo, 1, observations=space, actions=spaces.Discrete(2))


# Runs

COUNTING = "gymnasium:tests.hosted:Counting-v0"
RECALL = "gymnasium:tests.hosted:Recall-v0"
TINY = {
    "ppo": "--environments 2 --rollout-length 4 --minibatches 2 --epochs 2 --encoder 8 "
    "--total-steps 16",
    "dqn": "--environments 2 --rollout-length 4 --encoder 8 --head 8 --capacity 80 --batch-size 4 "
    "--learning-starts 8 --total-steps 24",
}
RUN = "--seeds 2 --evaluate-episodes 3 --evaluate-every 8 --log-every 8 --checkpoint-every 8"


def memrl(*words: Any) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert cli.main([str(x) for word in words for x in str(word).split()]) == 0
    return said.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a run that hold its numbers."""
    files = [folder / "metrics.npz", *sorted((folder / "checkpoints").iterdir())]
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture(scope="module", params=TINY)
def trained(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A preset, and the folder of its run of two updates."""
    out = tmp_path_factory.mktemp("runs") / request.param
    memrl("train", request.param, "--environment", RECALL, TINY[request.param], RUN, "--out", out)
    return request.param, out


def test_a_run_on_the_host_ends_with_the_same_bits_each_time(
    trained: tuple[str, Path], tmp_path: Path
) -> None:
    preset, out = trained
    memrl("train", preset, "--environment", RECALL, TINY[preset], RUN, "--out", tmp_path / "again")
    assert contents(out) == contents(tmp_path / "again")
    past = np.load(out / "metrics.npz")
    assert np.isfinite(past["loss"][:, -1]).all()
    assert set(past["length"][np.isfinite(past["length"])]) == {3.0}


def test_a_seed_does_not_depend_on_the_others(trained: tuple[str, Path], tmp_path: Path) -> None:
    preset, out = trained
    alone = RUN.replace("--seeds 2", "--seeds 1")
    memrl("train", preset, "--environment", RECALL, TINY[preset], alone, "--out", tmp_path / "one")
    both, one = (np.load(folder / "metrics.npz") for folder in (out, tmp_path / "one"))
    for name in ("return", "loss", "evaluation_return"):
        np.testing.assert_array_equal(both[name][:1], one[name])


def test_a_resumed_run_says_what_is_lost_and_goes_on(
    trained: tuple[str, Path], tmp_path: Path
) -> None:
    found = []
    for name in ("once", "twice"):
        copy = shutil.copytree(trained[1], tmp_path / name)
        said = " ".join(memrl("train", "--resume", copy, "--total-steps 40").split())
        assert "the state of environments on the host is in no checkpoint: new episodes" in said
        assert "finished" in said
        found.append(contents(copy))
    assert found[0] == found[1]
    steps = np.load(tmp_path / "once" / "metrics.npz")["timestep"]
    assert steps[-1] == 40


def test_a_trained_run_can_be_evaluated_and_watched(trained: tuple[str, Path]) -> None:
    played = saved.evaluate(str(trained[1]), episodes=5, seed=1)
    assert played.total.shape == (2, 5) and (played.length == 3).all() and played.done.all()
    assert set(played.total.ravel()) <= {0.0, 1.0}
    (episode,) = saved.play(str(trained[1]), seed=1, episodes=1)
    assert episode.observation.shape == (3,) and episode.reward[:2].tolist() == [0, 0]
    assert episode.observation[0] in (0, 1) and (episode.observation[1:] == 2).all()


def test_what_acts_and_learns_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[str] = []

    def counted(agent: Agent) -> Agent:
        def act(*args: Any, **options: Any) -> Any:
            traced.append("act")
            return agent.act(*args, **options)

        def learn(*args: Any) -> Any:
            traced.append("learn")
            return agent.learn(*args)

        return agent._replace(act=act, learn=learn)

    cls, construct = AGENTS["ppo"]
    monkeypatch.setitem(AGENTS, "ppo", (cls, lambda *parts: counted(construct(*parts))))
    config = small()
    program = make_host_program(config, Run(seeds=2, evaluate_episodes=2))
    program.compile()
    before = list(traced)
    carry = program.init((parallel.seed_keys(0, 2), {}, None))
    for steps in (1, 3):
        carry = program.chunk(carry, steps)
    program.evaluate((parallel.seed_keys(1, 2), carry.train.agent, {}))
    assert traced == before and before.count("learn") == 2  # its shapes, and the program
    assert all(part.jitted._cache_size() == 0 for part in program.parts)


def small(**changes: Any) -> memrl_jax.Config:
    config = memrl_jax.presets["ppo"].replace(environments=2, rollout_length=4, minibatches=2)
    return config.replace(environment=COUNTING, encoder=(8,), total_steps=16).replace(**changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"view": ("flicker=0.5",)}, "view: .* is for environments within JAX, and gymnasium:"),
        ({"frames": 2}, "frames: 2 is for environments within JAX"),
        ({"number_actions": True}, "number_actions: True is for environments within JAX"),
        ({"environment": "gymnasium:CartPol-v1"}, "environment: gymnasium:CartPol-v1 raised"),
        ({"environment_args": {"foo": 1}}, "Counting-v0 raised TypeError: .*foo"),
        ({"total_steps": 7}, "total_steps: 7 is not a multiple of environments x rollout_length"),
    ],
)
def test_settings_that_a_host_does_not_have(changes: dict, message: str, tmp_path: Path) -> None:
    config, run = small(**changes), Run(out=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=message) as error:
        experiment.start(config, run, print, lambda progress: None)
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_an_environment_that_breaks_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counting, "step", Broken.step)
    words = ["train", "ppo", "--environment", COUNTING, *TINY["ppo"].split(), "--seeds", "1"]
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(f"memrl: environment: {COUNTING}: step raised KeyError: 'the.*\n", said)


def test_make_train_says_what_trains_on_the_host() -> None:
    for refused in (lambda: memrl_jax.make_train(small()), lambda: make(COUNTING, {})):
        with pytest.raises(ValueError, match=r"train with memrl_jax\.run\.experiment\.start"):
            refused()


def test_popgym_itself() -> None:
    pytest.importorskip("popgym")
    env = from_gymnasium("popgym:popgym-RepeatPreviousEasy-v0", 2)
    assert (env.spec.observations, env.spec.actions) == (Discrete(4), Discrete(4))
    timesteps = taken(env, np.zeros((60, 2), INT))
    assert np.flatnonzero(timesteps.last[:, 0]).tolist() == [51]
