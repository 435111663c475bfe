"""Diagnostic tasks against slow simulations of their rules, MiniGrid itself, and good policies."""

import importlib
import re
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax import environments
from memrl_jax.build import make_environment
from memrl_jax.config import Config
from memrl_jax.environments.check import QUICKLY, play
from memrl_jax.environments.diagnostic import (
    DIAGNOSTIC,
    LENGTHS,
    SIZES,
    DelayedMatch,
    EndlessTMaze,
    KeyDoor,
    MemoryChain,
    MemoryCorridor,
    RockSample,
    VisualMatch,
    minigrid,
    rooms,
    score,
)
from memrl_jax.environments.tmaze import DOWN, RIGHT, UP

STEPS = 600


@partial(jax.jit, static_argnames="env")
def walk(env, params, key, actions):
    """Take `actions` [T] with automatic resets: what reset gives, and what the steps give [T]."""

    def step(state, inputs):
        observation, state, *rest = env.step(inputs[0], state, inputs[1], params)
        return state, (observation, state, *rest)

    reset_key, step_key = jax.random.split(key)
    first = env.reset(reset_key, params)
    inputs = (jax.random.split(step_key, len(actions)), actions)
    return first, jax.lax.scan(step, first[1], inputs)[1]


def follows(simulate, env, params, actions):
    """Compare every episode of a walk with `simulate`; return how many episodes ended.

    `simulate(params, first, states, action list)` yields what each step should give: observation,
    reward, terminated and truncated, given the first state and those after each step. The last of
    these is of the next episode already, so that an observation may have NaN for what was drawn.
    """
    (_, state), out = jax.tree.map(np.asarray, walk(env, params, jax.random.key(1), actions))
    _, states, reward, terminated, truncated, info = out
    ends, begin = np.flatnonzero(terminated | truncated).tolist(), 0
    for end in ends:
        steps = range(begin, end + 1)
        after = [jax.tree.map(lambda x, t=t: x[t], states) for t in steps]
        expected = list(simulate(params, state, after, actions[begin : end + 1].tolist()))
        assert len(expected) == len(after)
        for t, (observation, due, terminates, truncates) in zip(steps, expected, strict=True):
            seen = np.array(jax.tree.map(lambda x, t=t: x[t], info["final_observation"]))
            known = ~np.isnan(observation)
            np.testing.assert_allclose(seen[known], np.array(observation)[known], rtol=1e-6)
            np.testing.assert_allclose(reward[t], due, rtol=1e-6)
            assert (bool(terminated[t]), bool(truncated[t])) == (terminates, truncates), t
        begin, state = end + 1, after[-1]
    return len(ends)


def random_actions(count, seed=0, chances=None):
    return np.random.default_rng(seed).choice(count, STEPS, p=chances).astype(np.int32)


def chain(params, first, states, actions):
    """Simulate bsuite's memory chain: as there, a step shows the time before it."""
    context = first.context[: params.bits]
    for time, action in enumerate(actions):
        observation = np.zeros(2 + len(first.context))
        observation[0] = 1 - time / params.length
        if time == params.length - 1:
            observation[1] = first.query
        if time == 0:
            observation[2 : 2 + params.bits] = 2 * context - 1
        over = time == params.length
        reward = (1 if action == context[first.query] else -1) if over else 0
        yield observation, reward, over, time + 1 == params.max_steps_in_episode and not over


@pytest.mark.parametrize(("length", "bits", "limit"), [(1, 1, 7), (6, 3, 7), (4, 2, 7), (6, 3, 5)])
def test_chain_follows_its_definition(length, bits, limit):
    env = MemoryChain(6, 3)
    params = replace(env.default_params, length=length, bits=bits, max_steps_in_episode=limit)
    assert follows(chain, env, params, random_actions(2)) > 50


def test_chain_asks_for_every_bit_it_shows():
    env = MemoryChain(6, 3)
    keys = jax.random.split(jax.random.key(0), 2000)
    params = replace(env.default_params, bits=2)
    _, state = jax.jit(jax.vmap(env.reset, (0, None)))(keys, params)
    np.testing.assert_allclose(np.mean(state.query), 0.5, atol=0.05)
    np.testing.assert_allclose(np.mean(state.context, axis=0), 0.5, atol=0.05)
    assert set(np.unique(state.query)) == {0, 1}


