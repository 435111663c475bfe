"""Environments against gymnax's own transitions, and against loops in plain Python."""

import json
import re
import subprocess
import sys
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from flax.core import FrozenDict
from gymnax.environments import environment, spaces
from gymnax.wrappers import LegacyStepAPIWrapper, purerl

from memrl_jax import tree
from memrl_jax.environments import (
    ENVIRONMENTS,
    TMaze,
    batch,
    check,
    episode_metrics,
    frame_stack,
    from_gymnax,
    make,
    view,
)
from memrl_jax.environments.applications import APPLICATIONS
from memrl_jax.environments.base import EpisodeStatistics
from memrl_jax.environments.check import draw, observed, traced
from memrl_jax.environments.diagnostic import DIAGNOSTIC
from memrl_jax.environments.meta import META
from memrl_jax.environments.popgym import TASKS
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import TimeStep
from tests.small import write_original_maps

LIMIT, STEPS = 12, 60
OH = {
    "IMaze", "PatternMatching", "PatternMatching-unseen", "SingleGoal", "SingleGoal-indicator",
    "SequentialGoals", "SequentialGoals-indicator", "OriginalMaze",
}  # fmt: skip
LISTED = [*ENVIRONMENTS]
OURS = {
    "CartPole-positions", "Pendulum-positions", "TMaze", "TMaze-active", "bAbI",
    *APPLICATIONS, *DIAGNOSTIC, *META, *TASKS,
} | OH  # fmt: skip
GYMNAX = [name for name in LISTED if name not in OURS]
MAZES = {"TMaze": TMaze(), "TMaze-active": TMaze(active=True)}


def is_spec(x):
    return isinstance(x, Discrete | Continuous)


def assert_equal(x, y, **tolerance):
    compare = partial(np.testing.assert_allclose, **tolerance) if tolerance else None
    jax.tree.map(compare or np.testing.assert_array_equal, x, y)


numbers = partial(jax.tree.map, np.asarray)


def play(env, key, steps, hand=None):
    """Take random actions.

    Returns timesteps [steps + 1], actions [steps], states [steps + 1], and what `hand` gives
    [steps] for the same keys, states and actions.
    """

    def step(carry, key):
        state, timestep = carry
        act_key, env_key = jax.random.split(key)
        action = draw(env.spec.actions, act_key)
        after = env.step(env_key, state, action)
        types = jax.tree.map(jax.typeof, after)
        assert types == jax.tree.map(jax.typeof, carry)
        assert not any(x.weak_type for x in jax.tree.leaves(types))
        expected = hand(env_key, state, action) if hand else ()
        return after, (timestep, state, action, expected)

    def loop(key):
        reset_key, key = jax.random.split(key)
        end, out = jax.lax.scan(step, env.reset(reset_key), jax.random.split(key, steps))
        (state, timestep), (timesteps, states, actions, expected) = end, out
        return tree.append(timesteps, timestep), tree.append(states, state), actions, expected

    timestep, state, action, expected = jax.jit(loop)(key)
    return *numbers((timestep, action)), state, numbers(expected)


@cache
def played(name):
    """One environment, what happened in it, and what gymnax itself makes of the same."""
    env = ENVIRONMENTS[name](max_steps_in_episode=LIMIT)
    theirs: Any = MAZES.get(name) or gymnax.make(name)[0]
    limit = type(theirs.default_params.max_steps_in_episode)(LIMIT)
    params = theirs.default_params.replace(max_steps_in_episode=limit)

    def by_pieces(key, episode, action):
        observation, state, reward, terminated, _ = theirs.step_env(
            key, episode.state, action, params
        )
        fresh, _ = theirs.reset_env(key, params)
        return observation, reward, terminated, theirs.is_truncated(state, params), fresh

    def by_step(key, episode, action):
        state, first = episode.state
        _, _, reward, terminated, truncated, info = theirs.step(key, state, action, params)
        return info["final_observation"], reward, terminated, truncated, first

    hand = by_step if name == "DeepSea-bsuite" else by_pieces
    timestep, action, _, expected = play(env, jax.random.key(3), STEPS, hand)
    return env, (timestep, action, expected)


def test_all_environments_of_gymnax_and_ours_are_listed():
    assert set(LISTED) == OURS | set(gymnax.registered_envs) - {"MNISTBandit-bsuite"}


@pytest.mark.parametrize("name", [*GYMNAX, *MAZES])
def test_transitions_are_those_of_gymnax(name):
    _, (timestep, action, expected) = played(name)
    observation, reward, terminated, truncated, fresh = expected
    begins = timestep.last[:-1]
    after = jax.tree.map(lambda x: x[1:], timestep)

    assert timestep.start[0] and sum(begins) >= STEPS // (LIMIT + 1)
    np.testing.assert_array_equal(after.start, begins)
    np.testing.assert_array_equal(after.last, ~begins & (terminated | truncated))
    np.testing.assert_array_equal(after.discount == 0, ~begins & terminated)
    assert_equal(after.observation[begins], fresh[begins], rtol=1e-6)
    assert_equal(after.observation[~begins], observation[~begins], rtol=1e-6)
    assert_equal(after.reward, np.where(begins, 0, reward), rtol=1e-6)
    mask = begins.reshape(-1, *[1] * (action.ndim - 1))
    np.testing.assert_array_equal(after.action, np.where(mask, 0, action))


