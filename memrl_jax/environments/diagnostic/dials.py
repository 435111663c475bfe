"""Settings that may be traced, so that one compiled program covers many of them."""

from typing import Any

import jax

from memrl_jax import checks


def bound(field: str, value: Any, limit: str, most: int | None) -> int:
    """Return the largest value that a setting may have: `most`, or its own if that is None.

    Raises ValueError if the setting is a number outside 1 .. `most`, or is traced while `most`, the
    option named `limit`, is None.
    """
    high = checks.INT32 if most is None else checks.positive(limit, most)
    if not isinstance(value, jax.Array):
        checks.positive(field, value, high)
        return value if most is None else most
    if most is None:
        raise ValueError(f"{limit}: None; it has to limit {field}, which is an array")
    return most
