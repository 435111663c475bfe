"""Where two records differ: one line that names the leaf, both values and the step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import checks
from memrl_jax.environments.declared import named

ROUNDING = 1e-5  # of the largest entry of a leaf


def same(
    what: str, ours: Any, theirs: Any, tolerance: float = ROUNDING, first: int | None = None
) -> None:
    """Raise ValueError, which begins with `what` and a path, unless two pytrees [...] agree.

    Leaf by leaf, entries may differ by `tolerance` of the largest one; 0 is bit for bit. NaN equals
    NaN. Arrays [T, ...] of which the steps are numbered from `first` on are told with the step.
    """
    others = named(theirs)
    for path, x in named(ours).items():
        x, y = _numbers(x), _numbers(others[path])
        odd = differ(x, y, tolerance)
        if odd.any():
            where = tuple(np.argwhere(odd)[0])
            told = f"{checks.shown(x[where])}, not {checks.shown(y[where])}"
            step = "" if first is None else f", at step {first + where[0]}"
            raise ValueError(f"{what}{path} is {told}{step}")


def finite(what: str, values: Any) -> None:
    """Raise ValueError, which begins with `what` and a path, unless a pytree [...] is finite."""
    for path, x in named(values).items():
        if not np.isfinite(x).all():
            raise ValueError(f"{what}{path} is not finite")


def differ(x: np.ndarray, y: np.ndarray, tolerance: float = 0) -> np.ndarray:
    """Tell which entries [...] differ: in any bit, or by `tolerance` of the largest entry."""
    if not (tolerance and jnp.issubdtype(y.dtype, jnp.inexact)):
        x, y = (np.array(z)[..., None].view(np.uint8) for z in (x, y))
        return np.any(x != y, axis=-1)
    scale = np.abs(y[np.isfinite(y)]).max(initial=1e-6)
    return ~np.isclose(x, y, rtol=0, atol=tolerance * scale, equal_nan=True)


def _numbers(x: Any) -> np.ndarray:
    is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)