@pytest.mark.parametrize("name", [*GYMNAX, *MAZES])
def test_declarations_hold(name):
    env, (timestep, _, _) = played(name)
    first = jax.tree.map(lambda x: x[0], timestep)
    assert (first.action == 0).all() and first.reward == 0 and first.discount == 1
    for x in (timestep.reward, timestep.discount):
        assert x.shape == (STEPS + 1,) and x.dtype == np.float32
    assert set(np.unique(timestep.discount)) <= {0.0, 1.0}
    spec = env.spec.observations
    assert isinstance(spec, Discrete) or spec.shape == first.observation.shape
    assert isinstance(spec, Discrete) or spec.dtype == first.observation.dtype
    assert env.horizon == LIMIT
    starts, lasts = np.flatnonzero(timestep.start), np.flatnonzero(timestep.last)
    lengths = lasts - starts[: len(lasts)]
    assert lengths.max() <= env.horizon
    assert lengths.max() == env.horizon or (timestep.discount[lasts] == 0).all()


SMALLER: dict[str, Any] = {
    "SingleGoal": {"mazes": 2},
    "SequentialGoals": {"mazes": 2},
    "bAbI": {"count": 20},
}


# Levels of POPGym's tasks and sizes of MiniGrid's corridors are numbers, so few of them are played.
HARDER = re.compile(r"\w+(Medium|Hard)|MiniGrid-MemoryS(9|11|13|13Random)")


@pytest.mark.parametrize("name", LISTED)
def test_every_environment_does_as_it_says(name, tmp_path):
    if name in [*GYMNAX, *MAZES]:
        env, (timestep, _, _) = played(name)
        traced(env, name)
        observed(env, timestep, name)
        return
    if HARDER.fullmatch(name):
        traced(ENVIRONMENTS[name](), name)
        return
    options: dict[str, Any] = SMALLER.get(name.removesuffix("-indicator"), {})
    if name == "OriginalMaze":
        write_original_maps(tmp_path, ["IMaze"])
        options = {"path": str(tmp_path)}
    check(ENVIRONMENTS[name](**options), jax.random.key(0), steps=30, name=name)


def test_ends_and_time_limits_are_told_apart():
    _, (timestep, _, _) = played("FrozenLake-misc")
    assert set(timestep.discount[timestep.last]) == {0.0, 1.0}
    assert (timestep.discount[~timestep.last] == 1).all()


@struct.dataclass
class TallyParams:
    max_steps_in_episode: int = 5
    scale: float = 1.0


class Tally:
    """An environment with its own `step`: only that remembers how many episodes there were.

    Action 2 ends an episode. The state holds what is hard to carry: a key, Python numbers.
    """

    default_params = TallyParams()

    def action_space(self, params):
        return spaces.Discrete(3)

    def observation_space(self, params):
        box = spaces.Box(-jnp.inf, jnp.inf, (2,), jnp.float32)
        return spaces.Dict(
            {"time": spaces.Discrete(6), "parts": spaces.Tuple([box, spaces.Discrete(99)])}
        )

    def observe(self, state, params):
        box = params.scale * jnp.array([state["time"], state["action"]], jnp.float32)
        return {"time": state["time"], "parts": (box, state["episode"])}

    def reset(self, key, params):
        state = {"time": 0, "action": 0, "episode": 0, "key": key}
        return self.observe(state, params), state

    def step(self, key, state, action, params):
        state = {**state, "time": state["time"] + 1, "action": action, "key": key}
        terminated, truncated = action == 2, state["time"] >= params.max_steps_in_episode
        info = {"final_observation": self.observe(state, params)}
        done = terminated | truncated
        fresh = {"time": 0, "action": 0, "episode": state["episode"] + 1, "key": key}
        state = jax.tree.map(partial(jnp.where, done), fresh, state)
        return self.observe(state, params), state, action - 1, terminated, truncated, info


def tally(actions, limit, scale):
    """What the adapted `Tally` gives: rows of TimeStep."""
    time, episode, last = 0, 0, True
    for action in [None, *actions]:
        if last:
            episode += action is not None
            time, last = 0, False
            observation = {"time": 0, "parts": (np.zeros(2), episode)}
            yield TimeStep._make([observation, 0, 0, 1, True, False, ()])
        else:
            time += 1
            last = action == 2 or time == limit
            observation = {"time": time, "parts": (np.array([time, action]) * scale, episode)}
            fields = observation, action, action - 1, action != 2, False, last, ()
            yield TimeStep._make(fields)


@pytest.mark.parametrize("limit, scale", [(4, 1), (3, 0.5)])
def test_an_environment_of_ones_own(limit, scale):
    env = from_gymnax(Tally(), max_steps_in_episode=limit, scale=scale)
    timestep, action, *_ = play(env, jax.random.key(1), 80)
    rows = list(tally(action, limit, scale))
    assert_equal(timestep, jax.tree.map(lambda *xs: np.stack(xs), *rows))
    assert set(timestep.discount[timestep.last]) == {0.0, 1.0}
    assert env.horizon == limit


class Ordered(Tally):
    def observe(self, state, params):
        return OrderedDict(super().observe(state, params))  # not in the order of the alphabet


