"""What a result of this project is: a study that runs, and its findings."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console, RenderableType


class Claim(NamedTuple):
    """Something a result should show."""

    text: str
    figure: str
    reached: bool


class Findings(NamedTuple):
    """The outcome of a study, which also leaves a picture, `curves.png`, in its folder."""

    title: str
    claims: list[Claim]  # empty if it was run in its short form
    figures: Mapping[str, Any]  # JSON: everything that was measured, and with which seeds
    minutes: float  # of computing
    configs: Mapping[str, Any]  # JSON
    table: RenderableType  # for the console


Study = Callable[[Console, Path, bool], Findings]  # console, folder, whether in its short form
