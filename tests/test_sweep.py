"""Sweeps: which points share a program, and that a point's run is the one it would be alone."""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import memrl_jax
from memrl_jax import cli, points
from memrl_jax.commands import sweeping
from memrl_jax.points import Range, Vary
from memrl_jax.run import (
    checkpoint,
    experiment,
    history,
    preparing,
    rounds,
    saved,
    search,
    snapshot,
    sweep,
    sweep_training,
)
from memrl_jax.run.program import Run
from memrl_jax.run.rounds import Rule
from tests.small import SMALL
from tests.test_cli import TINY, options

RUN = Run(seeds=4, log_every=160, evaluate_every=320, evaluate_episodes=4)
RATES = [1e-3, 3e-3]
VARY: Vary = {"learning_rate": RATES, "memory": ["gru", "memory_trace"]}


def silent(*_: Any) -> None:
    """Say nothing."""


def start(config: Any, run: Run, found: Any, rule: Rule = sweep.ONCE) -> bool:
    return sweep_training.start(sweep.planned(config, run, found, rule), silent, silent)


def resume(place: Path) -> bool:
    return sweep_training.resume(sweep.read(str(place)), silent, silent)


def test_values_are_read_as_the_command_line_has_them() -> None:
    assert points.values("x", "1e-4,3,.5") == [1e-4, 3, 0.5]
    assert points.values("x", "gru,lru") == ["gru", "lru"]
    assert points.values("x", "[64],[64,32]") == [[64], [64, 32]]
    assert points.values("x", "True,None") == [True, None]
    assert points.values("x", "log:1e-5..1e-2") == Range(1e-5, 1e-2, True)


@pytest.mark.parametrize(
    "text, problem",
    [("log:0..1", "above 0"), ("uniform:2..1", "ascend"), ("log:1e-5", "LOW..HIGH")],
)
def test_ranges_that_are_none_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^vary: x: .*{problem}"):
        points.values("vary: x", text)


def test_a_grid_has_every_combination_and_ranges_are_drawn_for_each() -> None:
    vary: Vary = {"a": [1, 2], "b": Range(1e-4, 1e-2, True), "c": ["x", "y"]}
    found = points.grid(vary, draws=50, seed=3)
    assert len(found) == 200 and [*found[0]] == ["a", "b", "c"]
    drawn = np.log10([point["b"] for point in found])
    assert len({*drawn}) == 200 and drawn.min() > -4 and drawn.max() < -2
    assert abs(drawn.mean() + 3) < 0.2  # as many below 1e-3 as above
    assert found == points.grid(vary, draws=50, seed=3) != points.grid(vary, draws=50, seed=4)


@pytest.mark.parametrize(
    "vary, draws, problem",
    [
        ({}, 1, "vary: name at least one"),
        ({"a": []}, 1, "vary: a has no values"),
        ({"a": [1, 1]}, 1, "vary: a has 1 twice"),
        ({"a": [1]}, 2, "draws: 2 are more"),
    ],
)
def test_grids_of_nothing_are_refused(vary: Any, draws: int, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}"):
        points.grid(vary, draws)


def test_points_that_differ_in_floats_alone_share_a_program() -> None:
    vary = {**VARY, "discount": [0.9, 0.99], "max_gradient_norm": [None, 1.0]}
    found = points.grid(vary)
    groups = points.groups(SMALL, found)
    assert [len(group.numbers) for group in groups] == [4] * 4
    assert sorted(i for group in groups for i in group.numbers) == [*range(16)]
    for group in groups:
        for i, number in enumerate(group.numbers):
            varied = {name: x[i] for name, x in group.varied.items()}
            assert found[number] == {**group.fixed, **varied}
    assert {*groups[0].varied} == {"learning_rate", "discount"}
    assert {*groups[1].varied} == {"learning_rate", "discount", "max_gradient_norm"}


