"""What type hints mean: which values fit, and what is said of those that do not."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.checks import fields, options, typed
from memrl_jax.kinds import Seed, Steps, fault, hints, shown

SIZE = np.int64(10)


class Named(Protocol):
    """Something with a name."""

    name: str


class Pair(NamedTuple):
    """A part."""

    size: int = 1
    rate: float | None = None


@pytest.mark.parametrize(
    "hint, value",
    [
        (int, 3),
        (int, SIZE),
        (int, -(2**31)),
        (Steps, 2**53),
        (Seed, 2**32 - 1),
        (float, 3),
        (float, SIZE),
        (float, float("inf")),
        (float, np.float32(0.5)),
        (float, jnp.float32(0.5)),
        (float, np.array(0.5)),
        (bool, False),
        (bool, np.bool_(True)),
        (str, ""),
        (Path, Path()),
        (str | Path | None, None),
        (int | None, None),
        (Steps | None, 2**40),
        (tuple[int, ...], ()),
        (tuple[int, ...], (1, SIZE)),
        (tuple[int, ...], [1, 2]),
        (tuple[float, float], (1, 2.5)),
        (Sequence[int], range(3)),
        (Sequence, ["xy"]),
        (Mapping[str, Any], {}),
        (dict[str, int], {"x": 1}),
        (Literal["a", "b"], "b"),
        (Callable[[int], int], len),
        (jax.Array, jnp.ones(2)),
        (float | jax.Array | Callable[..., Any], jnp.ones(2)),
        (Annotated[str, "of a colour"], "red"),
        (Pair, Pair()),
        (Named, 3),
        (Any, Ellipsis),
        ("a name that is not to be had", 3),
    ],
    ids=str,
)
def test_values_that_fit(hint: Any, value: Any) -> None:
    assert fault(value, hint) is None


@pytest.mark.parametrize(
    "hint, value, part, problem",
    [
        (int, 2.0, 2.0, "not a whole number"),
        (int, True, True, "not a whole number"),
        (int, 2**31, 2**31, "above 2147483647"),
        (int, -(2**31) - 1, -(2**31) - 1, "below -2147483648"),
        (int | None, 2**31, 2**31, "above 2147483647"),
        (Steps, 2**53 + 1, 2**53 + 1, "above 9007199254740992"),
        (float, True, True, "not a number"),
        (float, "1", "1", "not a number"),
        (float, 1j, 1j, "not a number"),
        (float, np.complex64(1), np.complex64(1), "not a number"),
        (float, 10**400, 10**400, "beyond float32"),
        (float, -1e39, -1e39, "beyond float32"),
        (float | None, "1", "1", "not a number or None"),
        (str | Path | None, 1, 1, "not a text, a Path or None"),
        (bool, 1, 1, "not True or False"),
        (tuple[int, ...], 8, 8, "not a sequence, each a whole number"),
        (tuple[int, ...], "xy", "xy", "not a sequence, each a whole number"),
        (tuple[int, ...], (8, "x"), "x", "not a whole number"),
        (tuple[int, int], (8,), (8,), "not a sequence of 2"),
        (tuple[tuple[int, ...], ...], ((8,), (2.5,)), 2.5, "not a whole number"),
        (Mapping[str, int], [], [], "not a mapping"),
        (Literal["left", "up"], "lef", "lef", "unknown; did you mean 'left'? (one of: left, up)"),
        (Callable[[int], int], 3, 3, "not a function"),
        (Pair, 3, 3, "not a Pair"),
    ],
    ids=str,
)
def test_what_does_not_fit(hint: Any, value: Any, part: Any, problem: str) -> None:
    assert fault(value, hint) == (part, problem)


def test_nan_and_arrays_are_no_numbers() -> None:
    for value in (float("nan"), np.float32("nan"), jnp.float32("nan"), np.ones(2), jnp.ones(1)):
        found = fault(value, float)
        assert found is not None and found.problem == "not a number"


def test_traced_numbers_fit_and_traced_arrays_do_not() -> None:
    def see(x: Any) -> Any:
        assert fault(x, float) is None and fault(x, float | None) is None
        assert fault(x[None], float) is not None and fault(x > 0, float) is not None
        return x

    jax.eval_shape(jax.vmap(see), jnp.ones(3))


def test_values_are_shown_in_one_short_line() -> None:
    for value in (np.ones((9, 9)), jnp.ones((2, 2)), {"a": "x" * 200}, "\n" * 100, 10**70):
        assert len(shown(value)) <= 80 and len(shown(value).splitlines()) == 1


def test_hints_that_cannot_be_read_are_none() -> None:
    def of_nothing(size: "nowhere_to_be_found" = 3) -> None:  # type: ignore[name-defined] # noqa: F821
        """Stand for a user's constructor."""

    assert hints(of_nothing) == {} == hints(3)
    options("args", of_nothing, {"size": "x"})


def test_fields_are_checked_by_their_names() -> None:
    fields(Pair(3, 0.5))
    with pytest.raises(ValueError, match=r"^rate: 'x' is not a number or None$"):
        fields(Pair(3, "x"))  # type: ignore[arg-type]


def test_arguments_are_checked_however_they_are_given() -> None:
    @typed
    def area(width: int, height: int = 1, **more: float) -> int:
        """Stand for a constructor."""
        return width * height

    assert area(2, 3) == area(height=3, width=2) == 6 and area.__doc__ == "Stand for a constructor."
    for call in (lambda: area("x"), lambda: area(width="x"), lambda: area("x", height=2)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"^width: 'x' is not a whole number$"):
            call()


def test_options_that_must_be_given() -> None:
    def area(width: int, height: int = 1) -> None:
        """Stand for a constructor."""

    options("args", area, {"width": 1})
    with pytest.raises(ValueError, match=r"^args: width is missing$"):
        options("args", area, {"height": 1})
    with pytest.raises(ValueError, match=r"^args: weight=1 is .* \(options: width, height=1\)$"):
        options("args", area, {"weight": 1})