@pytest.mark.parametrize("make", [Tally, Ordered])
def test_composite_observations(make):
    env = from_gymnax(make())
    box, episode = env.spec.observations["parts"]
    assert env.spec.observations["time"] == Discrete(6) and episode == Discrete(99)
    assert box.shape == (2,) and box.dtype == np.float32 and box.high == np.inf
    _, timestep = jax.eval_shape(env.reset, jax.random.key(0))
    specs = jax.tree.leaves(env.spec.observations, is_leaf=is_spec)
    shapes = [x.shape for x in jax.tree.leaves(timestep.observation)]
    assert [getattr(spec, "shape", ()) for spec in specs] == shapes


def test_parameters_may_be_traced():
    def first(scale):
        env = from_gymnax(Tally(), scale=scale)
        state, _ = env.reset(jax.random.key(0))
        return env.step(jax.random.key(1), state, 1)[1].observation["parts"][0]

    scales = jnp.array([1.0, 3.0])
    assert_equal(jax.vmap(first)(scales), scales[:, None] * jnp.ones((2, 2)))


def test_deep_sea_keeps_its_tally_of_episodes():
    env = from_gymnax("DeepSea-bsuite", size=4)
    theirs = gymnax.make("DeepSea-bsuite", size=4)[0]
    timestep, action, states, _ = play(env, jax.random.key(5), STEPS)
    assert_equal(timestep.last, np.arange(STEPS + 1) % 5 == 4)

    ours = numbers(states.state[0])
    state = jax.tree.map(lambda x: x[0], ours)
    for t in np.flatnonzero(~timestep.last[:-1]):
        state = theirs.step(jax.random.key(0), state, action[t], theirs.default_params)[1]
        assert ours.total_bad_episodes[t + 1] == state.total_bad_episodes
        assert ours.denoised_return[t + 1] == state.denoised_return
    assert state.total_bad_episodes > 1


class Silent(purerl.GymnaxWrapper):
    """A wrapper without any method of its own."""


@pytest.mark.parametrize(
    "wrap, shape",
    [
        (Silent, (10, 5)),
        (purerl.FlattenObservationWrapper, (50,)),
        (partial(purerl.StickyActionWrapper, sticky_action_prob=0.5), (10, 5)),
        (purerl.LogWrapper, (10, 5)),
    ],
)
def test_wrappers_of_gymnax(wrap, shape):
    theirs = wrap(gymnax.make("Catch-bsuite")[0])
    params = theirs.default_params

    def public(key, episode, action):
        observation, _, reward, terminated, _, info = theirs.step(
            key, episode.state[0], action, params
        )
        return info["final_observation"], reward, terminated, observation

    env = from_gymnax(theirs)
    timestep, *_, expected = play(env, jax.random.key(2), 25, public)
    assert env.spec.observations.shape == timestep.observation.shape[1:] == shape
    assert_equal(timestep.last, np.arange(26) % 10 == 9)
    moved = ~timestep.last[:-1]
    after = jax.tree.map(lambda x: x[1:][moved], timestep)
    final, reward, terminated, _ = jax.tree.map(lambda x: x[moved], expected)
    assert_equal((after.observation, after.reward, after.last), (final, reward, terminated))
    following = expected[3][:-1][timestep.last[1:-1]]
    assert_equal(timestep.observation[1:][~moved], following)


def test_sticky_actions_are_not_bypassed():
    env = from_gymnax(purerl.StickyActionWrapper(gymnax.make("Catch-bsuite")[0], 1.0))
    timestep, action, *_ = play(env, jax.random.key(4), 8)
    paddle = timestep.observation[:, -1].argmax(-1)
    assert np.ptp(action) > 0
    assert_equal(paddle, np.maximum(2 - np.arange(9), 0))  # always action 0, to the left


def test_wrapped_environments_show_what_the_wrapper_declares():
    class Bright(purerl.GymnaxWrapper):
        def observation_space(self, params):
            return spaces.Box(0, 7, (2,), jnp.float32)

    assert from_gymnax(Bright(TMaze())).spec.observations.high == 7


@pytest.mark.parametrize(
    "name, options, shape, horizon",
    [
        ("MemoryChain-bsuite", {"num_bits": 2, "memory_length": 3}, (4,), 1000),
        ("MemoryChain-bsuite", {"max_steps_in_episode": 7}, (3,), 7),
        ("DeepSea-bsuite", {"size": 5}, (5, 5), 5),
        ("BernoulliBandit-misc", {"max_steps_in_episode": 20}, (4,), 20),
        ("CartPole-positions", {"max_steps_in_episode": 9}, (2,), 9),
        ("TMaze", {"corridor": 3}, (2,), 8),
        ("TMaze", {"corridor": 3, "max_steps_in_episode": 4}, (2,), 4),
        ("TMaze-active", {"corridor": 3}, (2,), 12),
    ],
)
def test_options_reach_the_constructor_or_the_parameters(name, options, shape, horizon):
    env = ENVIRONMENTS[name](**options)
    _, timestep = jax.eval_shape(env.reset, jax.random.key(0))
    assert timestep.observation.shape == env.spec.observations.shape == shape
    assert env.horizon == horizon


def test_memory_chain_is_as_long_as_asked_for():
    env = from_gymnax("MemoryChain-bsuite", num_bits=2, memory_length=3)
    timestep, *_ = play(env, jax.random.key(0), 14)
    assert_equal(
        timestep.last, np.arange(15) % 5 == 4
    )  # gymnax shows one step more than the length


