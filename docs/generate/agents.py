"""A page for every agent: docstring, presets, and all its settings with defaults and help."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise

import memrl_jax.agents
from generate import markdown
from memrl_jax.agents import AGENTS
from memrl_jax.config import Config, agent_name
from memrl_jax.preset_configs import presets
from memrl_jax.settings import Settings


def pages() -> dict[str, str | bytes]:
    """Return a page for every agent in AGENTS, and one about the settings of a run."""
    made: dict[str, str | bytes] = {f"agents/{name}.md": _page(name) for name in AGENTS}
    about = "# Settings of a run\n\n" + (inspect.getdoc(Config) or "") + "\n\n"
    return {"agents/run.md": about + _settings(Config(), "")} | made


def _page(name: str) -> str:
    config, _ = AGENTS[name]
    own = [x for x, preset in presets.items() if agent_name(preset) == name]
    commands = "".join(f"memrl train {x}\n" for x in own)
    return (
        f"# `{name}`\n\n"
        + markdown.docstring(getattr(memrl_jax.agents, name))
        + f"## Presets\n\n```sh\n{commands}```\n\n"
        + "".join(markdown.folded(f"What {x} changes", _changes(x)) for x in own)
        + "\n## Settings\n\nThose of a run are on [their own page](run.md).\n\n"
        + _settings(config(), "")
    )


def _changes(name: str) -> str:
    """Tabulate where a preset differs from the defaults of its agent."""
    from memrl_jax.settings import named

    plain = named(Config(agent=AGENTS[agent_name(presets[name])][0]()))
    changed = {k: x for k, x in named(presets[name]).items() if x != plain[k]}
    return markdown.table(("setting", "value"), ((f"`{k}`", f"`{x}`") for k, x in changed.items()))


def _settings(settings: Settings, title: str) -> str:
    """Tabulate settings, then those of the parts nested in them."""
    told, parts = helps(type(settings)), []
    rows = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, Settings) and field.name != "agent":
            parts.append((value, told[field.name]))
        elif field.name != "agent":
            shown = f"`{value!r}`" if value != "" else ""
            rows.append((f"`{field.name}`", shown, told[field.name].replace("|", r"\|")))
    text = f"### {title}\n\n" if title else ""
    text += markdown.table(("setting", "default", "what it does"), rows) if rows else ""
    return text + "".join(_settings(part, about.rstrip(".")) for part, about in parts)


def helps(cls: type) -> dict[str, str]:
    """Return the help text of every field: the string below it."""
    return dict(_strings(cls))


def _strings(cls: type) -> Iterator[tuple[str, str]]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    (described,) = tree.body
    for field, below in pairwise(described.body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            text = ast.literal_eval(below.value)
            yield ast.unparse(field.target), " ".join(text.split())
