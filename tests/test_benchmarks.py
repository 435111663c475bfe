import json

import jax
import numpy as np
import pytest

from benchmarks import memrl, report, targets
from benchmarks.timing import Program, Timing, fastest, interleave, ratio
from memrl_jax.agents import DQNConfig
from memrl_jax.config import Config

TINY = Config(
    environment="TMaze",
    environments=2,
    encoder=(4,),
    head=(),
    agent=DQNConfig(capacity=40, batch_size=4, learning_starts=8),
)


def timing(name, microseconds, capacity=targets.SMALL, seeds=1, steps=10.0):
    return Timing(name, capacity, seeds, 1.0, np.full(2, microseconds), np.full(2, steps))


@pytest.fixture
def fast_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.usefixtures("fast_compilation")
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


def check_filled(replay):
    """Warm-up wrote 4 rows of 2 environments; they are repeated up to the capacity."""
    rows = np.asarray(replay.record[0])
    assert rows.shape[:2] == (20, 2)
    assert int(replay.added[0]) == 20
    np.testing.assert_array_equal(rows, np.tile(rows[:4], (5, 1, 1)))
    assert np.unique(rows[:4], axis=0).shape[0] == 4


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


@pytest.mark.parametrize(("iteration", "reached"), [(114.0, True), (116.0, False)])
def test_targets_are_judged(iteration, reached):
    timings = [timing("memrl", iteration), timing("act", 20.0), timing("learn", 80.0)]
    outcome = targets.outcomes(timings)[0]
    assert outcome.ratio == pytest.approx(iteration / 100)
    assert outcome.reached is reached


def test_targets_that_were_not_timed_are_not_judged():
    assert all(outcome.reached is None for outcome in targets.outcomes([]))


def test_faster_counts_environment_steps():
    timings = [timing("memrl", 10.0, steps=8.0), timing("rejax", 20.0, steps=10.0)]
    by_name = {o.target.name: o for o in targets.outcomes(timings)}
    assert by_name["steps/s of memrl / rejax, 10,000 rows"].ratio == pytest.approx(1.6)


def test_report_holds_every_figure(tmp_path):
    timings = [timing(name, 10.0) for name in (*report.PIECES, "learn", "memrl", "rejax")]
    figures = report.figures(timings)
    report.save(tmp_path / "new" / "train.json", figures)
    assert json.loads((tmp_path / "new" / "train.json").read_text()) == figures
    assert figures["timings"][-1]["steps_per_second"] == pytest.approx(1e6)
    assert report.tables("setting", timings)
