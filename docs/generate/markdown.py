"""Pieces of Markdown."""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table; cells are Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines) + "\n"


def folded(title: str, text: str) -> str:
    """Return what is shown once its title is clicked."""
    return f'??? note "{title}"\n\n{textwrap.indent(text, "    ")}\n'


def docstring(thing: Callable[..., Any]) -> str:
    """Return a docstring as Markdown; its last paragraph, the paper, stands by itself."""
    text = (inspect.getdoc(thing) or "").replace("*", r"\*")
    return re.sub(r"\n(?=[A-Z][^\n]*\((?:19|20)\d\d[a-z]?\))", "\n\n", text) + "\n\n"


def signature(name: str, thing: Callable[..., Any]) -> str:
    """Return the options of a constructor with their defaults, as a block of code."""
    given = inspect.signature(thing).parameters.values()
    shown = "\n".join(f"    {x.name}={x.default!r}," for x in given)
    return f"```text\n{name}({chr(10) + shown + chr(10) if shown else ''})\n```\n\n"
