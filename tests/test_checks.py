"""Checks of what a user wrote: what passes, and what each refusal says."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax import checks
from memrl_jax.memory import none


def raises(message: str) -> Any:
    return pytest.raises(ValueError, match=f"^{message}$")


@pytest.mark.parametrize(
    "name, hint",
    [("lstn", "did you mean 'lstm'[?] "), ("GRU", ""), ("xyzzy", ""), (3, "")],
)
def test_unknown_names_are_refused_with_a_suggestion(name: Any, hint: str) -> None:
    with raises(rf"memory: {name!r} is unknown; {hint}\(one of: none, gru, lstm\)"):
        checks.known("memory", name, ["none", "gru", "lstm"])


def test_known_names_are_returned() -> None:
    assert checks.known("memory", "gru", {"none": 0, "gru": 1}) == "gru"


def cell(features: int = 64, rate: float = 0.5, name: str = "x") -> None:
    """Stand for a constructor."""


@pytest.mark.parametrize(
    "given, message",
    [
        (
            {"feature": 8},
            r"args: feature=8 is unknown; did you mean 'features'\? "
            r"\(options: features=64, rate=0.5, name='x'\)",
        ),
        ({"zz": 1}, r"args: zz=1 is unknown; \(options: features=64, rate=0.5, name='x'\)"),
        ({"features": 8.0}, "args: features=8.0 is not a whole number"),
        ({"features": True}, "args: features=True is not a whole number"),
        ({"rate": "1"}, "args: rate='1' is not a number"),
        ({"features": 2**31}, "args: features=2147483648 is above 2147483647"),
        ({"rate": 1, "name": None}, "args: name=None is not a text"),
    ],
    ids=str,
)
def test_unknown_options_are_refused_with_the_valid_ones(given: Any, message: str) -> None:
    with raises(message):
        checks.options("args", cell, given)


def test_options_of_a_constructor_without_any() -> None:
    checks.options("args", none, {})
    with raises(r"args: size=1 is unknown; \(options: none\)"):
        checks.options("args", none, {"size": 1})


def test_good_options_pass() -> None:
    checks.options("args", cell, {"features": 8, "rate": 1, "name": "y"})
    checks.options("args", cell, {"rate": 0.25})


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), jnp.float32(1)])
def test_numbers_within_are_returned(value: Any) -> None:
    assert checks.within("discount", value, 0, 1) is value


@pytest.mark.parametrize(
    "value, shown",
    [(-0.1, "-0.1"), (1.5, "1.5"), (2, "2"), (float("nan"), "nan"), (np.float32(3), "3.0")],
)
def test_numbers_outside_are_refused(value: Any, shown: str) -> None:
    with raises(f"discount: {shown} is not between 0 and 1"):
        checks.within("discount", value, 0, 1)


@pytest.mark.parametrize("value", ["0.5", None, [0.5]], ids=str)
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^discount: .* is not a number$"):
        checks.within("discount", value, 0, 1)


def test_traced_numbers_are_taken_as_they_are() -> None:
    values = jax.jit(jax.vmap(lambda x: checks.within("discount", x, 0, 1)))(jnp.arange(3.0))
    np.testing.assert_array_equal(values, [0, 1, 2])


def test_divides() -> None:
    assert checks.divides("capacity", 12, "period", 4) == 3
    with raises("capacity: 13 is not a multiple of period = 4"):
        checks.divides("capacity", 13, "period", 4)


@pytest.mark.parametrize("value, low", [(3, 3), (7, 3), (0, 0), (-2, -2)])
def test_at_least_returns_the_value(value: int, low: int) -> None:
    assert checks.at_least("size", value, low) == value


@pytest.mark.parametrize("value", [np.int64(7), np.uint8(7)], ids=repr)
def test_whole_numbers_of_numpy_are_whole(value: Any) -> None:
    assert type(checks.positive("size", value)) is int


def test_beyond_int32_is_refused_unless_more_is_allowed() -> None:
    with raises("size: 2147483648 is above 2147483647"):
        checks.positive("size", 2**31)
    assert checks.positive("size", 2**31, high=2**40) == 2**31


@pytest.mark.parametrize("value", [1e-9, 1, np.float32(2), jnp.float32(3)], ids=repr)
def test_numbers_above_are_returned(value: Any) -> None:
    assert checks.above("rate", value, 0) is value


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), np.float32(-2)], ids=repr)
def test_numbers_not_above_are_refused(value: Any) -> None:
    with raises(f"rate: {value} is not a finite number above 0"):
        checks.above("rate", value, 0)


@pytest.mark.parametrize("value", [True, False, 3.0, 2.5, "3", None, np.float32(3)], ids=str)
def test_only_whole_numbers_are_whole(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^size: .* is not a whole number$"):
        checks.at_least("size", value, 0)


def test_too_small_is_refused() -> None:
    with raises("size: 2 is below 3"):
        checks.at_least("size", 2, 3)
    with raises("size: 0 is below 1"):
        checks.positive("size", 0)
    assert checks.positive("size", 1) == 1
