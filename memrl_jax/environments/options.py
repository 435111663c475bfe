"""Options of environments, which are fields of their parameters, checked against the defaults."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax.kinds import FLOAT32, INT32


def fields(params: Any) -> dict[str, Any]:
    """Return parameters by name."""
    if isinstance(params, Mapping):
        return dict(params)
    if hasattr(params, "_asdict"):
        return params._asdict()
    if not dataclasses.is_dataclass(params):
        return {}
    return {f.name: getattr(params, f.name) for f in dataclasses.fields(params)}


def replaced(params: Any, options: dict[str, Any], size: bool) -> Any:
    """Replace some of the parameters by `options`, each checked by `like`."""
    defaults = fields(params)
    container: Any = type(params)
    values = {name: like(name, value, defaults[name], size) for name, value in options.items()}
    if isinstance(params, Mapping):
        return container({**params, **values})
    if hasattr(params, "_replace"):
        return params._replace(**values)
    return dataclasses.replace(params, **values)


def like(name: str, value: Any, default: Any, size: bool = False) -> Any:
    """Return `value` as an option of the same type as its `default`.

    Raises ValueError unless it is one: true or false; an integer within int32, for a `size` at
    least 1, or 0 if that is the default, unless the default is negative; a number that is finite
    in float32; text; or a sequence or an array of these. Arrays without axes count as numbers,
    traced values are not checked, and a default of None, or of any other type, permits any value.
    """
    if isinstance(value, jax.core.Tracer):
        return value
    if isinstance(default, tuple | list):
        return _sequence(name, value, default)
    if isinstance(default, np.ndarray | jax.Array):
        return _array(name, value, default)
    fits, what = _fits(value, default, size)
    if not fits:
        given = " ".join(repr(value).split())
        raise ValueError(f"environment_args: {name}={given} is not {what}, like {default!r}")
    return float(value) if isinstance(default, float) and isinstance(value, int) else value


def _fits(value: Any, default: Any, size: bool) -> tuple[bool, str]:
    """Tell whether `value` has the type of `default`, and name that type."""
    if isinstance(default, bool):
        return _kind(value) == "b", "true or false"
    if isinstance(default, int):
        least = min(default, 1) if size and default >= 0 else -INT32 - 1
        whole = _kind(value) in ("i", "u") and least <= value <= INT32
        return bool(whole), f"a whole number from {least} to {INT32}"
    if isinstance(default, float):
        return _finite(value), "a number that float32 holds"
    if isinstance(default, str):
        return isinstance(value, str), "text"
    return True, ""


def _kind(value: Any) -> str:
    """Return NumPy's `dtype.kind` of a number; "" for anything else."""
    if isinstance(value, int | float):
        return "b" if isinstance(value, bool) else "if"[isinstance(value, float)]
    numeric = isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0
    return np.asarray(value).dtype.kind if numeric else ""


def _finite(value: Any) -> bool:
    return _kind(value) in ("i", "u", "f") and -FLOAT32 <= value <= FLOAT32


def _sequence(name: str, value: Any, default: tuple[Any, ...] | list[Any]) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise ValueError(f"environment_args: {name}={value!r} is not a sequence, like {default!r}")
    return tuple(like(f"{name}[{i}]", x, default[0]) if default else x for i, x in enumerate(value))


def _array(name: str, value: Any, default: np.ndarray | jax.Array) -> jax.Array:
    numbers = np.asarray(value) if not isinstance(value, str) else np.array(None)
    alike = numbers.ndim == default.ndim and numbers.dtype.kind in "biuf"
    if not alike or not all(_finite(x) for x in numbers.astype(float).ravel()):
        listed = np.asarray(default).tolist()
        raise ValueError(
            f"environment_args: {name}={value!r} are not finite numbers, like {listed}"
        )
    return jnp.asarray(value, default.dtype)