class Seen(NamedTuple):
    """What a `Bell` shows, as a tuple with names."""

    time: Any
    last: Any


@struct.dataclass
class Shown:
    """The same, as a dataclass."""

    time: Any
    last: Any
    note: str = struct.field(pytree_node=False, default="not a part")


class Limit(NamedTuple):
    """Parameters as a tuple with names."""

    max_steps_in_episode: float = 9
    goal: int = 3


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Limits:
    """Parameters as a dataclass of Python's own."""

    max_steps_in_episode: int = 9
    goal: int = 3


class Bell(environment.Environment):
    """Rings after `goal` steps: reward 1, and the end. In gymnax's shape, with its own `step`."""

    default_params: Any = Limit()

    def reset_env(self, key, params):
        state = {"time": jnp.int32(0), "last": jnp.int32(0)}
        return self.see(state), state

    def step_env(self, key, state, action, params):
        state = {"time": state["time"] + 1, "last": jnp.int32(action)}
        rings = state["time"] == self.limits(params)["goal"]
        return self.see(state), state, self.pay(rings), self.done(rings), {}

    def is_truncated(self, state, params):
        return self.done(state["time"] >= self.limits(params)["max_steps_in_episode"])

    def limits(self, params):
        return (
            params if hasattr(params, "keys") else {k: getattr(params, k) for k in vars(Limits())}
        )

    def see(self, state):
        return Seen(state["time"], state["last"])

    def pay(self, rings):
        return rings.astype(jnp.float32)

    def done(self, ends):
        return ends

    def action_space(self, params):
        return spaces.Discrete(4)

    def observation_space(self, params):
        return spaces.Tuple([spaces.Discrete(10), spaces.Discrete(4)])


def bell(params=None, space=None, actions=None, **methods):
    """Make a `Bell` with other parameters, spaces and methods."""
    if params is not None:
        methods["default_params"] = params
    if space is not None:
        methods["observation_space"] = lambda self, params: space
    if actions is not None:
        methods["action_space"] = lambda self, params: actions
    return type("Bell", (Bell,), methods)()


def rung(env, goal=3, limit=9):
    """Assert that an adapted `Bell` behaves as it should; return what was seen."""
    timestep, action, *_ = play(env, jax.random.key(0), 9)
    end = min(goal, limit)
    assert_equal(timestep.last, np.arange(10) % (end + 1) == end)
    assert_equal(timestep.reward, np.where((goal <= limit) & timestep.last, 1, 0))
    assert_equal(timestep.discount, np.where((goal <= limit) & timestep.last, 0, 1))
    assert_equal(timestep.action[1:], np.where(timestep.start[1:], 0, action))
    assert env.horizon == limit
    return timestep


DICT = spaces.Dict({"time": spaces.Discrete(10), "last": spaces.Discrete(4)})
from_zero = gymnasium.spaces.Discrete(10), gymnasium.spaces.Discrete(4)


@pytest.mark.parametrize(
    "made",
    [
        bell(pay=lambda self, rings: rings[None].astype(jnp.float32)),
        bell(pay=lambda self, rings: rings),
        bell(done=lambda self, ends: ends.astype(jnp.float32)),
        bell(done=lambda self, ends: ends.astype(jnp.int32)[None]),
        bell(space=DICT),
        bell(space=gymnasium.spaces.Tuple(from_zero)),
        bell(space=DICT, see=lambda self, state: Shown(**state)),
        bell(space=DICT, see=lambda self, state: OrderedDict(state)),
        bell(see=lambda self, state: [state["time"], state["last"]]),
        bell(params={"max_steps_in_episode": 9, "goal": 3}),
        bell(params=FrozenDict({"max_steps_in_episode": 9, "goal": 3})),
        bell(params=Limits()),
    ],
)
def test_what_runs_in_gymnax_runs_here(made):
    rung(from_gymnax(made))


PARAMS = [Limit(), Limits(), {"max_steps_in_episode": 9, "goal": 3}]


@pytest.mark.parametrize("params", PARAMS, ids=["NamedTuple", "dataclass", "dict"])
def test_parameters_of_any_kind_are_replaced_and_may_be_traced(params):
    rung(from_gymnax(bell(params), max_steps_in_episode=2), limit=2)

    def second(goal):
        env = from_gymnax(bell(params), goal=goal)
        state, _ = env.reset(jax.random.key(0))
        return env.step(jax.random.key(0), state, 0)[1].last

    assert_equal(jax.vmap(second)(jnp.array([1, 2])), [True, False])
    with pytest.raises(ValueError, match=r"environment: Bell .*max_steps_in_episode is traced"):
        jax.vmap(lambda n: from_gymnax(bell(params), max_steps_in_episode=n))(jnp.array([1, 2]))


