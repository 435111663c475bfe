"""What the commands of `memrl` have in common: how their arguments are read."""

import collections.abc
import contextlib
import io
import json
import tempfile
import typing
from collections.abc import Mapping
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any

import tyro

from memrl_jax.config import Config
from memrl_jax.run import files

MISSING = tyro.MISSING_NONPROP
SEVERAL = "--view", "--track", "--vary"  # options that may be given several times


def parse(kind: Any, arguments: list[str], program: str, default: Any = MISSING) -> Any:
    """Parse arguments into a dataclass; raises ValueError, in one line, for invalid ones."""
    _check_once(arguments)
    for option in SEVERAL:
        arguments = _together(option, arguments)
    for option in ("--take", "--freeze"):
        arguments = _together(option, arguments, ",")
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_options_rule)
    prefixes = (tyro.conf.OmitArgPrefixes,)

    def read() -> Any:
        with registry:
            return tyro.cli(kind, prog=program, args=arguments, default=default, config=prefixes)

    said = io.StringIO()
    try:
        # Without a terminal, tyro writes plain text.
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return read()
    except SystemExit as stop:
        if stop.code:
            raise ValueError(_one_line(said.getvalue())) from None
    return read()  # prints the help, and exits


def _check_once(arguments: list[str]) -> None:
    """Raise ValueError for an option that is given more than once."""
    words = [x.partition("=")[0].replace("_", "-") for x in arguments if x.startswith("--")]
    for option in words:
        if words.count(option) > 1 and option not in ("--import", *SEVERAL):
            raise ValueError(f"{option}: given {words.count(option)} times")


def _together(option: str, arguments: list[str], separator: str | None = None) -> list[str]:
    """Gather the words of an option that may be given several times behind one, at the end.

    Words are split at the `separator`.
    """
    words: list[str] = []
    others: list[str] = []
    taking = others
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name == option:
            taking = words
            words += [value] * bool(equals)
            continue
        taking = others if argument.startswith("--") else taking
        taking.append(argument)
    if separator:
        words = [part for word in words for part in word.split(separator)]
    return [*others, option, *words] if words else arguments


def _one_line(text: str) -> str:
    """Extract the message, and the options it suggests, from the text that tyro writes."""
    lines = [line.strip() for line in text.splitlines()]
    blocks = [list(x) for rule, x in groupby(lines, lambda line: not line.strip("-")) if not rule]
    _title, message, *hints = blocks
    likely = ("Perhaps you meant", "Arguments similar to")
    near = [hint[1].split()[0] for hint in hints if hint[0].startswith(likely)]
    return " ".join(message) + (f"; did you mean {' and '.join(near)}?" if near else "")


def _options_rule(info: Any) -> Any:
    """Parse a mapping from `name=value` words, with numbers and booleans as such."""
    if typing.get_origin(info.type) is not collections.abc.Mapping:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=VALUE ...",
        instance_from_str=_options,
        is_instance=lambda x: isinstance(x, Mapping),
        str_from_instance=lambda x: [f"{name}={value}" for name, value in x.items()],
    )


def _options(words: list[str]) -> dict[str, Any]:
    pairs = [_option(word) for word in words]
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is given {names.count(name)} times")
    return dict(pairs)


def _option(word: str) -> tuple[str, Any]:
    name, equals, text = word.partition("=")
    if not (name and equals and text):
        raise ValueError(f"{word!r} is not name=value")
    try:
        return name, json.loads(text.lower() if text in ("True", "False") else text)
    except json.JSONDecodeError:
        return name, text


def modules(arguments: list[str]) -> list[str]:
    """Return the modules that follow `--import`."""
    pairs = zip(arguments, [*arguments[1:], None], strict=True)
    after = [follower for word, follower in pairs if word == "--import" and follower]
    return after + [x.partition("=")[2] for x in arguments if x.startswith("--import=")]


def fields_of(config: Config) -> dict[str, Any]:
    """Return the fields of a config, those that nest as they are."""
    return {f.name: getattr(config, f.name) for f in fields(config)}


def check_out(path: str, suffix: str) -> None:
    """Raise ValueError for a file that cannot be written, before the work on its contents.

    What processes that were killed while they wrote it left behind is removed.
    """
    out = Path(path)
    if out.suffix != suffix:
        raise ValueError(f"out: {path!r} does not end in {suffix}")
    try:
        if not out.parent.is_dir():
            raise ValueError(f"out: there is no folder {str(out.parent)!r}")
        if out.is_dir():
            raise ValueError(f"out: {path!r} is a folder")
        tempfile.TemporaryFile(dir=out.parent, prefix=f".{out.name}.").close()
        for left in out.parent.iterdir():
            if files.is_temporary(left, of=out.name):
                left.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(f"out: {path!r} cannot be written ({error.strerror})") from None
