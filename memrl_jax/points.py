"""Points of a sweep: which settings vary, their values, and which points share a program."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np

from memrl_jax import checks
from memrl_jax.config import Config
from memrl_jax.settings import named, traced

Point = Mapping[str, Any]  # setting -> value; an option of a mapping is named field.option


class Range(NamedTuple):
    """Values to be drawn at random."""

    low: float
    high: float
    logarithmic: bool

    def draw(self, random: np.random.Generator) -> float:
        """Draw a value, uniformly, or uniformly in its logarithm."""
        if self.logarithmic:
            return math.exp(random.uniform(math.log(self.low), math.log(self.high)))
        return random.uniform(self.low, self.high)


Vary = Mapping[str, Sequence[Any] | Range]


class Group(NamedTuple):
    """Points that differ in floats alone: one program has them all, side by side."""

    config: Config
    fixed: Point  # how the config differs from that of other groups
    varied: dict[str, list[float]]  # [P] each
    numbers: list[int]  # of the points


def values(field: str, text: str) -> list[Any] | Range:
    """Read values, as in `1e-4,3e-4`, `gru,lru` or `[64],[64,64]`, or a range.

    That is `uniform:LOW..HIGH` or `log:LOW..HIGH`. Raises ValueError for what is neither.
    """
    kind, colon, bounds = text.partition(":")
    if colon and kind in ("log", "uniform"):
        return _range(field, kind, bounds)
    return [_value(word) for word in _split(text)]


def _range(field: str, kind: str, bounds: str) -> Range:
    try:
        low, high = (float(x) for x in bounds.split(".."))
    except ValueError:
        raise ValueError(f"{field}: {kind}:{bounds} is not {kind}:LOW..HIGH") from None
    if not low < high or (kind == "log" and low <= 0):
        raise ValueError(
            f"{field}: {kind}:{bounds} does not ascend{' from above 0' * (kind == 'log')}"
        )
    return Range(low, high, kind == "log")


def _split(text: str) -> list[str]:
    """Split at commas outside of brackets."""
    words, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and not depth:
            words.append("")
        else:
            words[-1] += letter
    return words


def _value(word: str) -> Any:
    if word in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[word]
    for read in (json.loads, float):
        try:
            return read(word)
        except ValueError:
            continue
    return word


def grid(vary: Vary, draws: int = 1, seed: int = 0) -> list[dict[str, Any]]:
    """Return all points: every combination of the listed values, with ranges drawn `draws` times.

    Ranges are drawn anew for every point. Raises ValueError as `check` does, and for `draws`
    without a range.
    """
    checks.positive("draws", draws)
    check(vary)
    lists = {name: [*x] for name, x in vary.items() if not isinstance(x, Range)}
    ranges = {name: x for name, x in vary.items() if isinstance(x, Range)}
    if draws > 1 and not ranges:
        raise ValueError(f"draws: {draws} are more than 1, but no setting has a range to draw from")
    random = np.random.default_rng(seed)
    combined = [dict(zip(lists, x, strict=True)) for x in itertools.product(*lists.values())]
    points = []
    for _ in range(draws):
        for point in combined:
            drawn = {name: x.draw(random) for name, x in ranges.items()}
            points.append({name: (point | drawn)[name] for name in vary})
    return points


def check(vary: Vary) -> None:
    """Raise ValueError where nothing varies, for a setting without values or with one twice."""
    if not vary:
        raise ValueError("vary: name at least one setting")
    for name, x in vary.items():
        values = [] if isinstance(x, Range) else [*x]
        if not (isinstance(x, Range) or values):
            raise ValueError(f"vary: {name} has no values")
        for i, value in enumerate(values):
            if value in values[:i]:
                raise ValueError(f"vary: {name} has {checks.shown(value)} twice")


def corners(vary: Vary) -> list[dict[str, Any]]:
    """Return a few points that have, together, every value and both ends of every range."""
    ends = {name: [x.low, x.high] if isinstance(x, Range) else [*x] for name, x in vary.items()}
    count = max(map(len, ends.values()))
    return [{name: x[i % len(x)] for name, x in ends.items()} for i in range(count)]


def at(config: Config, point: Point) -> Config:
    """Return the config at a point; raises ValueError for names that there are not."""
    for name, value in point.items():
        field, dot, option = name.partition(".")
        if dot:
            config = config.replace(**{field: {**_options(config, field), option: value}})
        else:
            config = config.replace(**{field: value})
    return config


def _options(config: Config, field: str) -> Mapping[str, Any]:
    everything = {f.name: getattr(config, f.name) for f in fields(config)} | named(config)
    given = everything[checks.known("vary", field, everything)]
    if not isinstance(given, Mapping):
        raise ValueError(f"vary: {field} = {checks.shown(given)} has no options")
    return given


def groups(config: Config, points: Sequence[Point]) -> list[Group]:
    """Group the points that can share a program, in the order of their first ones."""
    found: dict[str, Group] = {}
    for number, point in enumerate(points):
        free = {*traced(at(config, point))}
        floats = {k: float(x) for k, x in point.items() if k in free and checks.is_real(x)}
        fixed = {k: x for k, x in point.items() if k not in floats}
        key = json.dumps([fixed, sorted(floats)], sort_keys=True)
        group = found.setdefault(key, Group(at(config, point), fixed, {k: [] for k in floats}, []))
        group.numbers.append(number)
        for name, value in floats.items():
            group.varied[name].append(value)
    return [*found.values()]


def flattened(given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name the entries of nested mappings as options are named, field.option."""
    out: dict[str, Any] = {}
    for name, x in given.items():
        nested = isinstance(x, Mapping)
        out |= flattened(x, f"{prefix}{name}.") if nested else {prefix + name: x}
    return out


def told(point: Point) -> str:
    """Write a point in one line."""
    return ", ".join(f"{name}={_short(x)}" for name, x in point.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