def test_settings_and_score_of_bsuite():
    assert (len(LENGTHS), len(SIZES)) == (23, 17)
    assert (LENGTHS[9:16], LENGTHS[-1]) == ((10, 12, 14, 17, 20, 25, 30), 100)
    assert (SIZES[9:], SIZES[0]) == ((10, 12, 14, 17, 20, 25, 30, 40), 1)
    assert score([0.0, 0.374, 0.376, 0.5]) == 0.5


def matching(params, first, states, actions):
    """Simulate the n-back task, given the symbols that were shown."""
    shown = [first.shown[0]]
    for time, (state, action) in enumerate(zip(states, actions, strict=True), start=1):
        reward = 0.0
        if len(shown) > params.back:
            same = shown[-1] == shown[-1 - params.back]
            reward = (1 if action == same else -1) / (50 - params.back)
        shown.append(state.shown[0] if time < 50 else np.nan)
        yield shown[-1], reward, time == 50, False


@pytest.mark.parametrize("back", [1, 3])
def test_matching_follows_its_definition(back):
    env = DelayedMatch(furthest=3)
    params = replace(env.default_params, back=back)
    assert follows(matching, env, params, random_actions(2)) == STEPS // 50


def test_half_of_the_symbols_match_and_the_others_are_alike():
    env = DelayedMatch(furthest=2, symbols=3, steps=200)
    keys = jax.random.split(jax.random.key(3), 100)
    many = jax.jit(jax.vmap(partial(walk, env), (None, 0, None)))
    _, (symbols, *_) = many(env.default_params, keys, jnp.zeros(199, jnp.int32))
    apart = (np.asarray(symbols)[:, 3:] - np.asarray(symbols)[:, 1:-2]) % 3
    np.testing.assert_allclose(
        np.bincount(apart.ravel()) / apart.size, [0.5, 0.25, 0.25], atol=0.015
    )
    np.testing.assert_allclose(np.bincount(np.asarray(symbols)[:, 0]) / 100, 1 / 3, atol=0.15)


def row_of_mazes(params, first, states, actions):
    """Simulate T-Mazes in a row, given the cues that were drawn."""
    x, goal, passed = 0, int(first.goal), 0
    mazes, limit = 2, params.max_steps_in_episode
    for time, (state, action) in enumerate(zip(states, actions, strict=True), start=1):
        reward, over = 0.0, False
        if x == params.corridor and action in (UP, DOWN):
            if (action == UP) == (goal == 1):
                x, goal, passed, reward = 0, int(state.goal), passed + 1, 1 / mazes
                over = passed == mazes
            else:
                over = True
        elif action == RIGHT:
            x = min(x + 1, params.corridor)
        elif action not in (UP, DOWN):
            x = max(x - 1, 0)
        cue = goal if x == 0 else 0
        drawn = reward > 0 and (over or time == limit)
        yield [np.nan if drawn else cue, x == params.corridor], reward, over, time == limit


@pytest.mark.parametrize("corridor", [1, 4])
def test_row_of_mazes_follows_its_definition(corridor):
    env = EndlessTMaze(longest=4, mazes=2)
    params = replace(env.default_params, corridor=corridor)
    actions = random_actions(4, chances=[0.1, 0.5, 0.2, 0.2])
    assert follows(row_of_mazes, env, params, actions) > 20


def seen_from(grid, row, column):
    """Cut the 5 x 5 cells around the agent out of a room [7, 7]."""
    return np.pad(grid, 2, constant_values=rooms.WALL)[row : row + 5, column : column + 5]


