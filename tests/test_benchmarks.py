import json

import numpy as np
import pytest

from benchmarks import bare, buffers, memory, memrl, replay, report, targets
from benchmarks.buffers import Case
from benchmarks.timing import Program, Timing, fastest, interleave, ratio
from memrl_jax.agents import DQNConfig
from memrl_jax.config import Config

TINY = Config(
    environment="TMaze",
    environments=2,
    agent=DQNConfig(head=()),
).replace(encoder=(4,), capacity=40, batch_size=4, learning_starts=8)


def timing(name, microseconds, capacity=targets.SMALL, seeds=1, steps=10.0):
    return Timing(name, capacity, seeds, 1.0, np.full(2, microseconds), np.full(2, steps))


def test_training_and_its_pieces_go_on():
    begun = memrl.begin(TINY, seeds=1)
    check_filled(begun.carry.train.agent.replay)
    programs = [*memrl.pieces(begun), memrl.training(begun)]
    timings = interleave(programs, seconds=0.001, turns=2)
    assert [t.name for t in timings] == ["act", "add", "sample", "update", "learn", "memrl"]
    for t in timings:
        assert t.microseconds.shape == (2,)
        assert np.all(t.microseconds > 0)
    # A step that begins an episode is none of the environment's.
    assert np.all(timings[-1].steps > 1)
    assert np.all(timings[-1].steps <= 2)


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_the_floor_is_an_update_and_a_rollout(memory):
    """Without a memory a batch is of transitions, with one of windows after a burn-in."""
    windows = {"memory_args": {"features": 3}, "window": 2, "dueling": True, "double": True}
    given = {"memory": "gru", "rollout_length": 2, **windows} if memory == "gru" else {}
    config = TINY.replace(environment="CartPole-v1", **given)
    programs = [bare.update(config, observation=4, actions=2), bare.environment(config)]
    timings = interleave(programs, seconds=0.001, turns=2)
    assert [t.name for t in timings] == [*report.FLOOR]
    assert all(np.all(t.microseconds > 0) for t in timings)


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_whole_training_is_timed_by_the_iteration(seeds):
    program = memrl.anew(TINY, seeds, iterations=3)
    program.advance(1)
    # Two steps of warm-up before the three that learn.
    assert program.steps() == seeds * 2 * (program.unit + 2) == seeds * 10
    assert program.nbytes


def check_filled(replay):
    """Warm-up wrote 4 rows of 2 environments; they are repeated up to the capacity."""
    rows = np.asarray(replay.record[0])
    assert rows.shape[:2] == (2, 20)
    assert int(replay.added[0]) == 20
    np.testing.assert_array_equal(rows, np.tile(rows[:, :4], (1, 5, 1)))
    assert np.unique(rows[:, :4], axis=1).shape[1] == 4


def test_interleave_takes_turns_back_and_forth():
    advanced = []

    def program(name):
        def advance(iterations):
            advanced.append(name)

        return Program(name, 1, 1, None, advance, lambda: 3 * advanced.count(name))

    interleave([program("a"), program("b")], seconds=1e-9, turns=2)
    assert advanced[-4:] == ["a", "b", "b", "a"]


def test_ratio_is_taken_within_turns():
    assert ratio(np.array([1.0, 20.0, 3.0]), np.array([1.0, 10.0, 1.0])) == 2


def test_fastest_variant_counts():
    slow, fast, other = timing("sb3", 20.0), timing("sb3", 10.0), timing("memrl", 1.0)
    kept = fastest([slow, other, fast])
    assert [t.name for t in kept] == ["sb3", "memrl"]
    assert kept[0] is fast


@pytest.mark.parametrize(("iteration", "reached"), [(119.0, True), (121.0, False)])
def test_targets_are_judged(iteration, reached):
    timings = [timing("memrl", iteration), timing(bare.ENVIRONMENT, 20.0)]
    timings.append(timing(bare.UPDATE, 80.0))
    outcome = targets.outcomes(timings, targets.TRAINING)[0]
    assert outcome.ratio == pytest.approx(iteration / 100)
    assert outcome.reached is reached


