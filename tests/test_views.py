"""Views of environments, against what they say, on an environment that counts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memrl_jax
from memrl_jax.build import make_environment
from memrl_jax.commands.arguments import parse
from memrl_jax.config import Config
from memrl_jax.environments import Arrival, check, episodic, make
from memrl_jax.environments.check import QUICKLY
from memrl_jax.environments.views import through
from memrl_jax.spaces import Continuous, Discrete

LENGTH = 6
VECTOR = Continuous((3,), np.dtype(np.float32), np.zeros(3, np.float32), np.full(3, 9, np.float32))


def counting(legal: Any = None) -> Any:
    """Observe [time, time + 1, time + 2] and whether the time is odd; the reward is the action."""

    def seen(time: Any) -> Any:
        return {"vector": time + jnp.arange(3, dtype=jnp.float32), "odd": time % 2}

    def first(key: Any) -> Any:
        return jnp.int32(0), seen(jnp.int32(0))

    def step(key: Any, time: Any, action: Any) -> Arrival:
        over = time + 1 == LENGTH
        return Arrival(time + 1, seen(time + 1), action.astype(jnp.float32), over, False)

    spaces = {"vector": VECTOR, "odd": Discrete(2)}
    return episodic(first, step, spaces, Discrete(10), LENGTH, legal=legal)


def play(env: Any, steps: int = 4 * (LENGTH + 1), seed: int = 0, chosen: Any = None) -> Any:
    """Return the timesteps [steps + 1] after the actions 1, 2, ..., 9, 1, ..."""
    actions = 1 + np.arange(steps) % 9 if chosen is None else chosen

    def step(carry: Any, x: Any) -> Any:
        state, timestep = env.step(x[0], carry[0], x[1])
        return (state, timestep), timestep

    def all_of(key: Any) -> Any:
        reset_key, key = jax.random.split(key)
        state, first = env.reset(reset_key)
        keys = jax.random.split(key, steps)
        _, rest = jax.lax.scan(step, (state, first), (keys, jnp.int32(actions)))
        return jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, rest)

    played = jax.jit(all_of, compiler_options=QUICKLY)(jax.random.key(seed))
    return jax.tree.map(np.asarray, played)


PLAIN = play(counting())


@pytest.mark.parametrize(
    "views", [["flicker=0.5"], ["noise=0.1"], ["delay=2"], ["drop=0.5"], ["sticky=0.25"],
              ["random_start=3"], ["flicker=0.3", "delay=1", "sticky=0.5", "noise=1"]],
)  # fmt: skip
def test_only_what_is_said_changes(views):
    env = through(counting(), views)
    check(env, jax.random.key(1), steps=40)
    played = play(env)
    for field in ("start", "last", "discount", "action"):
        np.testing.assert_array_equal(getattr(played, field), getattr(PLAIN, field), field)
    if not any(x.startswith(("sticky", "random")) for x in views):
        np.testing.assert_array_equal(played.reward, PLAIN.reward)
    assert not jax.tree.all(
        jax.tree.map(lambda x, y: np.array_equal(x, y), played[:3:2], PLAIN[:3:2])
    )


def test_hiding_removes_columns():
    env = through(make("CartPole-v1", {}), ["hide=1,3"])
    assert env.spec.observations.shape == (2,)
    other = make("CartPole-positions", {})
    ours, theirs = (play(x, chosen=np.arange(28) % 2) for x in (env, other))
    np.testing.assert_array_equal(ours.observation, theirs.observation)
    np.testing.assert_array_equal(env.spec.observations.high, other.spec.observations.high)


def test_flicker_blanks_whole_observations_with_its_chance():
    played = play(through(counting(), ["flicker=0.25"]), steps=4_000)
    time = played.observation["vector"][:, 2]  # at least 2 where it is shown
    blank = time == 0
    assert abs(blank.mean() - 0.25) < 0.03
    assert (played.observation["vector"][blank] == 0).all()
    assert (played.observation["odd"][blank] == 0).all()


def test_noise_is_added_to_floats_within_bounds():
    played = play(through(counting(), ["noise=0.5"]), steps=4_000)
    plain = play(counting(), steps=4_000)
    gap = (played.observation["vector"] - plain.observation["vector"])[:, 2]
    assert abs(gap.mean()) < 0.05 and abs(gap.std() - 0.5) < 0.05
    assert played.observation["vector"].min() == 0 and played.observation["vector"].max() <= 9
    np.testing.assert_array_equal(played.observation["odd"], plain.observation["odd"])


@pytest.mark.parametrize("steps", [1, 3])
def test_delay_shows_what_was_so_many_steps_ago(steps):
    played = play(through(counting(), [f"delay={steps}"]))
    time = np.arange(len(played.reward)) % (LENGTH + 1)
    np.testing.assert_array_equal(played.observation["vector"][:, 0], np.maximum(time - steps, 0))


def test_dropped_observations_are_the_last_ones_shown():
    played = play(through(counting(), ["drop=0.5"]), steps=4_000)
    shown, time = played.observation["vector"][:, 0], np.arange(4_001) % (LENGTH + 1)
    again = shown != time
    assert not again[time == 0].any() and abs(again[time > 0].mean() - 0.5) < 0.03
    np.testing.assert_array_equal(shown[1:][again[1:]], shown[:-1][again[1:]])


def test_sticky_actions_are_done_again_but_not_told():
    played = play(through(counting(), ["sticky=0.25"]), steps=4_000)
    done, chosen = played.reward, played.action
    time = np.arange(4_001) % (LENGTH + 1)
    assert (done[time == 1] == chosen[time == 1]).all()
    again = done != chosen
    assert abs(again[time > 1].mean() - 0.25) < 0.03
    np.testing.assert_array_equal(done[1:][again[1:]], done[:-1][again[1:]])


def test_episodes_start_with_random_actions():
    played = play(through(counting(), ["random_start=4"]), steps=7_000)
    time = np.arange(7_001) % (LENGTH + 1)
    changed = played.reward != played.action
    shares = [changed[time == t].mean() for t in range(1, LENGTH + 1)]
    # n of 0 .. 4 at random; a random action of ten is the chosen one with a chance of .1.
    np.testing.assert_allclose(shares, np.array([0.8, 0.6, 0.4, 0.2, 0, 0]) * 0.9, atol=0.05)


def test_random_actions_are_legal():
    even = jnp.arange(10) % 2 == 0
    played = play(through(counting(lambda time: even), ["random_start=6"]), chosen=[0] * 28)
    assert (played.reward % 2 == 0).all() and (played.reward > 0).any()


def test_a_config_names_views():
    config = memrl_jax.presets["dqn"].replace(environment="CartPole-v1", view=("hide=1,3",))
    assert make_environment(config).spec.observations.shape == (2,)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ("flickr=0.5", "view: 'flickr' is unknown; did you mean 'flicker'"),
        ("flicker", "view: 'flicker' needs numbers"),
        ("flicker=often", "view: 'flicker=often' needs numbers"),
        ("flicker=2", "flicker: 2 is not between 0 and 1"),
        ("flicker=0.1,0.2", "view: 'flicker=0.1,0.2'"),
        ("noise=-1", "noise: -1 is not between"),
        ("delay=0", "delay: 0 is below 1"),
        ("delay=1.5", "delay: 1.5 is not a whole number"),
        ("drop=nan", "drop: nan is not between"),
        ("sticky=-0.1", "sticky: -0.1 is not between"),
        ("random_start=0", "random_start: 0 is below 1"),
        ("hide=4", "hide: 4 is above 3"),
        ("hide=0,1,2,3", "hide: 4 of 4 numbers"),
    ],
)
def test_bad_views_are_refused_in_one_line(view, message):
    with pytest.raises(ValueError) as error:
        through(make("CartPole-v1", {}), [view])
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_views_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"^noise: Discrete"):
        through(make("FrozenLake-misc", {}), ["noise=1"])
    with pytest.raises(ValueError, match=r"^hide: .*is not one vector"):
        through(counting(), ["hide=0"])
    with pytest.raises(ValueError, match=r"^sticky: 0.5 would"):
        through(counting(lambda time: jnp.ones(10, bool)), ["sticky=0.5"])


@pytest.mark.parametrize(
    "words",
    [
        ["--view", "flicker=0.5", "--view", "hide=2,3"],
        ["--view=flicker=0.5", "--frames", "1", "--view=hide=2,3"],
        ["--view", "flicker=0.5", "hide=2,3", "--frames", "1"],
    ],
)
def test_views_may_be_given_one_by_one_on_the_command_line(words):
    config = parse(Config, words, "memrl", Config())
    assert config.view == ("flicker=0.5", "hide=2,3")