def three_rooms(params, first, states, actions):
    """Simulate the rooms of `VisualMatch` and `KeyDoor` on maps."""
    row, column = first.at
    cue, apples = int(first.cue), {tuple(x) for x in rooms.APPLES[first.apples].tolist()}
    key_room = cue == rooms.KEY

    def where(time):
        return 0 if time < 15 else 1 if time < 15 + params.delay else 2

    for time, action in enumerate(actions):
        room = where(time)
        down, right = [(-1, 0), (0, 1), (1, 0), (0, -1)][action]
        row, column = np.clip([row + down, column + right], 0, 6)
        reward, over = 0.0, False
        if room == 1 and (row, column) in apples:
            apples.remove((row, column))
            reward = params.apple
        if room == 0 and key_room and (row, column) == tuple(first.place):
            cue = rooms.FLOOR
        if room == 2 and (row, column) in map(tuple, rooms.DOORS.tolist()):
            door = first.doors[[1, 3, 5].index(column)]
            over = door != rooms.FLOOR
            reward = float(over and (cue == rooms.FLOOR if key_room else door == cue))
        if where(time + 1) > room:
            row, column = 3, 3
        grid = np.full((7, 7), rooms.FLOOR)
        room = where(time + 1)
        if room == 0:
            grid[tuple(first.place)] = cue
        for place in apples if room == 1 else ():
            grid[place] = rooms.APPLE
        if room == 2:
            grid[0, [1, 3, 5]] = first.doors
        yield seen_from(grid, row, column), reward, over, time + 1 == 30 + params.delay


@pytest.mark.parametrize("task", [VisualMatch(12), VisualMatch(12, active=True), KeyDoor(12)])
def test_rooms_follow_their_definition(task):
    params = replace(task.default_params, delay=9, apple=0.25)
    upwards = random_actions(4, chances=[0.4, 0.25, 0.1, 0.25])
    assert follows(three_rooms, task, params, upwards) > 12


def test_rooms_hold_what_they_should():
    keys = jax.random.split(jax.random.key(5), 600)
    task = VisualMatch(active=True)
    _, state = jax.tree.map(np.asarray, jax.jit(jax.vmap(task.reset))(keys))
    assert {tuple(x) for x in state.place} == {tuple(x) for x in rooms.EDGE.tolist()}
    assert {tuple(sorted(x)) for x in state.doors} == {(rooms.RED, rooms.GREEN, rooms.BLUE)}
    np.testing.assert_allclose(state.apples.mean(axis=0), 0.5, atol=0.08)
    for colour in (rooms.RED, rooms.GREEN, rooms.BLUE):
        np.testing.assert_allclose(np.mean(state.cue == colour), 1 / 3, atol=0.07)
        np.testing.assert_allclose(np.mean(state.doors[:, 0] == colour), 1 / 3, atol=0.07)
    observation, state = VisualMatch().reset(keys[0])
    assert observation[0, 2] == state.cue  # in sight of the start
    first, _ = jax.vmap(task.reset)(keys[:50])
    assert set(np.unique(first)) == {rooms.FLOOR}  # and here it is not


def towards(at, goal):
    """Return a move of `rooms` that leads a step closer."""
    (row, column), (to_row, to_column) = at, goal
    if column != to_column:
        return 1 if to_column > column else 3
    return 0 if to_row < row else 2


@pytest.mark.parametrize("task", [VisualMatch(4), KeyDoor(4)])
def test_knowing_the_rooms_returns_the_most(task):
    params, step = replace(task.default_params, apple=0.0), jax.jit(task.step_env)
    for seed in range(3):
        key = jax.random.key(seed)
        _, first = task.reset(key, params)
        state, total, over = first, 0.0, False
        while not over:
            doors = np.asarray(first.doors).tolist()
            wanted = doors.index(first.cue if first.cue in doors else rooms.DOOR)
            goal = first.place if state.time < 15 else rooms.DOORS[wanted]
            action = towards(state.at.tolist(), np.asarray(goal).tolist())
            _, state, reward, over, _ = step(key, state, action, params)
            total += float(reward)
        assert total == 1.0


def rocks(params, first, states, actions):
    """Simulate a field of rocks, given what the checks said."""
    env = RockSample(4, 3, seed=2)
    places, good = env.places.tolist(), first.good.tolist()
    row, column = first.at.tolist()
    for time, (state, action) in enumerate(zip(states, actions, strict=True), start=1):
        reward, over, heard = 0.0, False, 0.0
        if action < 4:
            down, right = [(-1, 0), (0, 1), (1, 0), (0, -1)][action]
            over = column + right == 4
            row, column = np.clip([row + down, column + right], 0, 3).tolist()
            reward = 10.0 * over
        elif action == 4 and [row, column] in places:
            rock = places.index([row, column])
            reward, good[rock] = (10.0 if good[rock] else -10.0), False
        elif action > 4:
            last = time == params.max_steps_in_episode
            heard = np.nan if last else int(state.heard)
        yield (row, column, heard), reward, over, time == params.max_steps_in_episode