def test_discrete_spaces_that_start_elsewhere_are_shifted_to_zero():
    gym = gymnasium.spaces
    acts = gym.Discrete(4, start=5)
    nested = gym.Dict({"time": gym.Discrete(10, start=-2), "in": gym.Dict({"last": acts})})
    made = bell(
        space=nested,
        actions=acts,
        reset_env=lambda self, key, params: (
            {"time": jnp.int32(-2), "in": {"last": jnp.int32(5)}},
            {"time": jnp.int32(0), "last": jnp.int32(5)},
        ),
        see=lambda self, state: {"time": state["time"] - 2, "in": {"last": state["last"]}},
    )
    env = from_gymnax(made)
    assert env.spec.actions == Discrete(4)
    assert env.spec.observations == {"time": Discrete(10), "in": {"last": env.spec.actions}}
    timestep = rung(env)
    observed(env, timestep)
    assert_equal(timestep.observation["time"], np.arange(10) % 4)
    assert_equal(timestep.observation["in"]["last"], timestep.action)
    assert timestep.action.max() == 2


GYM = gymnasium.spaces
NESTED = GYM.Dict({"b": GYM.Discrete(2, start=4), "a": GYM.Tuple([GYM.Discrete(3)])})
TWO = spaces.Tuple([spaces.Discrete(3), spaces.Discrete(2)])
CHOICES: list[Any] = [  # their space, ours, and their action: its structure, its sum, its least sum
    (TWO, (3, 2), (0, 0), sum, 0),
    (NESTED, {"b": 2, "a": (3,)}, {"b": 0, "a": (0,)}, lambda a: a["a"][0] + a["b"], 4),
    (GYM.MultiDiscrete([3, 2], start=[-1, 5]), (3, 2), 0, jnp.sum, 4),
    (GYM.MultiDiscrete(np.array([[3], [2]])), (3, 2), 0, lambda a: a[0, 0] + a[1, 0], 0),
]


@pytest.mark.parametrize("space, counts, like, total, least", CHOICES)
def test_several_actions_reach_an_environment_as_it_has_them(space, counts, like, total, least):
    class Adds(Bell):
        def step_env(self, key, state, action, params):
            jax.tree.map(lambda x, y: None, like, action)
            observation, state, *rest = super().step_env(key, state, 0, params)
            return observation._replace(last=total(action)), {**state, "last": total(action)}, *rest

    wide = spaces.Tuple([spaces.Discrete(10), spaces.Box(-9, 9, (), jnp.int32)])
    methods = dict(action_space=lambda self, _: space, observation_space=lambda self, _: wide)
    env = from_gymnax(type("Adds", (Adds,), methods)())
    traced(env)
    assert env.spec.actions == jax.tree.map(Discrete, counts)
    timestep, action, *_ = play(env, jax.random.key(0), 9)
    begins = timestep.start[1:]
    summed = np.where(begins, 0, sum(jax.tree.leaves(action)) + least)
    assert_equal(timestep.observation.last[1:], summed)
    shown = jax.tree.map(lambda x: np.where(begins, 0, x), action)
    assert_equal(jax.tree.map(lambda x: x[1:], timestep.action), shown)


def test_an_array_of_bounded_integers_is_seen_as_a_tuple_of_them():
    space = GYM.MultiDiscrete([10, 4], start=[-2, 0])
    see = lambda self, s: jnp.stack([s["time"] - 2, s["last"]])  # noqa: E731
    env = from_gymnax(bell(space=space, see=see))
    assert env.spec.observations == (Discrete(10), Discrete(4))
    timestep = rung(env)
    observed(env, timestep)
    assert_equal(timestep.observation, (np.arange(10) % 4, timestep.action))
    with pytest.raises(
        ValueError, match=r"observation is int32\[\], and its space has \[2\] integers"
    ):
        from_gymnax(bell(space=space, see=lambda self, state: state["time"]))


class Gated(Bell):
    """A `Bell` at which action 3 is allowed at even times only."""

    def legal(self, state, params):
        return jnp.arange(4) < 3 + (state["time"] + 1) % 2


class GatedStep(Gated):
    def step(self, key, state, action, params):
        return super().step(key, state, action, params)


@pytest.mark.parametrize("made", [Gated, GatedStep])
def test_what_is_legal_is_told_by_the_environment(made):
    env = from_gymnax(made())
    assert env.spec.legal
    check(env, jax.random.key(0), steps=9)
    timestep = rung(env)
    even = np.arange(10) % 4 % 2 == 0
    even |= timestep.last & (made is GatedStep)  # its state is the next episode's by then
    assert_equal(timestep.legal, np.stack([np.ones(10, bool)] * 3 + [even], axis=1))


def test_a_wrapper_has_to_tell_what_is_legal_itself():
    with pytest.raises(ValueError, match=r"^environment: Silent: legal is of what it wraps"):
        from_gymnax(Silent(Gated()))


def keyed(first, later):
    """Keep a random key in the state, which both functions turn from `key` into what they keep."""
    start, move = Bell.reset_env, Bell.step_env

    def reset_env(self, key, params):
        observation, state = start(self, key, params)
        return observation, {**state, "key": first(key)}

    def step_env(self, key, state, action, params):
        kept = later(state["key"], key)
        observation, state, *rest = move(self, key, state, action, params)
        return observation, {**state, "key": kept}, *rest

    return bell(reset_env=reset_env, step_env=step_env)


def test_keys_of_both_kinds_may_be_in_a_state():
    for first in (lambda key: key, lambda key: jax.random.PRNGKey(0)):
        rung(from_gymnax(keyed(first, lambda kept, key: jax.random.split(kept)[0])))


def loses(self, state):
    raise RuntimeError("the bell is lost\nsomewhere")


