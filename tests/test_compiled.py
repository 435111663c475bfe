"""Compiled programs on disk: where they are kept, that they are found again, and how many."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from memrl_jax import compiled

ROOT = Path(__file__).parents[1]
# A command that compiles little; what jax found and what it compiled is counted.
COUNT = """
import collections, json, sys
import jax
from memrl_jax import cli
seen = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: seen.update([name.rsplit("/", 1)[-1]]))
code = cli.main(sys.argv[1:])
print(json.dumps([code, seen["cache_hits"], seen["cache_misses"]]))
"""
TRAIN = [
    "train",
    "tabular",
    "--seeds",
    "1",
    "--total-steps",
    "400",
    "--evaluate-episodes",
    "2",
    "--out",
]


def memrl(tmp_path, *words, home=None):
    """Run a command as a user would, whose cache is in `tmp_path`."""
    own = {"XDG_CACHE_HOME": str(home or tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    kept = {key: x for key, x in os.environ.items() if not key.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", COUNT, *words], env=kept | own, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_the_same_run_finds_its_programs(tmp_path):
    (code, _, missed), _ = memrl(tmp_path, *TRAIN, str(tmp_path / "a"))
    assert code == 0
    assert missed > 0
    place = tmp_path / "cache" / "memrl_jax"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    kept = [*place.iterdir()]
    assert kept
    (_, found, _), _ = memrl(tmp_path, *TRAIN, str(tmp_path / "b"))
    assert found == len(kept)
    assert {*place.iterdir()} >= {*kept}  # and what took just too little time before
    metrics = [(tmp_path / name / "metrics.npz").read_bytes() for name in "ab"]
    assert metrics[0] == metrics[1]
    (_, found, missed), _ = memrl(tmp_path, *TRAIN, str(tmp_path / "c"), "--no-cache")
    assert (found, missed) == (0, 0)


def test_a_folder_that_cannot_be_used_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    (code, _, _), told = memrl(tmp_path, "list", home=tmp_path / "file")
    assert code == 0
    assert told.count("memrl: compiled programs are not kept (") == 1


def test_a_choice_of_the_users_is_kept():
    import jax

    def folder():
        return jax.config.values["jax_compilation_cache_dir"]

    given = folder()  # by conftest.py
    compiled.keep()
    assert folder() == given is not None


@pytest.mark.parametrize(("most", "left"), [(100, "abc"), (30, "abc"), (29, "bc"), (9, "")])
def test_what_was_not_used_for_longest_goes_first(tmp_path, most, left):
    (tmp_path / "folder").mkdir()
    for age, name in enumerate("cba"):
        path = tmp_path / name
        path.write_bytes(bytes(10))
        os.utime(path, (1_000 - age, 500 - age))
    compiled.shrink(tmp_path, most)
    assert {path.name for path in tmp_path.iterdir()} == {"folder", *left}
