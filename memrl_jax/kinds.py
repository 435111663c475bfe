"""Values checked against type hints: which part of a value does not fit, and why."""

import difflib
import functools
import inspect
import itertools
import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np

INT32 = 2**31 - 1  # the largest int32
FLOAT32 = float(np.finfo(np.float32).max)
# Hints of integers that may exceed int32, with their upper limits.
Steps = Annotated[int, 2**53]
Seed = Annotated[int, 2**32 - 1]


class Fault(NamedTuple):
    """A value, or the part of it, that does not fit its type hint, and why."""

    value: Any
    problem: str  # completes "<value> is"


def fault(value: Any, hint: Any) -> Fault | None:
    """Return the part of `value` that does not fit a type hint, or None; unknown hints fit all."""
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if origin is Annotated:
        return _of_whole(value, arguments[1]) if arguments[0] is int else fault(value, arguments[0])
    if origin in (Union, types.UnionType):
        return _of_union(value, [fault(value, x) for x in arguments])
    if origin is Literal:
        fits = isinstance(value, str) and value in arguments
        return None if fits else Fault(value, unknown(value, arguments))
    if origin in (tuple, list, Sequence):
        return _of_sequence(value, origin, arguments)
    if origin is int:
        return _of_whole(value, INT32)
    if origin is float:
        return _of_number(value)
    return None if _is_one(value, origin) else Fault(value, f"not {_name(origin)}")


def hints(of: Any) -> dict[str, Any]:
    """Return the type hints of a function's or class's parameters; {} if they cannot be read."""
    while isinstance(of, functools.partial):
        of = of.func
    try:
        own = get_type_hints(of.__init__, include_extras=True) if inspect.isclass(of) else {}
        found = get_type_hints(of, include_extras=True) | own
    except (NameError, TypeError):  # a name in them cannot be resolved, or `of` cannot have any
        return {}
    return {name: hint for name, hint in found.items() if name != "return"}


def unknown(name: Any, names: Iterable[Any]) -> str:
    """Describe `name` as unknown, with the most similar of `names`, and all of them."""
    names = [str(x) for x in names]
    return f"unknown; {nearest(name, names)}(one of: {', '.join(names)})"


def nearest(name: Any, names: Iterable[str]) -> str:
    """Suggest the most similar of `names`, as a question, if one is similar."""
    near = difflib.get_close_matches(str(name), list(names), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}? " if near else ""


def shown(value: Any) -> str:
    """Format a value in one line of at most 80 characters."""
    text = " ".join((str if hasattr(value, "dtype") else repr)(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_whole(value: Any) -> bool:
    """Tell whether `value` is an integer of Python or NumPy; booleans are not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    """Tell whether `value` is a real number or an array of them; booleans are not."""
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return any(jnp.issubdtype(value.dtype, x) for x in (np.integer, np.floating))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _of_union(value: Any, found: list[Fault | None]) -> Fault | None:
    faults = [x for x in found if x is not None]
    if len(faults) < len(found):
        return None
    # A fault of the right type but out of range says more than one of the wrong type.
    close = [x for x in faults if not x.problem.startswith("not ")]
    *kinds, last = [x.problem.removeprefix("not ") for x in faults]
    return close[0] if close else Fault(value, f"not {', '.join(kinds)} or {last}")


def _of_sequence(value: Any, origin: Any, kinds: tuple[Any, ...]) -> Fault | None:
    """Check a sequence, also a list for a tuple; `kinds` are the hints of its items."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return Fault(value, f"not a sequence{f', each {_name(kinds[0])}' if kinds else ''}")
    if origin is tuple and kinds and Ellipsis not in kinds:
        if len(value) != len(kinds):
            return Fault(value, f"not a sequence of {len(kinds)}")
    else:
        kinds = tuple(itertools.repeat(kinds[0] if kinds else Any, len(value)))
    return next(filter(None, map(fault, value, kinds)), None)


def _of_whole(value: Any, high: int) -> Fault | None:
    if not is_whole(value):
        return Fault(value, "not a whole number")
    if not -high - 1 <= value <= high:
        return Fault(value, f"above {high}" if value > 0 else f"below {-high - 1}")
    return None


def _of_number(value: Any) -> Fault | None:
    """Accept scalars, traced or infinite ones too, but no finite one that float32 cannot hold."""
    if not is_real(value) or np.ndim(value):
        return Fault(value, "not a number")
    if isinstance(value, jax.core.Tracer):
        return None
    number = value if isinstance(value, int | float) else np.asarray(value).item()
    if number != number:
        return Fault(value, "not a number")
    finite = number not in (math.inf, -math.inf)
    return Fault(value, "beyond float32") if finite and abs(number) > FLOAT32 else None


def _is_one(value: Any, cls: Any) -> bool:
    if cls in (bool, dict, Mapping):
        return isinstance(value, (bool, np.bool_) if cls is bool else Mapping)
    if cls is Any or not isinstance(cls, type) or getattr(cls, "_is_protocol", False):
        return True
    return isinstance(value, cls)


def _name(hint: Any) -> str:
    names: dict[Any, str] = {int: "a whole number", float: "a number", bool: "True or False"}
    names |= {str: "a text", type(None): "None", jax.Array: "an array", Callable: "a function"}
    names |= {dict: "a mapping", Mapping: "a mapping"}
    return names.get(hint) or f"a {getattr(hint, '__name__', hint)}"