def test_options_of_mappings_vary_too() -> None:
    config = points.at(SMALL, {"memory_args.features": 4, "environment_args.corridor": 3})
    assert config.environment_args == {"corridor": 3}
    assert memrl_jax.Config(agent=config.agent).agent == config.agent
    with pytest.raises(ValueError, match=r"^vary: encoder = .* has no options"):
        points.at(SMALL, {"encoder.features": 4})
    with pytest.raises(ValueError, match="did you mean 'memory_args'"):
        points.at(SMALL, {"memory_arg.features": 4})


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sweep four points, in two groups."""
    place = tmp_path_factory.mktemp("sweep") / "x"
    run = Run(**vars(RUN) | {"out": str(place)})
    finished = start(SMALL, run, points.grid(VARY))
    assert finished and not [*(place / "groups").iterdir()]
    return place


def contents(place: Path) -> tuple[dict[str, np.ndarray], list[Any]]:
    """Return the metrics and the leaves of the last checkpoint of a run."""
    config, run = saved.read(str(place))[1:]
    like = preparing.prepared(config, run).shapes
    carry, about = snapshot.load(place, like)
    assert about.timestep == config.total_steps
    keys = jax.dtypes.prng_key
    plain = [
        jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, keys) else x
        for x in jax.tree.leaves(carry)
    ]
    return history.read(place / "metrics.npz"), plain


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Train the second point of the first group by itself."""
    place = tmp_path_factory.mktemp("alone") / "y"
    run = Run(**vars(RUN) | {"out": str(place)})
    config = SMALL.replace(learning_rate=RATES[1], memory="gru")
    assert experiment.start(config, run, silent, silent).finished
    yield place


def test_a_point_is_the_run_that_it_would_be_alone(swept: Path, alone: Path) -> None:
    """To rounding: the compiler is told to be quick here; `benchmarks.sweeps` compares bits."""
    assert_close(swept / "points/002", alone)


def assert_close(one: Path, other: Path) -> None:
    """Compare the metrics and the last checkpoints of two runs."""
    ours, theirs = contents(one), contents(other)
    assert ours[0].keys() == theirs[0].keys()
    for name in ("step", "evaluation_step"):  # means over the seeds of a point, not of the sweep
        np.testing.assert_array_equal(ours[0][name], theirs[0][name])
    for name, x in theirs[0].items():
        np.testing.assert_allclose(ours[0][name], x, rtol=1e-4, err_msg=name)
    for x, y in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_a_point_in_shards_is_the_run_that_it_would_be_alone(tmp_path: Path) -> None:
    """Also if the other one was given up after half of the steps."""
    config = SMALL.replace(data_parallel=2, memory="none", memory_args={})
    run = Run(**vars(RUN) | {"seeds": 2, "out": str(tmp_path / "sweep")})
    assert start(config, run, points.grid({"learning_rate": RATES}), Rule(halve=2))
    (best,) = sweep.decisions(sweep.read(run.out))[0]["points"]
    alone = Run(**vars(run) | {"out": str(tmp_path / "alone")})
    assert experiment.start(
        config.replace(learning_rate=RATES[best]), alone, silent, silent
    ).finished
    assert_close(tmp_path / f"sweep/points/{best:03d}", tmp_path / "alone")


def test_a_point_can_be_continued_like_any_run(swept: Path, alone: Path) -> None:
    more = {"total_steps": 2 * SMALL.total_steps}
    both = [
        experiment.resume(str(place), silent, silent, more).history
        for place in (swept / "points/002", alone)
    ]
    for name, x in both[1].items():
        np.testing.assert_allclose(both[0][name], x, rtol=1e-3, err_msg=name)
    json_lines = (swept / "points/002/progress.jsonl").read_text().splitlines()
    assert [json.loads(line)["timestep"] for line in json_lines] == both[0]["timestep"].tolist()


def test_in_memory_too_a_point_is_what_it_would_be_alone() -> None:
    config = SMALL.replace(total_steps=320)
    found = memrl_jax.sweep(config, {"learning_rate": RATES}, seeds=4, seed=5)
    assert [x.point["learning_rate"] for x in found] == RATES
    for x in found:
        alone = memrl_jax.sweep(config.replace(**x.point), {"discount": [0.99]}, seeds=4, seed=5)
        for name, metric in alone[0].metrics.items():
            np.testing.assert_allclose(x.metrics[name], metric, rtol=1e-4, atol=1e-6, err_msg=name)


class Stopped(Exception):
    """Stands for the end of the process."""