def test_field_of_rocks_follows_its_definition():
    env = RockSample(4, 3, seed=2)
    params = replace(env.default_params, max_steps_in_episode=30)
    actions = random_actions(8, chances=[0.15, 0.1, 0.15, 0.15, 0.3, 0.05, 0.05, 0.05])
    assert follows(rocks, env, params, actions) > 12


def test_checks_of_rocks_are_as_often_right_as_they_should():
    env = RockSample(5, 2, seed=1)
    keys = jax.random.split(jax.random.key(0), 4000)
    params = replace(env.default_params, half=2.0)

    @jax.jit
    def check(keys):
        _, state = jax.vmap(env.reset, (0, None))(keys, params)
        step = jax.vmap(env.step_env, (0, 0, None, None))
        _, after, *_ = step(keys, state, jnp.int32(6), params)
        return state.good[:, 1], after.heard

    good, heard = check(keys)
    distance = np.linalg.norm(env.places[1] - [2, 0])
    assert distance > 1
    right = np.mean((np.asarray(heard) == 1) == np.asarray(good))
    np.testing.assert_allclose(right, (1 + 2 ** (-distance / 2)) / 2, atol=0.025)
    assert len({tuple(x) for x in env.places.tolist()}) == 2


OF_MINIGRID = {0: minigrid.UNSEEN, 1: minigrid.FLOOR, 2: minigrid.WALL, 5: minigrid.KEY}
OF_MINIGRID |= {6: minigrid.BALL}
MAPS = [("S7", 7), ("S9", 9), ("S11", 11), ("S13", 13), ("S13Random", 13), ("S17Random", 17)]
EPISODES, LONGEST = 4, 150


def hidden(env):
    """Read what MiniGrid decided when an episode began, as our state."""
    ours = {"key": minigrid.KEY, "ball": minigrid.BALL}
    x = env.success_pos[0]
    middle = env.height // 2
    cue, upper = (env.grid.get(*place).type for place in ((1, middle - 1), (x, middle - 2)))
    state = (env.agent_pos, env.agent_dir, x - 1, ours[cue], ours[upper], 0)
    return minigrid.Corridor(*map(jnp.int32, state))


def theirs(name, seed):
    """Play an episode of MiniGrid: the state at first, actions, and what each step gives."""
    importlib.import_module("minigrid")  # registers its environments
    env = gymnasium.make(f"MiniGrid-Memory{name}-v0").unwrapped
    observation, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    first, rows = hidden(env), [(observation["image"], 0.0, False, False)]
    actions: list[Any] = []
    while not (rows[-1][2] or rows[-1][3]) and len(actions) < LONGEST:
        goal = env.success_pos if seed % 2 else env.failure_pos
        action = good_move(env, goal) if rng.random() < 0.7 else rng.integers(3)
        actions.append(action)
        observation, *rest = env.step(action)
        rows.append((observation["image"], *rest[:3]))
    return first, actions, rows


def good_move(env, goal):
    """Turn or go towards the goal, first along the hallway."""
    x, y = env.agent_pos
    heading = 0 if x < goal[0] else (3 if goal[1] < y else 1)
    turn = (heading - env.agent_dir) % 4
    return {0: minigrid.FORWARD, 3: minigrid.TURN_LEFT}.get(turn, minigrid.TURN_RIGHT)


def test_corridors_are_those_of_minigrid():
    episodes = [(size, *theirs(name, seed)) for name, size in MAPS for seed in range(EPISODES)]
    env = MemoryCorridor()

    @jax.jit
    @jax.vmap
    def play(size, state, actions):
        params = minigrid.Params(size, 5 * size**2)

        def step(state, action):
            observation, state, *rest, _ = env.step_env(jax.random.key(0), state, action, params)
            return state, (observation, *rest, env.is_truncated(state, params))

        first = minigrid.see(state, size)
        return first, jax.lax.scan(step, state, actions)[1]

    sizes, firsts, actions, rows = zip(*episodes, strict=True)
    padded = np.array([[*x, *[0] * (LONGEST - len(x))] for x in actions], np.int32)
    states = jax.tree.map(lambda *x: np.stack(x), *firsts)
    first, after = jax.tree.map(np.asarray, play(np.array(sizes, np.int32), states, padded))
    translate = np.vectorize(OF_MINIGRID.get)
    for i, due in enumerate(rows):
        image, reward, terminated, truncated = map(np.array, zip(*due, strict=True))
        seen = translate(image[..., 0]).swapaxes(1, 2)
        count = len(due) - 1
        np.testing.assert_array_equal(first[i], seen[0])
        np.testing.assert_array_equal(after[0][i, :count], seen[1:])
        np.testing.assert_allclose(after[1][i, :count], reward[1:], rtol=1e-6)
        np.testing.assert_array_equal(after[2][i, :count], terminated[1:])
        np.testing.assert_array_equal(after[3][i, :count], truncated[1:])
    assert any(x[-1][1] > 0 for x in rows) and any(x[-1][2] and not x[-1][1] for x in rows)