gain = {"time": jnp.int32(0)}


@pytest.mark.parametrize(
    "made, message",
    [
        (bell(pay=lambda self, r: jnp.ones(2)), r"reward is float32\[2\], not one number"),
        (bell(pay=lambda self, r: jnp.complex64(1)), r"reward is complex64\[\], not one number"),
        (bell(pay=lambda self, r: None), "reward raised "),
        (bell(done=lambda self, r: r[None].repeat(2)), r"terminated is bool\[2\], not one number"),
        (bell(see=loses), "reset raised RuntimeError: the bell is lost"),
        (bell(pay=loses), "step_env raised RuntimeError: the bell is lost"),
        (
            bell(observation_space=lambda self, _: loses(self, _)),
            "observation_space raised RuntimeError",
        ),
        (
            keyed(lambda key: jnp.zeros(2, jnp.uint32), lambda kept, key: key),
            r"state\['key'\]: reset gives uint32\[2\] and step gives key<fry>\[\]",
        ),
        (
            bell(reset_env=lambda self, key, params: (self.see({**gain, "last": 0}), gain)),
            r"step_env raised KeyError|state\['last'\]: reset gives nothing",
        ),
        (bell(space=spaces.Discrete(10)), "observation is a Seen, and its space a Discrete"),
        (bell(space=spaces.Dict({"time": spaces.Discrete(3)})), "has parts .*, and its space"),
        (bell(space=spaces.Tuple([spaces.Discrete(3)])), "has parts .*, and its space"),
        (bell(space=spaces.Tuple([spaces.Discrete(0)] * 2)), r"time: n: 0 is below 1"),
        (
            bell(space=gymnasium.spaces.Tuple([gymnasium.spaces.Text(3)] * 2)),
            "space Text is none of Discrete, MultiDiscrete, MultiBinary, Box, Dict and Tuple",
        ),
        (bell(see=lambda self, state: state["time"]), "has parts .*, and its space"),
        (bell(see=lambda self, s: Seen(1.0 * s["time"], s["last"])), "time is float32.*Discrete"),
        (bell(actions=spaces.Discrete(0)), "actions: n: 0 is below 1"),
        (bell(Limit(max_steps_in_episode=2.5)), "max_steps_in_episode: 2.5 is not a whole number"),
        (bell(Limit(max_steps_in_episode=np.inf)), "max_steps_in_episode: inf is not a whole"),
        (bell(Limit(max_steps_in_episode=0)), "max_steps_in_episode: 0 is below 1"),
    ],
)
def test_what_cannot_run_is_told_in_one_line(made, message):
    with pytest.raises(ValueError, match=f"^environment: Bell: .*({message})") as error:
        from_gymnax(made)
    assert "\n" not in str(error.value)


INFINITE = float("inf")


@pytest.mark.parametrize(
    "name, option, values",
    [
        ("CartPole-v1", "gravity", [None, (1, 2), "x", True, INFINITE, float("nan"), 1e60, {}]),
        ("CartPole-v1", "max_steps_in_episode", [None, "5", True, 10.5, INFINITE, 0, -3, 2**31]),
        ("BernoulliBandit-misc", "max_steps_in_episode", [True, 10.5, INFINITE, 0, 1e30]),
        ("BernoulliBandit-misc", "normalize_time", [1, None]),
        ("TMaze", "corridor", [99999999999, 2**31 - 1, 0, True, None, 1.5, (8,)]),
        ("TMaze", "active", [3, "x", None]),
        ("TMaze", "bonus", [1e60, None, (1.0,)]),
        ("MemoryChain-bsuite", "num_bits", [0, True, 1.5]),
        ("MemoryChain-bsuite", "memory_length", [-4, 0]),
        ("DeepSea-bsuite", "size", [-2, None]),
        ("DeepSea-bsuite", "action_mapping_key", [3]),
        ("UmbrellaChain-bsuite", "n_distractor", [-1]),
        ("MetaMaze-misc", "maze_size", [4]),
        ("FrozenLake-misc", "success_rate", [2.0]),
        ("FrozenLake-misc", "reward_schedule", [(1.0, 0.0), 1, (1, 0, "a")]),
        ("Acrobot-v1", "available_torque", [3, "x", (INFINITE, 0, 1), (1, None), ()]),
        ("IMaze", "lengths", [5, ("a",), (10**9,), (2,)]),
        ("IMaze", "rows", [None, 2, 10**9]),
        ("IMaze", "columns", [4, 10**9 + 1]),
        ("SingleGoal", "mazes", [-1, 10**9]),
        ("SingleGoal", "max_steps_in_episode", [1.5, "a"]),
        ("bAbI", "task", [0, "a"]),
    ],
)
def test_options_that_are_not_like_their_default_are_refused(name, option, values):
    for value in values:
        with pytest.raises(ValueError, match=option) as error:
            make(name, {option: value})
        assert "\n" not in str(error.value)
        parts = (value, *(value if isinstance(value, tuple) else ()))
        assert any(str(part) in str(error.value) for part in parts)


