"""The command `memrl list`."""

import textwrap
from dataclasses import dataclass
from typing import Annotated

import tyro

from memrl_jax import imports
from memrl_jax.agents import AGENTS
from memrl_jax.commands.arguments import parse
from memrl_jax.environments import ENVIRONMENTS
from memrl_jax.memory import MEMORIES
from memrl_jax.preset_configs import presets
from memrl_jax.replay import REPLAYS
from memrl_jax.run.trackers import TRACKERS


@dataclass(frozen=True)
class List:
    """Name environments, memories, replays, agents, presets and trackers."""

    imports: Annotated[
        tuple[str, ...], tyro.conf.arg(name="import", metavar="MODULE"), tyro.conf.UseAppendAction
    ] = ()
    """Modules of your own to import first, by name or as the path of a .py file."""


def list_names(arguments: list[str]) -> int:
    """Run `memrl list`."""
    for module in parse(List, arguments, "memrl list").imports:
        imports.load("imports", module)
    for title, names in (
        ("environments", ENVIRONMENTS),
        ("memories", MEMORIES),
        ("replays", REPLAYS),
        ("agents", AGENTS),
        ("presets", presets),
        ("trackers", TRACKERS),
    ):
        print(f"{title}:")
        print(textwrap.indent(textwrap.fill(", ".join(names), 76, break_on_hyphens=False), "  "))
    return 0
