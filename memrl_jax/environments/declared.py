"""Checks of pytrees against spaces and against each other, and error messages of one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import checks
from memrl_jax.spaces import Continuous, Discrete, is_part


def check_agree(name: str, field: str, first: Any, after: Any, widened: bool = False) -> None:
    """Raise ValueError unless `first`, from `reset`, matches `after`, from `step`.

    They must agree in structure, shapes and dtypes; with `widened`, a dtype of `reset` may be
    narrower.
    """
    before, later = named(first), named(after)
    for path in before | later:
        x, y = before.get(path), later.get(path)
        if (
            x is None
            or y is None
            or not (dtype_and_shape(x) == dtype_and_shape(y) or (widened and _widens(x, y)))
        ):
            given, then = ("nothing" if leaf is None else dtype_and_shape(leaf) for leaf in (x, y))
            where = f"{field}{path}".lstrip(".")
            raise ValueError(f"{name}: {where}: reset gives {given} and step gives {then}")
    given, then = jax.tree.structure(first), jax.tree.structure(after)
    if given != then:
        raise ValueError(f"{name}: {field}: reset arranges it as {given} and step as {then}")


def _widens(x: Any, y: Any) -> bool:
    """Tell whether `x` has the shape of `y` and a dtype that can be cast to that of `y`."""
    if x.shape != y.shape or any(jnp.issubdtype(z.dtype, jax.dtypes.extended) for z in (x, y)):
        return False
    if x.weak_type and not jnp.issubdtype(x.dtype, jnp.floating):
        return True  # a Python int
    return jnp.promote_types(x.dtype, y.dtype) == y.dtype


def check_declared(field: str, spaces: Any, x: Any) -> None:
    """Raise ValueError unless `spaces` match `x` in arrangement, shapes and dtypes."""
    told, seen = named(spaces), named(x)
    for path in told | seen:
        if path not in seen:
            raise ValueError(f"{field}{path}: {told[path]} is declared and nothing is given")
        if path not in told:
            raise ValueError(
                f"{field}{path}: {dtype_and_shape(seen[path])} is given and nothing is declared"
            )
        check_space(f"{field}{path}", told[path])
        _suits(f"{field}{path}", told[path], seen[path])


def check_space(field: str, given: Any) -> None:
    """Raise ValueError for what is not a space, for an empty space and for invalid bounds."""
    if not named(given):
        raise ValueError(f"{field}: {given!r} has no part")
    for path, part in named(given).items():
        _space(f"{field}{path}", part)


def check_actions(field: str, given: Any) -> None:
    """Raise ValueError as `check_space` does, and for discrete parts with a shape."""
    check_space(field, given)
    for path, part in named(given).items():
        if isinstance(part, Discrete) and part.shape:
            raise ValueError(f"{field}{path}: {part} has a shape; several actions are a tuple")


def _space(field: str, given: Any) -> None:
    if isinstance(given, Discrete):
        for name, size in [("n", given.n), *(("shape", size) for size in given.shape)]:
            checks.positive(f"{field}: {name}", size)
        return
    if not isinstance(given, Continuous):
        raise ValueError(f"{field}: {given!r} is neither Discrete nor Continuous")
    dtype = jnp.dtype(given.dtype)
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating)):
        raise ValueError(f"{field}: {dtype} is none of the dtypes of real numbers")
    bounds = {"low": given.low, "high": given.high}
    for side, bound in bounds.items():
        with blamed(f"{field}: {side}"):
            np.broadcast_to(np.empty(np.shape(bound)), given.shape)
    if any(isinstance(bound, jax.core.Tracer) for bound in bounds.values()):
        return
    with blamed(f"{field}: low, high"):
        ordered = np.all(np.asarray(given.low) <= np.asarray(given.high))
    if not ordered:
        raise ValueError(f"{field}: low = {given.low} is not at most high = {given.high}")


def _suits(field: str, given: Discrete | Continuous, x: Any) -> None:
    if isinstance(given, Discrete):
        whole = x.dtype == bool or jnp.issubdtype(x.dtype, jnp.integer)
        if x.shape != given.shape or not whole:
            axes = f"integers {[*given.shape]}" if given.shape else "an integer without axes"
            raise ValueError(f"{field} is {dtype_and_shape(x)}, and {given} {axes}")
    elif dtype_and_shape(x) != dtype_and_shape(given):
        raise ValueError(
            f"{field} is {dtype_and_shape(x)}, and declared as {dtype_and_shape(given)}"
        )


@contextmanager
def blamed(what: str) -> Iterator[None]:
    """Turn an error into a one-line ValueError that begins with `what`, unless it already is."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(what):
            raise
        raise ValueError(f"{what} raised {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """Describe an error by its type and the first line of its message."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}{': ' * bool(said)}{said}"


def named(x: Any) -> dict[str, Any]:
    """Return the leaves of a pytree, or the parts of a space, by their path."""
    leaves = jax.tree_util.tree_leaves_with_path(x, is_leaf=is_part)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def dtype_and_shape(x: Any) -> str:
    """Format dtype and shape, e.g. float32[2, 3]."""
    return f"{jnp.dtype(x.dtype) if isinstance(x, Continuous) else x.dtype}{[*x.shape]}"