@pytest.mark.parametrize(
    "name, options",
    [
        ("CartPole-v1", {"gravity": 9, "length": np.float32(1), "tau": jnp.float32(0.1)}),
        ("CartPole-v1", {"max_steps_in_episode": np.int64(7)}),
        ("BernoulliBandit-misc", {"max_steps_in_episode": 7}),
        ("Acrobot-v1", {"available_torque": (-2, 0, 2), "max_steps_in_episode": jnp.int32(7)}),
        ("FrozenLake-misc", {"desc": ("SF", "FG"), "reward_schedule": (1, 0, -1)}),
        ("UmbrellaChain-bsuite", {"n_distractor": 0}),
    ],
)
def test_options_that_are_like_their_default_are_taken(name, options):
    horizon = ENVIRONMENTS[name]().horizon
    assert make(name, options).horizon == options.get("max_steps_in_episode", horizon)


class FiveValues(Tally):
    def step(self, key, state, action, params):
        return super().step(key, state, action, params)[:5]


class NoFinalObservation(Tally):
    def step(self, key, state, action, params):
        return *super().step(key, state, action, params)[:5], {}


class NoParams:
    reset = step = None


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("CartPole-v2", {}, "environment: 'CartPole-v2' .* did you mean 'CartPole-v1'"),
        ("catch-bsuite", {}, "did you mean 'Catch-bsuite'"),
        ("MemoryChain-bsuite", {"num_bit": 1}, r"did you mean 'num_bits'.*memory_length, num_bits"),
        ("MountainCar-v0", {"args": 1}, r"MountainCar-v0 option: 'args' .*\(one of: force, goal"),
        ("Pendulum-v1", {"self": 1}, "Pendulum-v1 option: 'self' is unknown"),
        (TMaze(), {"limit": 1}, r"'limit' .*\(one of: corridor, max_steps_in_episode, bonus\)"),
        (FiveValues(), {}, "step of FiveValues gave 5 values; gymnax 1 gives 6"),
        (LegacyStepAPIWrapper(TMaze()), {}, "step of LegacyStepAPIWrapper gave 5 values"),
        (NoFinalObservation(), {}, "final_observation"),
        (NoParams(), {}, "environment: NoParams has no `default_params`"),
    ],
)
def test_mistakes_are_named(name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        from_gymnax(name, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options, message", [({"corridor": 0}, "0"), ({"coridor": 3}, "corridor")])
def test_mistakes_in_mazes_are_named(options, message):
    with pytest.raises(ValueError, match=f"corridor.*{message}"):
        ENVIRONMENTS["TMaze"](**options)


def test_positions_are_cartpole_without_velocities():
    whole, positions = ENVIRONMENTS["CartPole-v1"](), ENVIRONMENTS["CartPole-positions"]()
    seen, *_ = play(positions, jax.random.key(7), 60)
    true, *_ = play(whole, jax.random.key(7), 60)
    assert_equal(seen, true._replace(observation=true.observation[:, ::2]))
    assert seen.last.sum() >= 1
    assert (
        positions.spec.observations.shape == (2,)
        and positions.spec.observations.dtype == np.float32
    )
    assert (positions.spec.actions, positions.horizon) == (Discrete(2), 500)


def test_view_may_give_any_pytree():
    env = view(from_gymnax(TMaze()), lambda x: {"cue": x[0], "both": x[None].astype(jnp.int8)})
    shapes = jax.tree.map(lambda s: (s.shape, s.dtype), env.spec.observations, is_leaf=is_spec)
    assert shapes == {"cue": ((), np.float32), "both": ((1, 2), np.int8)}
    timestep, *_ = play(env, jax.random.key(0), 3)
    assert_equal(timestep.observation["both"][:, 0, 0], timestep.observation["cue"])


def test_positions_keep_their_bounds():
    low, high = ENVIRONMENTS["CartPole-positions"](x_threshold=3.0).spec.observations[2:]
    assert_equal(high, [6.0, 0.41887903], rtol=1e-6)
    assert_equal(low, -high)


@pytest.mark.parametrize("jitted", [False, True])
def test_view_keeps_the_spaces_of_what_it_passes_on(jitted):
    whole = from_gymnax(Tally())
    box, episode = whole.spec.observations["parts"]

    def observe(x):
        box, episode = x["parts"]
        return {"episode": jnp.asarray(episode), "twice": (2 * box, box), "same": x["time"]}

    env = view(whole, jax.jit(observe) if jitted else observe)
    assert (
        env.spec.observations["same"] == Discrete(6) and env.spec.observations["episode"] == episode
    )
    twice, once = env.spec.observations["twice"]
    assert (twice.low, twice.high, once) == (-np.inf, np.inf, box)


def test_view_declares_what_it_changes():
    maze = from_gymnax(TMaze())
    bits = Continuous((2,), jnp.dtype(jnp.uint8), 0, 1)
    observe = lambda x: (x != 0).astype(jnp.uint8)  # noqa: E731
    assert view(maze, observe, bits).spec.observations == bits
    for space, message in [
        (bits._replace(shape=(3,)), r"^observations is uint8\[2\], and declared as uint8\[3\]$"),
        (bits._replace(dtype=jnp.float32), r"is uint8\[2\], and declared as float32\[2\]$"),
        (Discrete(2), r"is uint8\[2\], and Discrete"),
        ((bits, bits), "nothing is given"),
    ]:
        with pytest.raises(ValueError, match=message):
            view(maze, observe, space)


def test_frames_side_by_side_keep_their_bounds():
    bounds = Continuous((2,), jnp.dtype(jnp.int8), np.array([-1, 0]), 1)
    env = frame_stack(view(from_gymnax(TMaze()), lambda x: x.astype(jnp.int8), bounds), 3)
    stacked = env.spec.observations
    assert stacked.shape == (6,) and stacked.dtype == np.int8
    assert_equal(stacked.low, [-1, 0] * 3)
    assert stacked.high == 1

    def make_one(threshold):
        env = frame_stack(from_gymnax("CartPole-v1", x_threshold=threshold), 2)
        return env.spec.observations.high[::4]

    assert_equal(jax.jit(make_one)(2.0), [4.0, 4.0])


def test_batch_steps_each_environment_by_itself():
    env = from_gymnax(TMaze(corridor=2))
    many, count = batch(env), 5
    reset_keys, keys = jax.random.split(jax.random.key(0), (2, count))
    state, timestep = many.reset(reset_keys)
    action = jnp.arange(count) % 4
    stacked = jax.jit(many.step)(keys, state, action)
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    assert len(np.unique(timestep.observation[:, 0])) == 2
    for i in range(count):
        state, one = reset(reset_keys[i])
        assert_equal(one, jax.tree.map(lambda x, i=i: x[i], timestep))
        after = step(keys[i], state, action[i])
        assert_equal(after, jax.tree.map(lambda x, i=i: x[i], stacked))
    assert (many.spec.actions, many.horizon) == (env.spec.actions, env.horizon)


def random_episodes(steps, environments, seed):
    """Draw timesteps [steps, environments] of episodes of 1 to 4 steps; all begin with a start."""
    rng = np.random.default_rng(seed)
    start, last = np.zeros((2, steps, environments), bool)
    for b in range(environments):
        t = 0
        while t < steps:
            end = t + int(rng.integers(1, 5))
            start[t, b] = True
            last[end : end + 1, b] = True
            t = end + 1
    reward = np.where(start, 0, rng.normal(size=start.shape)).astype(np.float32)
    discount = np.where(last & (rng.random(start.shape) < 0.5), 0, 1).astype(np.float32)
    action = np.zeros_like(start, np.int32)
    return TimeStep._make([None, action, reward, discount, start, last, ()])


def count_episodes(timestep):
    """Add up whole episodes, one number at a time; what is under way [B] comes second."""
    sums = {"episodes": 0, "return_sum": 0.0, "length_sum": 0, "steps": 0, "reward_sum": 0.0}
    under_way = []
    for b in range(timestep.reward.shape[1]):
        total, length = 0.0, 0
        for t in range(len(timestep.reward)):
            if timestep.start[t, b]:
                total, length = 0.0, 0
                continue
            total, length = total + float(timestep.reward[t, b]), length + 1
            sums["steps"] += 1
            sums["reward_sum"] += float(timestep.reward[t, b])
            if timestep.last[t, b]:
                sums["episodes"] += 1
                sums["return_sum"] += total
                sums["length_sum"] += length
        under_way.append((total, length))
    return sums, np.array(under_way)


@pytest.mark.parametrize("chunk", [1, 7, 21])
@pytest.mark.parametrize("seed", [0, 1])
def test_episodes_are_counted_across_chunks(chunk, seed):
    timestep = random_episodes(21, 3, seed)
    running, sums = EpisodeStatistics.zeros(3), []
    for t in range(0, 21, chunk):
        running, now = counted(running, jax.tree.map(lambda x, t=t: x[t : t + chunk], timestep))
        sums.append(now)
    total = {k: sum(float(s[k]) for s in sums) for k in sums[0]}
    expected, under_way = count_episodes(timestep)
    assert expected["episodes"] > 6
    assert total == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(np.stack(running, -1), under_way, rtol=1e-5, atol=1e-6)
    assert (running.total.dtype, running.length.dtype) == (np.float32, np.int32)
    kinds = {k: x.dtype.kind for k, x in sums[0].items()}
    assert {name for name, kind in kinds.items() if kind == "i"} == {"episodes", "steps"}
    assert {name for name, kind in kinds.items() if kind == "f"} == {*kinds} - {"episodes", "steps"}


counted = jax.jit(episode_metrics)


def test_nothing_ended_is_no_episode():
    timestep = random_episodes(1, 3, 0)
    running, sums = counted(EpisodeStatistics(jnp.ones(3), jnp.ones(3, jnp.int32)), timestep)
    nothing = {"episodes": 0, "return_sum": 0.0, "length_sum": 0, "steps": 0, "reward_sum": 0.0}
    assert_equal(sums, nothing)
    assert_equal(running, EpisodeStatistics.zeros(3))


def test_gymnax_is_imported_only_when_needed():
    program = """
import json, sys
def heavy():
    return [m for m in ("gymnax", "gymnasium", "matplotlib", "pandas") if m in sys.modules]
import memrl_jax
found = [heavy()]
from memrl_jax.environments import ENVIRONMENTS
ENVIRONMENTS["TMaze-active"](corridor=3)
found.append(heavy())
ENVIRONMENTS["CartPole-v1"]()
found.append(["gymnax" in sys.modules, "scipy.stats" in sys.modules])
import seaborn
print(json.dumps([*found, len(seaborn.color_palette("husl", 3)), "scipy.stats" in sys.modules]))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [[], [], [True, False], 3, True]
