"""What `memrl doctor` tells of a machine."""

import re
from pathlib import Path

import jax
import pytest

import memrl_jax
from memrl_jax import cli
from memrl_jax.commands import doctor


def told(said: str) -> dict[str, str]:
    """Return what is said of each name; all of a part begins in one column."""
    rows = re.findall(r"^  (\S+)( +)(.+)$", said, re.MULTILINE)
    assert len(rows) == len(said.splitlines()) - 3  # titles
    for part in re.split(r"^\w+\n", said, flags=re.MULTILINE)[1:]:
        assert len({len(re.match(r"  \S+ +", line)[0]) for line in part.splitlines()}) == 1  # type: ignore[index]
    return {name: value for name, _, value in rows}


def test_a_doctor_tells_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    said = told(capsys.readouterr().out)
    assert said["memrl_jax"].startswith(f"{memrl_jax.__version__} in ")
    assert said["jax"] == jax.__version__
    assert said["devices"] == "2 x cpu (cpu)" and re.search(
        r"\d+ of \d+ may be used", said["cores"]
    )
    assert " GB are " in said["memory"]
    assert said["cache"].endswith(str(jax.config.jax_compilation_cache_dir))  # type: ignore[attr-defined]


def test_a_doctor_needs_nothing_that_is_optional(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert cli.main(["doctor"]) == 0
    said = told(capsys.readouterr().out)
    assert said["wandb"] == 'missing: pip install "memrl_jax[wandb]", for --track wandb'
    assert said["brax"] == "missing: pip install brax, for environments brax:..."
    assert {*doctor.EXTRAS, *doctor.SUITES} <= {k for k, x in said.items() if "missing" in x}


def test_extras_are_those_of_the_package() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    extras = set(re.findall(r"^(\w+) = \[$", text, re.MULTILINE))
    assert {*doctor.EXTRAS} <= extras
    for extra, (module, _) in doctor.EXTRAS.items():
        (listed,) = re.findall(rf"^{extra} = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
        assert f'"{module}' in listed
