"""The command `memrl completion`: a script that completes the words of `memrl` in a shell.

The script holds all names, so that a shell need not wait for Python: print it anew for a new
version, or for parts of your own.
"""

import contextlib
import importlib
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from memrl_jax import cli
from memrl_jax.commands.arguments import parse
from memrl_jax.config import agent_name
from memrl_jax.environments import ENVIRONMENTS
from memrl_jax.memory import MEMORIES
from memrl_jax.preset_configs import presets
from memrl_jax.replay import REPLAYS
from memrl_jax.run.trackers import TRACKERS

VALUES: Mapping[str, Mapping[str, Any]] = {
    "--environment": ENVIRONMENTS,
    "--memory": MEMORIES,
    "--replay": REPLAYS,
    "--track": TRACKERS,
}
OF_PRESETS = "train", "sweep"
# Files are completed where nothing else is known.
BASH = """_memrl() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} given= words=
    [[ $COMP_CWORD -gt 1 ]] && given=${{COMP_WORDS[1]}}
    [[ $COMP_CWORD -gt 2 ]] && given="$given ${{COMP_WORDS[2]}}"
    case "$given" in
{cases}
    esac
    case "$before" in
{values}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _memrl memrl
"""
FISH = """function __memrl
    set -l given (commandline -opc)
    switch $given[-1]
{values}
    end
    switch "$given[2..3]"
{cases}
    end
end
complete -c memrl -a "(__memrl)"
"""


@dataclass(frozen=True)
class Completion:
    """Print a script that completes commands, presets, options and names in a shell:
    memrl completion bash > ~/.local/share/bash-completion/completions/memrl
    memrl completion zsh >> ~/.zshrc
    memrl completion fish > ~/.config/fish/completions/memrl.fish"""

    shell: Annotated[
        tyro.conf.Positional[Literal["bash", "zsh", "fish"]], tyro.conf.arg(metavar="SHELL")
    ]
    """bash, zsh or fish."""


def completion(arguments: list[str]) -> int:
    """Run `memrl completion`."""
    shell = parse(Completion, arguments, "memrl completion").shell
    print(SHELLS[shell](), end="")
    return 0


class Case(NamedTuple):
    """What may follow words that match one of some patterns."""

    patterns: list[str]  # the first two words of a command; * at an end stands for anything
    words: list[str]


def cases() -> list[Case]:
    """Return what may follow, the first case that matches first."""
    alike: dict[str, list[str]] = {}
    for name, config in presets.items():
        alike.setdefault(agent_name(config), []).append(name)
    found = [Case([""], [*cli.COMMANDS]), Case(["completion*"], [*SHELLS])]
    for of in OF_PRESETS:
        for names in alike.values():  # presets of one agent have the same options
            found.append(Case([f"{of} {name}" for name in names], _options(of, names[0])))
        found.append(Case([f"{of} --resume*"], _options(of, "--resume=x")))
        found.append(Case([f"{of}*"], [*presets, "--resume"]))
    others = [x for x in cli.COMMANDS if x not in (*OF_PRESETS, "completion")]
    return found + [Case([f"{name}*"], _options(name)) for name in others]


def _options(command: str, *words: str) -> list[str]:
    """Return the options that a command's help names."""
    module, function = cli.COMMANDS[command]
    run = getattr(importlib.import_module(f"memrl_jax.commands.{module}"), function)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        run([*words, "--help"])
    found = re.findall(r"(?m)^\W*(--[\w-]+)(?:, (--[\w-]+))?", said.getvalue())
    return [x for pair in found for x in pair if x]


def _script(template: str, line: Callable[[Case, str], str], ends: str) -> str:
    """Fill in a shell's script; `line` writes a case, and the words of options' values end it."""
    values = [line(Case([option], [*names]), ends) for option, names in VALUES.items()]
    given = [line(x, "") for x in cases()]
    return template.format(values="\n".join(values), cases="\n".join(given))


def _bash() -> str:
    def line(case: Case, ends: str) -> str:
        quoted = (f'"{x.removesuffix("*")}"{"*" * x.endswith("*")}' for x in case.patterns)
        return f"        {'|'.join(quoted)}) words='{' '.join(case.words)}' ;;"

    return _script(BASH, line, "")


def _zsh() -> str:
    return f"autoload -Uz compinit bashcompinit && compinit && bashcompinit\n{_bash()}"


def _fish() -> str:
    def line(case: Case, ends: str) -> str:
        patterns = " ".join(f"'{x}'" for x in case.patterns)
        return f"        case {patterns}\n            printf '%s\\n' {' '.join(case.words)}{ends}"

    return _script(FISH, line, "; return")


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
