"""What is released, in short: built, checked, and installed where nothing else is."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import memrl_jax
from benchmarks import release
from benchmarks.release import ROOT, Built
from memrl_jax import cli


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return release.build(tmp_path_factory.mktemp("dist"), isolated=False)


def sources(folder: str) -> set[str]:
    return {str(x.relative_to(ROOT)) for x in (ROOT / folder).rglob("*.py")}


def test_the_wheel_has_the_package_and_the_sdist_its_tests(built: Built) -> None:
    wheel, sdist = release.contents(built)
    assert built.wheel.name.startswith(f"memrl_jax-{memrl_jax.__version__}-py3-none-any")
    package = sources("memrl_jax")
    assert package | {"memrl_jax/py.typed"} == {x for x in wheel if x.startswith("memrl_jax/")}
    assert {x.partition("/")[0].partition("-")[0] for x in wheel} == {"memrl_jax"}
    assert package | sources("tests") | sources("benchmarks") <= sdist
    assert {"tests/data/returns.npz", "notebooks/quickstart.ipynb"} <= sdist
    assert {"Makefile", "CITATION.cff", "SECURITY.md", "CHANGELOG.md", "LICENSE"} <= sdist


@pytest.mark.parametrize("python", release.interpreters() or [sys.executable])
def test_the_wheel_installs_where_nothing_else_is(
    built: Built, python: str, tmp_path: Path
) -> None:
    """Help needs no dependency."""
    bare = ["--no-deps", "--no-index"]
    programs = release.install(python, built.wheel, tmp_path / "empty", bare)
    done = subprocess.run(
        [programs / "memrl", "--help"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == cli.HELP
    shutil.rmtree(tmp_path / "empty")


def test_the_oldest_dependencies_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = release.oldest()
    assert len(pins) == len(project["dependencies"])
    for pin, bound in zip(pins, project["dependencies"], strict=True):
        assert bound.startswith(pin.replace("==", ">="))


def test_the_citation_is_of_this_version() -> None:
    assert f"\nversion: {memrl_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text()