def test_corridors_are_drawn_as_in_minigrid():
    env = MemoryCorridor(varied=True)
    keys = jax.random.split(jax.random.key(0), 3000)
    _, state = jax.tree.map(np.asarray, jax.jit(jax.vmap(env.reset))(keys))
    ends, counts = np.unique(state.end, return_counts=True)
    np.testing.assert_array_equal(ends, np.arange(4, 15))
    np.testing.assert_allclose(counts / 3000, 1 / 11, atol=0.025)
    assert (state.at[:, 0] >= 1).all() and (state.at[:, 0] <= state.end).all()
    assert (state.at[state.end == 4, 0] == 4).any() and (state.at[:, 1] == 8).all()
    np.testing.assert_allclose(np.mean(state.cue == state.upper), 0.5, atol=0.04)


DIALS = {
    "MemoryLength": ("length", "longest"),
    "MemorySize": ("bits", "widest"),
    "DelayedMatch": ("back", "furthest"),
    "EndlessTMaze": ("corridor", "longest"),
    "VisualMatch": ("delay", "longest"),
    "KeyDoor": ("delay", "longest"),
    "MiniGrid-MemoryS7": ("size", "largest"),
    "TMaze": ("corridor", "longest"),
}


@pytest.mark.parametrize("name", DIALS)
def test_one_program_covers_all_settings(name):
    dial, limit = DIALS[name]
    traces = []

    def trained_on(value):
        traces.append(value)
        config = Config(environment=name, environment_args={dial: value, limit: 9})
        env = make_environment(config)
        key = jax.random.key(2)
        return play(env, key, 40)

    values = jnp.int32([7, 9]) if limit == "largest" else jnp.int32([1, 3, 9])
    many = jax.jit(jax.vmap(trained_on), compiler_options=QUICKLY)(values)
    assert len(traces) == 1
    env = environments.make(name, {dial: values[1].item(), limit: 9})
    one = jax.jit(partial(play, env, steps=40), compiler_options=QUICKLY)(jax.random.key(2))
    among = jax.tree.map(lambda x: x[1], many)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), among, one)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("MemoryLength", {"length": 0}, "length: 0 is below 1"),
        ("MemoryLength", {"length": 12, "longest": 10}, "length: 12 is above 10"),
        ("MemoryLength", {"longest": 0}, "longest: 0 is below 1"),
        ("MemoryLength", {"length": jnp.int32(3)}, "longest: None; it has to limit length, which "),
        ("MemorySize", {"bit": 3}, "bit=3 is unknown; did you mean 'bits'?"),
        ("DelayedMatch", {"back": 50}, "furthest: 50 is above 49"),
        ("DelayedMatch", {"symbols": 1}, "symbols: 1 is below 2"),
        ("RockSample", {"rocks": 50}, "rocks: 50 is above 49"),
        ("RockSample", {"half": "far"}, "half='far' is not a number"),
        ("RockSample", {"half": 0.0}, "half: 0.0 is not a finite number above 0"),
        ("MiniGrid-MemoryS7", {"size": 8}, "size: 8 is even, so that the map has no middle row"),
        ("MiniGrid-MemoryS7", {"size": 5}, "size: 5 is below 7"),
        ("TMaze", {"corridor": 12, "longest": 10}, "corridor: 12 is above 10"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(name, options, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        environments.make(name, options)
    assert "\n" not in str(error.value)


def test_all_are_in_the_list():
    assert set(DIAGNOSTIC) <= set(environments.ENVIRONMENTS)