def test_targets_that_were_not_timed_are_not_judged():
    every = (*targets.TRAINING, *targets.UNIFORM, *targets.PRIORITIZED, *targets.ITERATION)
    assert all(outcome.reached is None for outcome in targets.outcomes([], every))


def test_faster_counts_environment_steps():
    timings = [timing("memrl", 10.0, steps=8.0), timing("rejax", 20.0, steps=10.0)]
    by_name = {o.target.name: o for o in targets.outcomes(timings, targets.TRAINING)}
    assert by_name["steps/s of memrl / rejax, 10,000 rows"].ratio == pytest.approx(1.6)


def test_the_worst_case_counts_against_a_peer():
    timings = [timing("memrl", 10.0, rows) for rows in (targets.SMALL, targets.LARGE)]
    timings += [timing("flashbax", 30.0), timing("flashbax", 15.0, targets.LARGE)]
    outcome = targets.outcomes(timings, targets.PRIORITIZED)[0]
    assert (outcome.ratio, outcome.reached) == (pytest.approx(1.5), False)


def test_an_iteration_is_held_against_its_update():
    timings = [timing("memrl", 11.0), timing("learn", 10.0), timing("update", 8.0)]
    outcomes = targets.outcomes(timings, targets.ITERATION)
    assert [o.reached for o in outcomes] == [True, False]
    assert {*map(type, (x for o in outcomes for x in (o.ratio, o.reached)))} == {float, bool}


def test_report_holds_every_figure(tmp_path):
    timings = [timing(name, 10.0) for name in (*report.PIECES, "learn", "memrl", "rejax")]
    figures = report.figures(timings, targets.TRAINING)
    report.save(tmp_path / "new" / "train.json", figures)
    assert json.loads((tmp_path / "new" / "train.json").read_text()) == figures
    assert figures["timings"][-1]["steps_per_second"] == pytest.approx(1e6)
    floors = [timing(name, 5.0) for name in report.FLOOR]
    parts = [report.speeds(timings), report.split(timings), report.beside(timings, "memrl")]
    parts.append(report.floor(timings + floors))
    assert report.tables("setting", timings, parts, targets.TRAINING)


@pytest.mark.parametrize("kind", ["uniform", "prioritized"])
@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("windows", [{}, {"period": 2, "length": 3, "stride": 2}])
def test_a_memory_alone_is_timed(kind, seeds, windows):
    case = Case(kind, rows=120, batch_size=4, **windows)
    program = buffers.program("memrl", case, buffers.memrl(case), seeds)
    (timed,) = interleave([program], seconds=0.001, turns=2)
    assert (timed.name, timed.capacity, timed.seeds) == ("memrl", 120, seeds)
    assert np.all(timed.microseconds > 0)


def test_bytes_per_row_are_those_of_the_fields():
    # Observation 16, action, reward, discount 4 each, two flags in a word; a leaf of the tree 4.
    counted = replay.bytes_per_row(10_000)["memrl"]
    assert counted["uniform"] == pytest.approx(32, abs=0.01)
    assert 36 < counted["prioritized"] < 38


def test_every_setting_can_be_named():
    names = [setting.name for setting in replay.settings(replay.FULL)]
    assert len(names) == len(set(names)) == 9


def test_neural_memories_are_timed_beside_flax():
    plan = memory.QUICK._replace(names=("gru", "lru"), seconds=0.001, turns=2)
    made = memory.models(plan)
    assert [model.name for model in made[:3]] == ["gru", "lru, sequential", "lru, associative"]
    setting = memory.setting(plan, 2, made)
    timings = setting.measure(lambda _: None)
    assert all(np.all(timed.microseconds > 0) for timed in timings)
    assert setting.tables(timings)[0].row_count == len(made) == 5
    assert len(timings) == 2 * len(made) + 3  # and a step of each of ours
    by_name = {o.target.name: o.ratio for o in targets.outcomes(timings, setting.targets)}
    assert (by_name["speed of gru / flax GRU"] or 0) > 0
    assert by_name["speed of lstm / flax LSTM"] is None
