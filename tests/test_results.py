"""Supervised results run in their short forms, go on where they stopped, and are judged."""

import io
import json
import signal
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

import memrl_jax
from benchmarks import (
    agents,
    applications,
    babi,
    bandits,
    mazes,
    probes,
    results,
    runs,
    tasks,
    transfer,
    trials,
)
from benchmarks.findings import Findings
from benchmarks.probes import Learner
from memrl_jax.build import make
from memrl_jax.environments import ENVIRONMENTS
from memrl_jax.run.program import Run
from memrl_jax.tasks import make_probe
from tests.small import write_original_maps

TINY = {"stack": Learner("frame_stack", {"features": 4, "frames": 2}, learning_rate=1e-2)}
COPY = tasks.copy()._replace(learners=TINY)


def stopping(*_):
    raise KeyboardInterrupt


def run(name, folder):
    """Run a short form; return its report, which stands in its folder beside the curves alone."""
    assert results.main([name, "--quick", "--out", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["curves.png", "result.json"]
    return json.loads((folder / "result.json").read_text())


def test_short_form_of_a_task(monkeypatch, tmp_path):
    monkeypatch.setitem(results.RESULTS, "copy", lambda *given: probes.study(lambda: COPY, *given))
    written = run("copy", tmp_path)
    assert (written["claims"], written["seeds"]) == ([], [0, 1])
    assert written["configs"]["stack"]["memory_args"] == {"features": 4, "frames": 2}
    assert all(len(values) == 2 for values in written["figures"]["stack"].values())


def test_a_training_goes_on_where_it_was_stopped(tmp_path):
    result = probes.shortened(COPY)
    learner, path = result.learners["stack"], tmp_path / "stack.ckpt"
    probe = make_probe(result.task, probes.memory(learner), learner.width)
    impatient: Any = SimpleNamespace(print=stopping)
    with pytest.raises(KeyboardInterrupt):
        probes.train(result, learner, probe, path, impatient)
    stopped = probes.train(result, learner, probe, path, Console())
    whole = probes.train(result, learner, probe, tmp_path / "other.ckpt", Console())
    assert len(whole.errors) == 2
    assert stopped.errors == whole.errors
    same = jax.tree.map(np.array_equal, stopped.carry[1], whole.carry[1])
    assert all(jax.tree.leaves(same))
    with pytest.raises(ValueError, match="begun with other settings"):
        probes.train(result, learner._replace(batch_size=2), probe, path, Console())


def test_an_interrupt_says_how_to_go_on(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(results.RESULTS, "copy", stopping)
    assert results.main(["copy", "--out", str(tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_nothing_is_removed_before_the_report_is_written(monkeypatch, tmp_path):
    def study(console, place, quick):
        (place / "runs").mkdir()
        return Findings("", [], {}, 1.0, {}, "")

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setitem(results.RESULTS, "copy", study)
    monkeypatch.setattr(results, "write", fail)
    with pytest.raises(OSError, match="no space"):
        results.main(["copy", "--out", str(tmp_path)])
    assert (tmp_path / "runs").exists()


@pytest.mark.parametrize(("wrong", "reached"), [(0.05, True), (0.15, False)])
def test_copy_is_judged_by_four_of_five_seeds(wrong, reached):
    figures = {
        "NTM": {
            "lengths 1-20: wrong bits": np.array([0, 0, wrong, 9, 0]),
            "length 100: % wrong": np.array([9, 9, 9, 0.5, 9]),
        }
    }
    assert [claim.reached for claim in COPY.claims(figures)] == [reached, True]


def test_short_form_of_the_imaze(monkeypatch, tmp_path):
    plan = mazes.imaze()
    config = plan.result.runs["MQN"].replace(
        memory_args={"features": 4, "frames": 3},
        encoder=(4,),
        environments=10,
        rollout_length=4,
        total_steps=2_000,
        window=6,
        batch_size=2,
        capacity=400,
        learning_starts=0,
    )
    result = plan.result._replace(runs={"MQN": config})
    small = plan._replace(result=result, places=(3, 4))
    monkeypatch.setitem(results.RESULTS, "imaze", lambda *given: mazes.study(lambda: small, *given))
    monkeypatch.setattr(mazes, "HORIZON", 6)
    assert results.main(["imaze", "--quick", "--out", str(tmp_path)]) == 0
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == ["curves", "success"]
    written = json.loads((tmp_path / "result.json").read_text())
    assert (written["places"], written["claims"]) == ([3, 4], [])
    assert np.shape(written["success"]["MQN"]) == (2, 2)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("plan", mazes.RESULTS.values(), ids=mazes.RESULTS)
def test_runs_in_mazes_can_be_made_and_played_everywhere(plan, monkeypatch, tmp_path):
    write_original_maps(tmp_path, [mazes.SEEN, mazes.UNSEEN])
    monkeypatch.setenv("MEMRL_MAZES", str(tmp_path))
    result, places, at, *_ = plan()
    for config in (*result.runs.values(), *runs.shortened(result).runs.values()):
        _, rollouts = make(config)
        assert rollouts > 50  # enough for evaluations to differ
    assert len({at(config, place) for config in result.runs.values() for place in places}) == (
        len(result.runs) * len(places)
    )


@trials.compiled_once()
def test_agents_go_on_where_they_were_stopped(tmp_path):
    part = memrl_jax.Config(environment_args={"corridor": 2}, environments=2, total_steps=40)
    part = part.replace(environment="TMaze", batch_size=2, capacity=20, learning_starts=8)
    result = runs.Result("", {"a": part, "b": part}, lambda _: [], {}, seeds=2)
    console = Console(file=io.StringIO())
    series, returns, minutes = runs.train(result, tmp_path / "whole", console)
    kept = tmp_path / "stopped"

    def stop(progress):
        if progress.steps >= 20:
            signal.raise_signal(signal.SIGINT)

    stopped = runs.begin_or_go_on(
        part,
        Run(out=str(kept / "a"), seeds=2),
        console.print,
        runs.timed(stop, kept / "a" / "seconds"),
    )
    assert not stopped.finished
    before = runs.seconds(kept / "a" / "seconds")
    again = runs.train(result, kept, console)
    jax.tree.map(np.testing.assert_array_equal, again[:2], (series, returns))
    assert minutes > 0
    assert 60 * again[2] > before > 0
    with pytest.raises(ValueError, match="begun with other settings; remove it"):
        runs.train(result._replace(seeds=3), kept, console)


def test_the_imaze_is_judged_at_trained_lengths_and_beyond():
    judge = mazes.imaze().result.claims
    rates = np.array([[0.96, 0.97, 0.95, 0.2, 0.2, 0.2, 0.91]] * 2)  # at 5, 7, 9, 15, ... 40
    blind = np.where(np.array(mazes.LENGTHS) < 12, 1.0, 0.5) * np.ones((2, 1))
    agents = {"MQN": rates, "RMQN": rates, "FRMQN": rates, "DQN, 12 frames": blind}
    assert all(claim.reached for claim in judge(agents))
    known, far, *rest = judge(agents | {"MQN": 0.98 * rates, "DQN, 12 frames": rates})
    assert (known.figure, far.figure, rest[-1].figure) == ("0.931", "0.892", "0.910")
    assert not known.reached and not far.reached and not rest[-1].reached


def test_short_form_of_babi(tmp_path):
    written = run("babi", tmp_path)
    done = written["tasks"]["1"]
    assert done["best"] == done["errors"][int(np.argmin(done["losses"]))]
    assert done["median"] == pytest.approx(np.mean(done["errors"]))


def test_babi_needs_the_original_files(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("MEMRL_BABI", raising=False)
    assert results.main(["babi", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("benchmarks.results: MEMRL_BABI: set this to")


def test_babi_goes_on_with_the_tasks_that_are_left(monkeypatch, tmp_path):
    def learn(task, plan):
        return {"best": 1.0 * task, "median": 2.0, "seconds": 3.0}

    monkeypatch.setattr(babi, "learn", learn)
    load: Any = int
    plan = babi.short()._replace(load=load, tasks=(15, 1))
    kept = tmp_path / "tasks.json"
    first = babi.learned(plan, kept, Console())
    assert [done["best"] for done in first.values()] == [1.0, 15.0]
    monkeypatch.setattr(babi, "learn", stopping)
    assert babi.learned(plan, kept, Console()) == first
    with pytest.raises(KeyboardInterrupt):
        babi.learned(plan._replace(tasks=(1, 15, 4)), kept, Console())
    with pytest.raises(ValueError, match="begun with other settings"):
        babi.learned(plan._replace(restarts=3), kept, Console())


def test_babi_is_judged_by_the_mean_of_all_tasks():
    published = {str(task): {"best": x, "median": 50.0} for task, x in babi.PAPER.items()}
    judged = babi.claims(published)
    assert all(claim.reached for claim in judged)
    assert judged[0].figure == "13.83"
    assert not babi.claims(published | {"2": {"best": 30.0}})[0].reached
    assert not babi.claims(published | {"15": {"best": 1.0}})[3].reached


def test_the_maze_in_integers_is_judged_for_every_kind_of_them(monkeypatch):
    monkeypatch.setitem(ENVIRONMENTS, "TMaze-in", None)  # is taken off the list again
    result = agents.tmaze_bytes()
    for config in result.runs.values():
        make(config)
    returns = {label: np.ones((5, 100)) for label in result.runs}
    assert all(claim.reached for claim in result.claims(returns))
    returns["int8, -1 to 1"][2, :3] = 0
    judged = {claim.text: claim.reached for claim in result.claims(returns)}
    assert [text for text, reached in judged.items() if not reached] == [
        "int8, -1 to 1: success >= 0.98 in every seed"
    ]


def test_the_recommender_is_judged_by_its_share_of_regret():
    result = applications.recommender()
    best = result.reference[applications.EVERYTHING]
    assert best == pytest.approx(0.64 * 200, abs=3)

    def judged(regret):
        short = {"with GRU": regret, "memoryless": 60.0}
        return result.claims({label: np.full((4, 100), best - x) for label, x in short.items()})[0]

    assert judged(29.0).reached and not judged(31.0).reached
    assert judged(15.0).figure == "0.25 (0.075 / 0.300 clicks a step)"


def test_bandits_are_judged_by_what_was_published():
    result = bandits.bandits(5, 10, 100_000, 8)

    def judged(payout):
        claims = result.claims({bandits.LEARNED: np.full((2, 1000), payout)})
        return [(claim.text, claim.figure, claim.reached) for claim in claims]

    assert judged(6.57)[0] == ("RL^2: within 2 % of 6.7", "6.570", True)
    assert not judged(6.56)[0][2] and judged(7.0)[0][2]
    assert [reached for *_, reached in judged(5)] == [False, True, True]


MADE = applications.RESULTS | bandits.RESULTS


@pytest.mark.parametrize("make_result", MADE.values(), ids=MADE)
def test_runs_can_be_made(make_result):
    result = make_result()
    for config in (*result.runs.values(), *runs.shortened(result).runs.values()):
        _, rollouts = make(config)
        assert rollouts > result.evaluations  # enough for each to be of another policy


def test_short_form_of_a_transfer(monkeypatch, tmp_path):
    def ppo(corridor, rollouts):
        config = memrl_jax.presets["recurrent-ppo"].replace(environment="TMaze", epochs=1)
        small = config.replace(encoder=(4,), memory_args={"features": 4}, environments=2)
        return small.replace(environment_args={"corridor": corridor}, total_steps=640)

    monkeypatch.setattr(transfer, "ppo", ppo)
    written = run("transfer", tmp_path)
    assert [*written["steps to 0.95"]] == [transfer.SOURCE, transfer.ANEW, transfer.TAKEN]
    assert written["configs"][transfer.TAKEN]["agent"]["optimizer"]["freeze"] == [*transfer.PARTS]
    assert len(written["return of the short maze's agents in the long one"]) == 2


@pytest.mark.parametrize(
    ("last", "reached"), [([10.0, 40.0, 20.0], True), ([30.0, 10.0, None], False)]
)
def test_a_transfer_is_judged_by_medians(last, reached):
    steps = {transfer.SOURCE: [7.0], transfer.ANEW: [None, 41.0, 40.0], transfer.TAKEN: last}
    returns = {transfer.TAKEN: np.full((3, 4), 0.9)}
    claims = transfer.judged(returns, steps)
    assert [claim.reached for claim in claims] == [reached, False]
