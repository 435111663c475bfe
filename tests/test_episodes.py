"""How episodes begin and end, what is legal in them, and numbers in place of several integers."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax import tree
from memrl_jax.environments import (
    Arrival,
    batch,
    check,
    episodic,
    frame_stack,
    numbered,
    view,
)
from memrl_jax.environments.check import QUICKLY, draw, observed, play, traced
from memrl_jax.replay import uniform
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Environment, Segment

LIMIT, STEPS = 5, 200
ACTIONS = {"gear": Discrete(3), "turn": (Discrete(2),), "gas": Continuous((2,), jnp.float32, -1, 1)}
POSITIONS = (Discrete(LIMIT + 1), {"gear": Discrete(3)})


def first(key: Any) -> Any:
    state = {"time": jnp.int32(0), "gear": jax.random.randint(key, (), 0, 3), "round": jnp.int32(0)}
    return state, seen(state)


def seen(state: Any) -> Any:
    return state["time"], {"gear": state["gear"]}


def step(key: Any, state: Any, action: Any) -> Arrival:
    state = {**state, "time": state["time"] + 1, "gear": action["gear"]}
    reward = 10 * action["gear"] + action["turn"][0]
    late = state["time"] == LIMIT
    return Arrival(state, seen(state), reward, action["gear"] == 2, late)


def legal(state: Any) -> Any:
    """The gear moves by one at most, and no turn is taken in the highest."""
    gear = jnp.abs(jnp.arange(3) - state["gear"]) <= 1
    return {"gear": gear, "turn": (jnp.stack([jnp.bool_(True), state["gear"] < 2]),), "gas": ()}


def drive(**parts: Any) -> Environment:
    given = dict(first=first, step=step, observations=POSITIONS, actions=ACTIONS, horizon=LIMIT)
    return episodic(**{**given, "legal": legal, **parts})


def hidden(key: Any, *rest: Any) -> Any:
    """Begin or go on as above, and leave it to `observe` to look."""
    return step(key, *rest)._replace(observation=()) if rest else (first(key)[0], ())


def again(key: Any, state: Any) -> Any:
    fresh, observation = first(key)
    return {**fresh, "round": state["round"] + 1}, observation


@cache
def driven(**parts: Any) -> Any:
    """What happens under random actions: states and timesteps [STEPS + 1], actions [STEPS]."""
    env = drive(**parts)

    def move(carry: Any, key: Any) -> Any:
        state, timestep = carry
        act_key, env_key = jax.random.split(key)
        action = draw(env.spec.actions, act_key, timestep.legal)
        after = env.step(env_key, state, action)
        assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, carry)
        return after, (*carry, action)

    def loop(key: Any) -> Any:
        keys = jax.random.split(key, STEPS)
        end, (state, timestep, action) = jax.lax.scan(move, env.reset(key), keys)
        return tree.append((state, timestep), end), action

    return jax.device_get(jax.jit(loop, compiler_options=QUICKLY)(jax.random.key(0)))


same = partial(jax.tree.map, np.testing.assert_array_equal)


def test_boundaries_and_rewards_are_those_of_a_loop() -> None:
    (episode, t), action = driven()
    begins, time = True, 0
    for i in range(STEPS + 1):
        time = 0 if begins else time + 1
        gear = t.action["gear"][i]
        earned = 0 if begins else 10 * gear + t.action["turn"][0][i]
        ends = not begins and (gear == 2 or time == LIMIT)
        assert (t.start[i], t.last[i], t.reward[i]) == (begins, ends, earned)
        assert t.discount[i] == (begins or gear < 2) and t.observation[0][i] == time
        assert episode.last[i] == ends
        begins = ends
    moved = ~t.last[:-1]
    for shown, taken in zip(jax.tree.leaves(t.action), jax.tree.leaves(action), strict=True):
        assert not shown[t.start].any()
        np.testing.assert_array_equal(shown[1:][moved], taken[moved])
    assert {*t.discount[t.last]} == {0, 1} and len({*t.observation[1]["gear"][t.start]}) == 3
    assert (t.reward.dtype, t.discount.dtype, t.start.dtype) == (np.float32, np.float32, bool)


def test_what_is_observed_may_follow_from_the_state_alone() -> None:
    same(driven(first=hidden, step=hidden, observe=seen), driven())


def test_an_episode_may_depend_on_the_last_one() -> None:
    (episode, t), _ = driven(restart=again)
    np.testing.assert_array_equal(episode.state["round"], np.cumsum(t.start) - 1)
    same(t, driven()[0][1])


def test_masks_are_of_the_state_and_random_actions_keep_to_them() -> None:
    (episode, t), action = driven()
    gear = episode.state["gear"]
    np.testing.assert_array_equal(t.legal["gear"], abs(np.arange(3) - gear[:, None]) <= 1)
    taken = action["gear"], action["turn"][0]
    masks = t.legal["gear"], t.legal["turn"][0]
    for mask, chosen in zip(masks, taken, strict=True):
        assert mask.any(axis=-1).all() and not mask.all()
        assert mask[np.arange(STEPS), chosen].all() and {*chosen} == {*range(mask.shape[1])}
    check(drive(), jax.random.key(1), steps=20)


@pytest.mark.parametrize("given, message", [
    (lambda s: {"gear": legal(s)["gear"]}, r"legal\['turn'\]\[0\] is nothing, not bool\[2\]"),
    (lambda s: {**legal(s), "gear": jnp.ones(2, bool)}, r"\['gear'\] is bool\[2\], not bool\[3"),
    (lambda s: {**legal(s), "gear": jnp.ones(3)}, r"\['gear'\] is float32\[3\], not bool\[3\]"),
    (lambda s: {**legal(s), "gas": jnp.ones(2, bool)}, r"legal\['gas'\] is bool\[2\], not nothing"),
    (lambda s: {**legal(s), "turn": [*legal(s)["turn"]]}, "legal is arranged as .*, not as "),
])  # fmt: skip
def test_masks_that_are_not_like_the_actions_are_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^environment: .*{message}"):
        traced(drive(legal=given))


def test_masks_without_a_word_and_a_word_without_masks_are_refused() -> None:
    env = drive()
    with pytest.raises(ValueError, match=r"legal\['gear'\] is bool\[3\], not nothing"):
        traced(env._replace(spec=env.spec._replace(legal=False)))
    env = drive(legal=None)
    assert not env.spec.legal
    traced(env)
    with pytest.raises(ValueError, match=r"legal\['gear'\] is nothing, not bool\[3\]"):
        traced(env._replace(spec=env.spec._replace(legal=True)))


def test_something_has_to_be_legal_at_every_timestep() -> None:
    (_, t), _ = driven()
    mask = t.legal["gear"].copy()
    mask[7] = False
    with pytest.raises(ValueError, match=r"legal\['gear'\]: .*False\] at step 7 allows nothing$"):
        observed(drive(), t._replace(legal={**t.legal, "gear": mask}))


def test_views_and_stacks_of_frames_pass_masks_on() -> None:
    env = view(drive(), lambda x: jnp.stack([x[0], x[1]["gear"]]))
    for seen in (env, frame_stack(env, 2)):
        traced(seen)
        assert seen.spec.legal and seen.spec.actions == ACTIONS


DISCRETE = {name: ACTIONS[name] for name in ("gear", "turn")}


def discrete() -> Environment:
    """The same without gas."""
    return drive(actions=DISCRETE, legal=lambda s: {k: legal(s)[k] for k in DISCRETE})


@cache
def counted() -> Any:
    """Both environments under the same actions, numbered in one."""
    env, ours = discrete(), numbered(discrete())

    def run(key: Any) -> Any:
        def move(states: Any, key: Any) -> Any:
            (state, _), (other, timestep) = states
            number = draw(ours.spec.actions, key, timestep.legal)
            action = {"gear": number // 2, "turn": (number % 2,)}
            after = env.step(key, state, action), ours.step(key, other, number)
            return after, (after[0][1], after[1][1], number)

        return jax.lax.scan(move, (env.reset(key), ours.reset(key)), jax.random.split(key, 90))[1]

    return jax.device_get(jax.jit(run, compiler_options=QUICKLY)(jax.random.key(3)))


def test_combinations_are_numbered_row_by_row() -> None:
    ours = numbered(discrete())
    assert ours.spec == (discrete().spec.observations, Discrete(6), True)
    traced(ours)
    theirs, mine, number = counted()
    same(mine.observation, theirs.observation)
    np.testing.assert_array_equal(mine.action, 2 * theirs.action["gear"] + theirs.action["turn"][0])
    pairs = theirs.legal["gear"][:, :, None] & theirs.legal["turn"][0][:, None, :]
    np.testing.assert_array_equal(mine.legal, pairs.reshape(-1, 6))
    rest = ("reward", "discount", "start", "last")
    same([getattr(mine, f) for f in rest], [getattr(theirs, f) for f in rest])
    assert len({*number}) > 3 and mine.action.dtype == np.int32


def test_batches_are_numbered_too_and_nothing_masks_what_is_always_legal() -> None:
    many = numbered(batch(discrete()))
    state, t = many.reset(jax.random.split(jax.random.key(0), 3))
    assert t.legal.shape == (3, 6)
    _, after = jax.eval_shape(many.step, jax.random.split(jax.random.key(0), 3), state, t.action)
    assert after.action.shape == (3,) and after.legal.shape == (3, 6)
    free = numbered(drive(actions=DISCRETE, legal=None))
    traced(free)
    assert not free.spec.legal and free.reset(jax.random.key(0))[1].legal == ()


def test_what_cannot_be_numbered_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^actions: Continuous\(.* cannot be numbered: it is not"):
        numbered(drive())
    many = (Discrete(300),) * 2 + (Discrete(2),)
    with pytest.raises(ValueError, match=r"^actions: 300 x 300 x 2 = 180000 are more than 65536 "):
        numbered(drive(actions=many, legal=None))


def test_replay_keeps_actions_of_several_parts_and_masks() -> None:
    (_, t), action = driven()
    t, action = jax.tree.map(lambda x: jnp.asarray(x[:, None]), (t, action))
    replay = uniform(segments=4, period=50, length=1, batch_size=64)
    segment = Segment((), t, action, ())
    state = replay.init(tree.at(segment, 0))
    for i in range(0, STEPS, 50):
        part = jax.tree.map(lambda x, i=i: x[i : i + 50], segment)
        whole = jax.tree.map(lambda x, i=i: x[i : i + 51], t)
        state = replay.add(state, part._replace(timestep=whole))
    window = jax.jit(replay.sample)(jax.random.key(0), state).segment
    assert window.timestep.legal["gear"].shape == (2, 64, 3)
    keep = ~np.asarray(window.timestep.last[0])
    gas = np.asarray(t.action["gas"])[:, 0, 0]
    for n in np.flatnonzero(keep):
        (at,) = np.flatnonzero(gas == window.action["gas"][0, n, 0])
        row = jax.tree.map(lambda x, at=at: x[at, 0], t)
        same(jax.tree.map(lambda x, n=n: x[1, n], window.timestep), row)
        same(jax.tree.map(lambda x, n=n: x[0, n], window.action), row.action)


def test_random_play_is_of_one_environment() -> None:
    t = jax.eval_shape(lambda key: play(drive(), key, 3), jax.random.key(0))
    assert t.legal["turn"][0].shape == (4, 2) and t.action["gas"].shape == (4, 2)
