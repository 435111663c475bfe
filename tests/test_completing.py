"""Scripts that complete what is typed, tried in the shells at hand."""

import contextlib
import io
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from memrl_jax import cli
from memrl_jax.commands import completing
from memrl_jax.memory import MEMORIES
from memrl_jax.preset_configs import presets
from memrl_jax.settings import named


@cache
def script(shell: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert cli.main(["completion", shell]) == 0
    return said.getvalue()


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the helps be read once for all shells."""
    monkeypatch.setattr(completing, "cases", _cases)


_cases = cache(completing.cases)


def by_bash(typed: str, folder: Path) -> set[str]:
    words = typed.split(" ")
    quoted = " ".join(f'"{word}"' for word in words)
    ask = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _memrl; printf '%s\\n' "
    text = f'{script("bash")}\n{ask}"${{COMPREPLY[@]}}"'
    return _said(["bash", "-c", text], folder)


def by_fish(typed: str, folder: Path) -> set[str]:
    (folder / "memrl.fish").write_text(script("fish"))
    said = _said(["fish", "-c", f'source memrl.fish; complete -C "{typed}"'], folder)
    return {line.partition("\t")[0] for line in said}


def _said(words: list[str], folder: Path) -> set[str]:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return {*done.stdout.split()}


SHELLS: dict[str, Callable[[str, Path], set[str]]] = {"bash": by_bash, "fish": by_fish}


@pytest.mark.parametrize("shell", SHELLS)
def test_words_are_completed(shell: str, tmp_path: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell}")
    asked = lambda typed: SHELLS[shell](typed, tmp_path)  # noqa: E731
    assert asked("memrl ") == {*cli.COMMANDS}
    assert asked("memrl e") == {"evaluate"}
    assert {*presets} <= asked("memrl train ")
    assert asked("memrl sweep recurrent-p") == {"recurrent-ppo"}
    assert asked("memrl train drqn --memory l") == {x for x in MEMORIES if x[0] == "l"}
    assert asked("memrl train drqn --target-p") == {"--target-period"}
    assert asked("memrl train ppo --target-p") == set()
    assert asked("memrl completion ") == {"bash", "zsh", "fish"}
    assert asked("memrl evaluate runs/x --ep") == {"--episodes"}


def test_all_settings_of_a_preset_are_options() -> None:
    for case in _cases():
        for words in case.patterns:
            command, _, preset = words.partition(" ")
            if command == "train" and preset in presets:
                options = {f"--{x.replace('_', '-')}" for x in named(presets[preset])}
                assert options - {"--imports"} <= {*case.words}, preset


def test_zsh_takes_what_bash_does() -> None:
    assert script("zsh").endswith(script("bash")) and "bashcompinit" in script("zsh")