def test_a_sweep_that_was_interrupted_ends_as_if_it_was_not(
    swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "x"
    run = Run(**vars(RUN) | {"out": str(place)})
    save, saved = checkpoint.save, []

    def stop(path: Path, *rest: Any) -> None:
        """End after every second checkpoint, in groups and while points are made of them."""
        save(path, *rest)
        saved.append(path)
        if len(saved) % 2 == 0:
            raise Stopped

    monkeypatch.setattr(checkpoint, "save", stop)
    finished = False
    with pytest.raises(Stopped):
        start(SMALL, run, points.grid(VARY))
    for _ in range(40):
        try:
            finished = resume(place)
            break
        except Stopped:
            continue
    assert finished and len(saved) > 10
    for i in range(4):
        point = f"points/{i:03d}"
        ours = history.read(place / point / "metrics.npz")
        for name, x in history.read(swept / point / "metrics.npz").items():
            until = len(ours[name].T)  # one of them was continued since
            np.testing.assert_array_equal(ours[name].T, x.T[:until], name)


def test_what_is_wrong_at_one_point_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    run = Run(**vars(RUN) | {"out": str(tmp_path / "x")})
    found = points.grid({"discount": [0.9, 1.5]})
    with pytest.raises(ValueError, match=r"^discount: 1.5 .*\(at discount=1.5\)$"):
        start(SMALL, run, found)
    assert not [*tmp_path.iterdir()]


def test_the_command_ends_with_a_table_a_file_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x"
    grid = tmp_path / "grid.toml"
    grid.write_text('discount = "uniform:0.9..0.99"\n')
    arguments = ["sweep", "dqn", "--environment", "TMaze", "--vary", "learning_rate=1e-3,1e-2"]
    arguments += ["--grid", str(grid), "--draws", "2", "--out", str(out), "--seeds", "2"]
    arguments += ["--environments", "2", "--encoder", "8", "--total-steps", "640"]
    arguments += ["--capacity", "160", "--batch-size", "4", "--learning-starts", "80"]
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert "4 points x 2 seeds = 8 lanes in 1 group, one compile each" in said
    with open(out / "sweep.csv") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 8 and [*rows[0]][:4] == ["point", "learning_rate", "discount", "seed"]
    returns = [
        float(row["evaluation_return" if "evaluation_return" in row else "return"]) for row in rows
    ]
    means = np.reshape(returns, (4, 2)).mean(axis=1)
    assert np.all(np.diff(means) <= 1e-6)
    for name in ("curves", "effect-learning_rate", "effect-discount"):
        assert (out / f"{name}.png").stat().st_size > 10_000
    assert cli.main(["sweep", "--resume", str(out)]) == 0  # nothing is left to do
    assert cli.main(["evaluate", *map(str, sorted((out / "points").iterdir()))]) == 0


def test_a_point_that_diverges_ends_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It comes last and counts as the worst; the others are what they would be without it."""
    words = ["sweep", "drqn", *options(TINY | {"seeds": 2, "log_every": 80, "evaluate_every": 160})]
    for name, rates in (("one", "1e-3,1e30,1e-2"), ("other", "1e-3,1e-4,1e-2")):
        varied = ["--vary", f"learning_rate={rates}", "--out", str(tmp_path / name)]
        assert cli.main([*words, *varied]) == 0
        said = capsys.readouterr().out
        assert ("diverged" in said) == (name == "one")
        lines = [x for x in said.splitlines() if x.startswith("loss: ")]
        assert len(lines) == 2 * (name == "one")  # one a seed, once
        assert all("with learning_rate = 1e+30, timestep" in line for line in lines)
    with open(tmp_path / "one/sweep.csv") as file:
        rows = [*csv.DictReader(file)]
    assert [row["point"] for row in rows[-2:]] == ["1", "1"] and len(rows) == 6
    assert [row["return"] == "nan" for row in rows] == [False] * 4 + [True] * 2
    for number in (0, 2):
        paths = (tmp_path / f"{name}/points/{number:03d}/metrics.npz" for name in ("one", "other"))
        assert len({history.digest(history.read(path)) for path in paths}) == 1
    bad = history.read(tmp_path / "one/points/001/metrics.npz")
    assert np.isnan(bad["evaluation_return"][:, -1]).all() and bad["timestep"][-1] == 640
    none = ["--vary", "learning_rate=1e28,1e29,1e30", "--out", str(tmp_path / "none")]
    assert cli.main([*words, *none]) == 0
    assert len(re.findall(r"1e\+(?:28|29|30) +│ diverged", capsys.readouterr().out)) == 3
    assert not (tmp_path / "none/curves.png").exists()


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["--vary", "learning_rat=1,2"], "did you mean 'learning_rate'"),
        (["--vary", "learning_rate"], "is not NAME=VALUES"),
        (["--vary", "discount=.9", "--vary", "discount=.8"], "given twice"),
        (["--vary", "discount=0.9", "--grid", "absent.toml"], "cannot be read"),
        (["--vary", "discount=0.9", "--target-return", "1"], "would stop all points"),
        (["--vary", "discount=0.9", "--track", "wandbb"], "did you mean 'wandb'"),
        (["--vary", "environment=gymnasium:CartPole-v1", "discount=.9,.8"], "on the host"),
        (["--vary", "discount=0.9", "--trials", "8"], "name search too"),
        ([], "name at least one"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "x")]
    assert cli.main(["sweep", "dqn", *arguments, *out]) == 2
    said = capsys.readouterr().err
    assert problem in said and said.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_a_search_without_optuna_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(search, "find_spec", lambda _: None)
    words = ["--vary", "discount=uniform:0.9..0.99", "--search", "tpe", "--trials", "8"]
    assert cli.main(["sweep", "dqn", *words, "--out", str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err
    assert said == 'memrl: search: optuna is not installed; pip install "memrl_jax[search]"\n'
    assert not [*tmp_path.iterdir()]


def test_a_population_ends_with_a_picture_of_its_schedule(swept: Path, tmp_path: Path) -> None:
    found = points.grid({"learning_rate": [1e-4, 1e-3, 3e-3, 1e-2]})
    done = sweep.Sweep(tmp_path, SMALL, RUN, found, Rule(evolve_every=320))
    decided = {"timestep": 320, "scores": [1.0, 2.0, 3.0, 4.0], "source": [3, 1, 2, 3]}
    decided["varied"] = {"learning_rate": [8e-3, 1e-3, 3e-3, 1e-2]}
    (tmp_path / "rounds.json").write_text(json.dumps([decided]))
    shutil.copytree(swept / "points", tmp_path / "points")
    sweeping.write(done)
    assert (tmp_path / "schedule.png").stat().st_size > 10_000


def test_the_folder_of_another_thing_is_refused(swept: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not the folder of a sweep"):
        sweep.read(str(tmp_path))
    with pytest.raises(ValueError, match=r"exists; continue it with --resume"):
        start(SMALL, Run(out=str(swept)), points.grid(VARY))
    assert sweeping.HELP


def test_halving_keeps_the_best_and_rounds_grow() -> None:
    rule = Rule(halve=3)
    assert rule.budgets(total_steps=9_000, points=10, per_step=10) == [1_000, 3_000, 9_000]
    assert rounds.kept([1.0, 5.0, 3.0, 5.0, 2.0, 0.0, 4.0], halve=3) == [1, 3]
    assert rounds.kept([1.0, 2.0], halve=3) == [1]


def test_points_that_are_given_up_stop_early_and_the_best_is_the_one_it_would_be(
    swept: Path, tmp_path: Path
) -> None:
    place = tmp_path / "x"
    run = Run(**vars(RUN) | {"out": str(place)})
    assert start(SMALL, run, points.grid(VARY), Rule(halve=4))
    decided = sweep.decisions(sweep.read(str(place)))
    assert [decision["timestep"] for decision in decided] == [160]
    (best,) = decided[0]["points"]
    assert decided[0]["scores"][_order(VARY).index(best)] == max(decided[0]["scores"])
    lengths = [contents_until(place / f"points/{i:03d}") for i in range(4)]
    assert lengths == [640 if i == best else 160 for i in range(4)]
    ours, theirs = contents(place / f"points/{best:03d}"), contents(swept / f"points/{best:03d}")
    for x, y in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_array_equal(x, y)


def _order(vary: Vary) -> list[int]:
    """Return the numbers of points in the order of groups, in which scores are written."""
    groups = points.groups(SMALL, points.grid(vary))
    return [number for group in groups for number in group.numbers]


def contents_until(place: Path) -> int:
    """Return how far a run is."""
    return int(history.read(place / "metrics.npz")["timestep"][-1])


RANGES = {"learning_rate": Range(1e-4, 1e-2, True), "discount": Range(0.9, 1.0, False)}


def test_members_that_diverged_copy_and_are_not_copied() -> None:
    scores = [-np.inf, 3.0, -np.inf, -np.inf, 2.0, 1.0, -np.inf, -np.inf]
    varied = {"discount": np.linspace(0.9, 0.97, 8).tolist()}
    found = rounds.evolve(scores, varied, RANGES, np.random.default_rng(0))
    assert [i for i in range(8) if found.source[i] == i] == [1, 4, 5]
    assert {found.source[i] for i in (0, 2, 3, 6, 7)} == {1, 4}
    assert rounds.kept(scores, 4) == [1, 4]
    nobody = rounds.evolve([-np.inf] * 8, varied, RANGES, np.random.default_rng(0))
    assert nobody == rounds.Generation([*range(8)], varied)


def test_populations_evolve_as_a_restatement_in_numpy_does() -> None:
    draw = np.random.default_rng(5)
    scores = draw.normal(size=9).tolist()
    varied = {
        "learning_rate": np.exp(draw.uniform(np.log(1e-4), np.log(1e-2), 9)).tolist(),
        "discount": draw.uniform(0.9, 1.0, 9).tolist(),
    }
    found = rounds.evolve(scores, varied, RANGES, np.random.default_rng(7))

    random, best, worst = np.random.default_rng(7), [], []
    for i in range(9):
        rank = sum(x > scores[i] for x in scores)
        best += [(rank, i)] * (rank < 2)
        worst += [(rank, i)] * (rank >= 7)
    source = {}
    for _, i in sorted(worst):
        source[i] = sorted(best)[random.integers(2)][1]
        rate, discount = (varied[name][source[i]] for name in varied)
        factor = 1.25 if random.integers(2) else 0.8
        rate = rate * factor if 1e-4 <= rate * factor <= 1e-2 else rate / factor
        step = 0.01 if random.integers(2) else -0.01
        discount = discount + step if 0.9 <= discount + step <= 1.0 else discount - step
        assert found.varied["learning_rate"][i] == pytest.approx(rate)
        assert found.varied["discount"][i] == pytest.approx(discount)
    assert found.source == [source.get(i, i) for i in range(9)]
    for i in {*range(9)} - {*source}:
        assert all(found.varied[name][i] == values[i] for name, values in varied.items())


@pytest.mark.parametrize("own_replay", [False, True])
def test_a_member_that_copies_goes_on_from_the_others_state(
    own_replay: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "x"
    run = Run(**vars(RUN) | {"out": str(place), "seeds": 1})
    found = points.grid({"learning_rate": RANGES["learning_rate"]}, draws=4)
    rule = Rule(None, 480, own_replay, {"learning_rate": RANGES["learning_rate"]})
    seen = []
    store = experiment.store

    def record(*given: Any) -> None:
        seen.append(given)
        store(*given)

    monkeypatch.setattr(experiment, "store", record)
    # A seed has the same key at all points: only their learned actions tell them apart.
    greedy = SMALL.replace(epsilon_start=0.0, epsilon_end=0.0)
    assert start(greedy, run, found, rule)
    (decision,) = sweep.decisions(sweep.read(str(place)))
    (loser,) = (i for i, j in enumerate(decision["source"]) if i != j)
    winner = decision["source"][loser]
    carry = seen[0][3]
    same = [np.array_equal(x[loser], x[winner]) for x in jax.tree.leaves(carry.train.agent.learner)]
    assert all(same) and not np.array_equal(carry.train.key[loser], carry.train.key[winner])
    ring = carry.train.agent.replay.record
    assert np.array_equal(ring[loser], ring[winner]) != own_replay
    assert carry.varied["learning_rate"].tolist() == pytest.approx(
        decision["varied"]["learning_rate"]
    )
    for i in range(4):
        config = saved.read(str(place / f"points/{i:03d}"))[1]
        rate = json.loads(memrl_jax.config.to_json(config))["agent"]["optimizer"]["learning_rate"]
        assert rate == decision["varied"]["learning_rate"][i]
