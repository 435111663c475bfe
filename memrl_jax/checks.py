"""Checks of user input; each raises ValueError with one line that names the field.

The type of a field is declared once, by its type hint; `kind` says what each hint accepts.
"""

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

from memrl_jax.kinds import (
    INT32,
    Seed,
    Steps,
    fault,
    hints,
    is_real,
    is_whole,
    nearest,
    shown,
    unknown,
)

__all__ = ["INT32", "UNROLLED", "Seed", "Steps", "nearest", "shown"]
__all__ += ["above", "at_least", "divides", "known", "positive", "widths", "within"]
__all__ += ["fields", "kind", "options", "typed"]

UNROLLED = 1000  # the most parts that a Python loop makes and traces

P = ParamSpec("P")
T = TypeVar("T")


def positive(field: str, value: Any, high: int = INT32) -> int:
    """Return `value` if it is a whole number from 1 to `high`."""
    return at_least(field, value, 1, high)


def at_least(field: str, value: Any, low: int, high: int = INT32) -> int:
    """Return `value` if it is a whole number from `low` to `high`."""
    if not is_whole(value):
        raise ValueError(f"{field}: {shown(value)} is not a whole number")
    if value < low:
        raise ValueError(f"{field}: {value} is below {low}")
    if value > high:
        raise ValueError(f"{field}: {value} is above {high}")
    return int(value)


def widths(field: str, value: Iterable[Any]) -> None:
    """Check the widths of dense layers: whole numbers from 1."""
    for width in value:
        positive(field, width)


def divides(field: str, value: int, by_field: str, by: int) -> int:
    """Return `value // by` if `by` divides `value`."""
    if value % by:
        raise ValueError(f"{field}: {value} is not a multiple of {by_field} = {by}")
    return value // by


def within(field: str, value: Any, low: float, high: float) -> Any:
    """Return `value` [...] if all of it lies in [low, high]; traced values are not checked."""
    if isinstance(value, jax.core.Tracer):
        return value
    if not is_real(value):
        raise ValueError(f"{field}: {shown(value)} is not a number")
    if not np.all((low <= value) & (value <= high)):
        raise ValueError(f"{field}: {shown(value)} is not between {low:g} and {high:g}")
    return value


def above(field: str, value: Any, low: float) -> Any:
    """Return `value` [...] if it is finite and above `low`; traced values are not checked."""
    within(field, value, -math.inf, math.inf)
    if not isinstance(value, jax.core.Tracer) and not np.all((low < value) & (value < math.inf)):
        raise ValueError(f"{field}: {shown(value)} is not a finite number above {low:g}")
    return value


def known(field: str, name: str, names: Iterable[str]) -> str:
    """Return `name` if it is one of `names`; otherwise suggest the nearest."""
    names = list(names)
    if isinstance(name, str) and name in names:
        return name
    raise ValueError(f"{field}: {shown(name)} is {unknown(name, names)}")


def kind(field: str, value: Any, hint: Any) -> None:
    """Check that `value` fits a type hint.

    int accepts integers of Python and NumPy, not booleans, within int32 unless the hint allows more
    (`Steps`, `Seed`). float accepts scalars of Python, NumPy and JAX, traced ones too, but neither
    NaN nor what would become infinite in float32. A list is accepted for a tuple.
    """
    _judge(f"{field}: ", value, hint)


def fields(config: Any) -> None:
    """Check all fields of a dataclass or NamedTuple against their type hints."""
    for name, hint in hints(type(config)).items():
        if hasattr(config, name):
            kind(name, getattr(config, name), hint)


def options(field: str, constructor: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Check the names and values of `given` against a constructor's signature and type hints."""
    kind(field, given, Mapping)
    parameters = inspect.signature(constructor).parameters
    free = any(x.kind is x.VAR_KEYWORD for x in parameters.values())
    meant = hints(constructor)
    for name, value in given.items():
        if name not in parameters and not free:
            valid = ", ".join(map(_option, parameters.values())) or "none"
            near = nearest(name, parameters)
            raise ValueError(f"{field}: {name}={shown(value)} is unknown; {near}(options: {valid})")
        _judge(f"{field}: {name}=", value, meant.get(name, Any))
    for name, x in parameters.items():
        needed = x.default is x.empty and x.kind not in (x.VAR_KEYWORD, x.VAR_POSITIONAL)
        if needed and name not in given:
            raise ValueError(f"{field}: {name} is missing")


def typed(constructor: Callable[P, T]) -> Callable[P, T]:
    """Wrap a constructor so that it checks its arguments against their type hints."""

    @functools.wraps(constructor)
    def construct(*args: P.args, **kwargs: P.kwargs) -> T:
        meant = hints(constructor)
        for name, value in inspect.signature(constructor).bind(*args, **kwargs).arguments.items():
            kind(name, value, meant.get(name, Any))
        return constructor(*args, **kwargs)

    return construct


def _judge(before: str, value: Any, hint: Any) -> None:
    found = fault(value, hint)
    if found is not None:
        raise ValueError(f"{before}{shown(found.value)} is {found.problem}")


def _option(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return parameter.name
    return f"{parameter.name}={shown(parameter.default)}"
