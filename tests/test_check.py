"""What an environment declares, held against what it does: faults planted one by one."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memrl_jax
from memrl_jax.environments import ENVIRONMENTS, check, make
from memrl_jax.environments.check import QUICKLY, observed, play, traced
from memrl_jax.environments.declared import check_declared
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Environment, Spec, TimeStep

SPACES = {"at": Discrete(5), "speed": Continuous((2,), jnp.float32, -1, 1)}


def clock(observe: Any = lambda time: time, **fields: Any) -> Environment:
    """Count to 4 and begin again; `observe` and `fields` of the timesteps may do wrong."""

    def timestep(time: Any, action: Any, start: Any) -> TimeStep:
        observation = {"at": observe(time), "speed": jnp.zeros(2)}
        one = jnp.float32(1)
        good = TimeStep(observation, jnp.int32(action), one * time, one, start, time == 4)
        return good._replace(**{name: f(time) for name, f in fields.items()})

    def reset(key: Any) -> Any:
        return jnp.int32(0), timestep(jnp.int32(0), 0, jnp.bool_(True))

    def step(key: Any, time: Any, action: Any) -> Any:
        start = time == 4
        time = jnp.where(start, 0, time + 1)
        return time, timestep(time, action, start)

    return Environment(reset, step, Spec(SPACES, Discrete(3)), 4)


def clock_with(**fields: Any) -> Environment:
    """Make a clock with other fields, of its spec too."""
    env = clock()
    ours = {name: fields.pop(name) for name in Spec._fields if name in fields}
    return env._replace(spec=env.spec._replace(**ours))._replace(**fields)


def refuse(env: Any, message: str, judge: Any = traced) -> None:
    with pytest.raises(ValueError, match=message) as error:
        judge(env)
    assert "\n" not in str(error.value)


def test_an_environment_that_does_as_it_says_passes() -> None:
    check(clock(), jax.random.key(0), steps=9)


@cache
def happened() -> TimeStep:
    return jax.device_get(jax.jit(partial(play, clock(), steps=9), compiler_options=QUICKLY)(KEY))


KEY = jax.random.key(0)


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("reward", np.nan, "reward: nan at step 7 is not finite"),
        ("reward", np.inf, "reward: inf at step 7 is not finite"),
        ("discount", 0.5, "discount: 0.5 at step 7 is neither 0 nor 1"),
        ("start", True, "start: True at step 7 is not what `last` was before it"),
        ("at", 5, r"observation\['at'\]: 5 at step 7 is none of 0 .. 4"),
        ("at", -1, r"observation\['at'\]: -1 at step 7 is none of 0 .. 4"),
        ("speed", np.nan, r"observation\['speed'\]: nan at step 7 is not finite"),
    ],
)
def test_what_goes_wrong_later_is_told_with_its_step(field: str, value: Any, message: str) -> None:
    timestep = jax.tree.map(np.copy, happened())
    fields = timestep.observation if field in SPACES else timestep._asdict()
    fields[field][7] = value
    refuse(clock(), f"^environment: {message}$", lambda env: observed(env, timestep))
    observed(clock(), happened())


def test_integers_are_held_to_their_bounds_and_floats_are_not() -> None:
    spaces = {"at": Continuous((), jnp.int32, 0, [3]), "speed": SPACES["speed"]}
    timestep = jax.tree.map(np.copy, happened())
    timestep.observation["speed"][3] = 7
    observed(clock_with(observations={**spaces, "at": Discrete(5)}), timestep)
    env = clock_with(observations=spaces)
    refuse(env, r"'at'\]: 4 at step 4 is above its declared", lambda env: observed(env, timestep))


def test_a_check_plays_and_names_the_environment() -> None:
    env = clock(lambda time: time + 1)
    refuse(
        env,
        r"^environment: clock: observation\['at'\]: 5 at step 4 is none of 0 .. 4$",
        lambda env: check(env, KEY, steps=5, name="clock"),
    )


def raising(*_: Any) -> Any:
    raise KeyError("wall\nand more")


def changed(**after: Any) -> Environment:
    """Let `step` alone give other fields, or another state."""
    env = clock()

    def step(*args: Any) -> Any:
        state, timestep = env.step(*args)
        given = dict(after)
        return given.pop("state", state), timestep._replace(**given)

    return env._replace(step=step)


@pytest.mark.parametrize(
    "env, message",
    [
        (dict(), "dict is no Environment"),
        (clock_with(reset=raising), "reset raised KeyError: 'wall"),
        (clock_with(step=raising), "step raised KeyError: 'wall"),
        (clock_with(reset=lambda key: 3), "reset gives ShapeDtypeStruct, not a state"),
        (clock_with(step=lambda *_: (1, 2)), "step gives tuple, not a state and a TimeStep"),
        (changed(state=jnp.float32(0)), r"state: reset gives int32\[\] and step gives float32\[\]"),
        (changed(state={"a": jnp.int32(0)}), r"state.*: reset gives .* and step gives"),
        (changed(state=(jnp.int32(0),)), r"state.*: reset gives .* and step gives"),
        (changed(reward=jnp.ones(1)), r"reward: reset gives .* step gives float32\[1\]"),
        (changed(observation=jnp.ones(2)), r"observation.*: reset gives .* and step gives"),
        (clock(lambda time: time + 0.5), r"\['at'\] is float32\[\], and Discrete\(n=5\) an int"),
        (clock(lambda time: time[None]), r"\['at'\] is int32\[1\], and Discrete\(n=5\) an int"),
        (clock(reward=lambda time: time), r"reward is int32\[\], not float32\[\]"),
        (clock(start=lambda time: time), r"start is int32\[\], not bool\[\]"),
        (clock(action=lambda time: 1.0 * time), r"action is float32\[\], not int32\[\]"),
        (clock(observation=lambda time: SPACES), r"reset raised TypeError"),
        (clock_with(actions=Discrete(0)), "actions: n: 0 is below 1"),
        (clock_with(actions=3), "actions: 3 is neither Discrete nor Continuous"),
        (clock_with(horizon=0), "horizon: 0 is below 1"),
        (clock_with(observations={"at": Discrete(5)}), r"\['speed'\]: .* nothing is declared"),
        (clock_with(observations={**SPACES, "x": Discrete(2)}), r"\['x'\]: .*nothing is given"),
    ],
)  # fmt: skip
def test_disagreement_is_refused_in_one_line(env: Any, message: str) -> None:
    refuse(env, f"^environment: .*{message}")


@pytest.mark.parametrize(
    "space, message",
    [
        (Discrete(0), "observation: n: 0 is below 1"),
        (Discrete(2.5), "observation: n: 2.5 is not a whole number"),  # type: ignore[arg-type]
        (Continuous((2,), jnp.float32, 0, 1), r"is float32\[3\], and declared as float32\[2\]"),
        (Continuous((3,), jnp.int32, 0, 1), r"is float32\[3\], and declared as int32\[3\]"),
        (Continuous((3,), jnp.complex64, 0, 1), "complex64 is none of the dtypes of real numbers"),
        (Continuous((3,), jnp.float32, 1, 0), "low = 1 is not at most high = 0"),
        (Continuous((3,), jnp.float32, np.nan, 1), "low = nan is not at most high = 1"),
        (Continuous((3,), jnp.float32, np.zeros(2), 1), r"low raised .*\(2,\)"),
        (Continuous((3,), jnp.float32, 0, np.zeros((4, 3))), r"high raised .*\(4, 3\)|dimensions"),
        (Continuous((3,), jnp.float32, None, 1), "low, high raised TypeError"),
    ],
)
def test_spaces_that_do_not_fit_are_refused(space: Any, message: str) -> None:
    refuse(space, message, lambda space: check_declared("observation", space, jnp.zeros(3)))


def test_an_environment_is_traced_where_it_is_made_and_inside_jit(monkeypatch: Any) -> None:
    for env in (changed(reward=jnp.ones(1)), raising):
        monkeypatch.setitem(ENVIRONMENTS, "Mine", env if callable(env) else lambda env=env: env)
        refuse({}, "^environment: Mine", partial(make, "Mine"))
        config = memrl_jax.presets["drqn"].replace(environment="Mine")
        refuse(config, "^environment: Mine", memrl_jax.make_train)
    monkeypatch.setitem(ENVIRONMENTS, "Mine", clock)
    jax.eval_shape(lambda: traced(make("Mine", {})))


@pytest.mark.parametrize("name, options, message", [
    ("Mine", {"size": 3}, r"environment_args: size=3 is unknown; \(options: none\)"),
    ("CartPole", {}, "environment: 'CartPole' is unknown; did you mean 'CartPole-v1'"),
    ("Own", {}, "environment: Own with no options raised ValueError: walls: one"),
    ("Broken", {"size": 3}, "environment: Broken with size=3 raised ZeroDivisionError"),
    ("bAbI", {"seed": -1}, "seed: -1 is below 0"),
    ("bAbI", {"path": 3}, "environment_args: path=3 is not a text, a Path or None"),
])  # fmt: skip
def test_what_a_constructor_raises_names_its_options(
    name: str, options: Any, message: str, monkeypatch: Any
) -> None:
    def refusing() -> Environment:
        raise ValueError("walls: one\nand another")

    monkeypatch.setitem(ENVIRONMENTS, "Mine", lambda: clock())
    monkeypatch.setitem(ENVIRONMENTS, "Own", refusing)
    monkeypatch.setitem(ENVIRONMENTS, "Broken", lambda size=1: size // 0)
    refuse(options, f"^{message}", partial(make, name))
