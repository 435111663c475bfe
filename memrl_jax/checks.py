"""Checks of what a user wrote; each raises ValueError with one line that names the field."""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

INT32 = 2**31 - 1  # the largest int32


def positive(field: str, value: Any, high: int = INT32) -> int:
    """Return `value` if it is a whole number from 1 to `high`."""
    return at_least(field, value, 1, high)


def at_least(field: str, value: Any, low: int, high: int = INT32) -> int:
    """Return `value` if it is a whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"{field}: {value!r} is not a whole number")
    if value < low:
        raise ValueError(f"{field}: {value} is below {low}")
    if value > high:
        raise ValueError(f"{field}: {value} is above {high}")
    return int(value)


def divides(field: str, value: int, by_field: str, by: int) -> int:
    """Return `value // by` if `by` divides `value`."""
    if value % by:
        raise ValueError(f"{field}: {value} is not a multiple of {by_field} = {by}")
    return value // by


def within(field: str, value: Any, low: float, high: float) -> Any:
    """Return `value` if all of it lies in [low, high]; traced values are not looked at."""
    if isinstance(value, jax.core.Tracer):
        return value
    if isinstance(value, bool) or not isinstance(
        value, int | float | np.number | np.ndarray | jax.Array
    ):
        raise ValueError(f"{field}: {value!r} is not a number")
    if not np.all((low <= value) & (value <= high)):
        raise ValueError(f"{field}: {value} is not between {low:g} and {high:g}")
    return value


def known(field: str, name: str, names: Iterable[str]) -> str:
    """Return `name` if it is one of `names`; otherwise suggest the nearest."""
    names = list(names)
    if name in names:
        return name
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"{field}: {name!r} is unknown; {hint}(one of: {', '.join(names)})")


def above(field: str, value: Any, low: float) -> Any:
    """Return `value` if all of it is finite and above `low`; traced values are not looked at."""
    within(field, value, -math.inf, math.inf)
    if not isinstance(value, jax.core.Tracer) and not np.all((low < value) & (value < math.inf)):
        raise ValueError(f"{field}: {value} is not a finite number above {low:g}")
    return value


def options(field: str, constructor: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Check the names and types of `given` against the constructor's signature and defaults.

    A default of None tells no type.
    """
    parameters = inspect.signature(constructor).parameters
    for name, value in given.items():
        if name not in parameters:
            valid = ", ".join(f"{p.name}={p.default!r}" for p in parameters.values()) or "none"
            near = difflib.get_close_matches(name, list(parameters), n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"{field}: {name}={value!r} is unknown; {hint}(options: {valid})")
        default = parameters[name].default
        pair = (type(default), type(value))
        if default is not None and pair[0] is not pair[1] and pair != (float, int):
            kind = type(default).__name__
            raise ValueError(f"{field}: {name}={value!r} is not of type {kind} like {default!r}")
