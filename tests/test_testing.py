"""Planted faults: each is found, and the message says what to mend."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.environments import ENVIRONMENTS, Arrival, episodic
from memrl_jax.environments.views import through
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.testing import check_environment
from memrl_jax.types import Environment

LENGTH = 5
SEEN = {"time": Discrete(LENGTH + 1), "noise": Continuous((2,), jnp.dtype(jnp.float32), -9.0, 9.0)}


def clock() -> Environment:
    """Count to 5 with noise beside it; half of the actions are legal."""

    def seen(key: Any, time: Any) -> Any:
        return {"time": time, "noise": jax.random.normal(key, (2,))}

    def first(key: Any) -> Any:
        return jnp.int32(0), seen(key, jnp.int32(0))

    def step(key: Any, time: Any, action: Any) -> Arrival:
        time = time + 1
        return Arrival(time, seen(key, time), 1.0 * action, time == LENGTH, False)

    def legal(time: Any) -> Any:
        return (jnp.arange(4) + time) % 2 == 0

    return episodic(first, step, SEEN, Discrete(4), LENGTH, legal=legal)


def after(change: Any) -> Environment:
    """Let every timestep of a step be changed: `change(timestep, state)`."""
    env = clock()

    def step(key: Any, state: Any, action: Any) -> Any:
        state, timestep = env.step(key, state, action)
        return state, change(timestep, state)

    return env._replace(step=step)


def swapped(x: Any) -> Any:
    return {**x, "time": x["time"].astype(jnp.float32)}


def at(timestep: Any, when: Any, **fields: Any) -> Any:
    """Return a timestep with other fields where `when` holds."""
    changed = {k: jnp.where(when, x, getattr(timestep, k)) for k, x in fields.items()}
    return timestep._replace(**changed)


def unseeded() -> Environment:
    """Draw from NumPy while the step is traced."""
    rng = np.random.default_rng(0)
    return after(lambda t, _: at(t, ~t.start, reward=t.reward + np.float32(rng.random())))


@jax.custom_batching.custom_vmap
def _plain(x: Any) -> Any:
    return x


@_plain.def_vmap
def _wrong(size: int, batched: Any, x: Any) -> Any:
    return x + 1, True


FAULTS = {
    "reset and step differ": (
        after(lambda t, _: t._replace(reward=jnp.ones(1))),
        r"reward: reset gives float32\[\] and step gives float32\[1\]",
    ),
    "another dtype than declared": (
        clock()._replace(
            reset=lambda key: (lambda s, t: (s, t._replace(observation=swapped(t.observation))))(
                *clock().reset(key)
            ),
            step=lambda *x: (lambda s, t: (s, t._replace(observation=swapped(t.observation))))(
                *clock().step(*x)
            ),
        ),
        r"\['time'\] is float32\[\], and Discrete\(n=6\)",
    ),
    "out of bounds": (
        after(lambda t, _: t._replace(observation={**t.observation, "time": jnp.int32(6)})),
        r"observation\['time'\]: 6 at step 1 is none of 0 .. 5",
    ),
    "not finite": (
        after(lambda t, s: at(t, s.state == 3, reward=jnp.nan)),
        "reward: nan at step 3 is not finite",
    ),
    "nothing legal": (
        after(lambda t, s: at(t, s.state == 2, legal=False)),
        "legal.* at step 2 allows nothing",
    ),
    "no start after the end": (
        after(lambda t, _: t._replace(start=jnp.bool_(False))),
        "start: False at step 6 is not what `last` was before it",
    ),
    "a reward where an episode begins": (
        after(lambda t, _: at(t, t.start, reward=2.0)),
        "reward: 2.0, where an episode begins, is not 0 at step 6",
    ),
    "an action where an episode begins": (
        after(lambda t, _: at(t, t.start, action=3)),
        "action: 3, where an episode begins, is not 0 at step 6",
    ),
    "a discount of one half": (
        after(lambda t, s: at(t, s.state == 1, discount=0.5)),
        "discount: 0.5 at step 1 is neither 0 nor 1",
    ),
    "no value, and yet no end": (
        after(lambda t, s: at(t, s.state == 1, discount=0.0)),
        "discount: 0.0, though `last` is not set at step 1",
    ),
    "another action": (
        after(lambda t, _: at(t, ~t.start, action=1)),
        "action: 1 is not the action that was taken at step",
    ),
    "longer than the horizon": (
        clock()._replace(horizon=3),
        "horizon: 3 steps, but the episode goes on after 3 at step 3",
    ),
    "not of the key alone": (unseeded(), "the same key gives other episodes: reward is "),
    "another copy's numbers": (
        after(lambda t, _: at(t, ~t.start, reward=_plain(t.reward))),
        "a copy under vmap differs from one alone: reward is ",
    ),
    "an error inside": (
        clock()._replace(step=lambda *_: 1 / 0),
        "step raised ZeroDivisionError: division by zero",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_named(fault):
    env, message = FAULTS[fault]
    with pytest.raises(ValueError, match=message) as error:
        check_environment(env, steps=20)
    assert "\n" not in str(error.value)


def test_a_sound_environment_passes():
    check_environment(clock(), steps=20)
    check_environment(through(clock(), ["flicker=0.5", "delay=2"]), steps=20)


# One of every family; `python -m benchmarks.environments` checks all.
@pytest.mark.parametrize(
    "name", ["CartPole-v1", "Catch-bsuite", "IMaze", "bAbI", "RepeatPreviousEasy", "BattleshipEasy",
             "PositionOnlyPendulumEasy", "MemoryLength", "EndlessTMaze", "RockSample"],
)  # fmt: skip
def test_environments_pass(name):
    check_environment(name, steps=12)


def test_options_and_gymnax_objects_are_taken():
    check_environment("TMaze", steps=20, corridor=3)
    with pytest.raises(ValueError, match="corridor: 0 is below 1"):
        check_environment("TMaze", corridor=0)
    check_environment(ENVIRONMENTS["KeyDoor"], steps=20, delay=3)
