"""Mazes against drawings, loops in plain Python, and the original maps where they are at hand.

The original maps are found by the environment variable MEMRL_GOLDEN or in ../shared/golden.
"""

import json
import os
from collections import deque
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.environments import ENVIRONMENTS, batch
from memrl_jax.environments.mazes import Goal, Maps, Rules, imaze, maze, random_mazes, success
from memrl_jax.environments.mazes.maze import (
    BACKWARD,
    DIRECTIONS,
    FORWARD,
    LOOK_DOWN,
    LOOK_LEFT,
    LOOK_RIGHT,
    LOOK_UP,
)
from memrl_jax.environments.mazes.original import _rules as original_rules
from memrl_jax.environments.mazes.pattern_matching import pattern_matching, patterns
from memrl_jax.environments.mazes.rules import choice, machine, order, priced
from memrl_jax.environments.mazes.view import BLOCKS, cells, viewer
from tests.small import write_original_maps

GOLDEN = Path(os.environ.get("MEMRL_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))
FOLDER = GOLDEN / "minecraft_maps"
original_maps = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"no original maps in {FOLDER}; MEMRL_GOLDEN may say where"
)
SYMBOLS = "#.RCYLB"  # one for every block


def drawn(observation):
    """Draw a picture as text, with a blank where nothing is seen."""
    assert set(np.unique(observation)) <= {0, 255}
    seen = np.asarray(observation) > 0
    assert (seen.sum(-1) <= 1).all()
    symbols = np.array(list(SYMBOLS))[seen.argmax(-1)]
    return ["".join(row) for row in np.where(seen.any(-1), symbols, " ")]


def looked(picture, pitch=0):
    """See what is drawn in `picture` from its bottom centre."""
    blocks = np.array([[SYMBOLS.index(x) for x in row] for row in picture], np.uint8)
    return drawn(viewer(*blocks.shape)(jnp.asarray(blocks.ravel()), jnp.int32(pitch)))


class Walk:
    """One episode, step by step."""

    def __init__(self, env, seed=0, **state):
        self.move = jax.jit(env.step)
        self.episode, self.timestep = jax.jit(env.reset)(jax.random.key(seed))
        placed = self.state._replace(**{k: jnp.int32(v) for k, v in state.items()})
        self.episode = self.episode._replace(state=placed)
        self.total, self.length = 0.0, 0

    def __call__(self, *actions):
        for action in actions:
            key = jax.random.key(self.length)
            self.episode, self.timestep = self.move(key, self.episode, action)
            self.total += float(self.timestep.reward)
            self.length += 1
        return self

    @property
    def state(self):
        return self.episode.state

    @property
    def seen(self):
        return drawn(self.timestep.observation)


WORLD = [
    "###########",
    "#R....#...#",
    "#.....#...#",
    "#..C...Y..#",
    "#.........#",
    "#..##.....#",
    "#........L#",
    "###########",
]


@cache
def world(limit=30):
    """Make the maze above; goal ids are 1 red, 2 cyan, 3 yellow, 6 lime."""
    plan = np.array([list(row) for row in WORLD])
    goal = np.select([plan == x for x in "RCYL"], [1, 2, 3, 6]).astype(np.uint8)
    spawn = np.zeros_like(goal, bool)
    spawn[4, 5] = True
    return maze(Maps((plan == "#")[None], goal[None], spawn[None]), priced(choice(1, 2), limit))


def plan_ahead(facing, rows=6, columns=7):
    """Turn the drawing above so that what lies ahead of row 4, column 5 is at the top."""
    padded = np.pad(np.array([list(row) for row in WORLD]), 9, constant_values="#")
    forward, right = DIRECTIONS[facing], DIRECTIONS[(facing + 1) % 4]
    ahead, aside = cells(rows, columns)
    at = np.array([13, 14])[:, None] + forward[:, None] * ahead + right[:, None] * aside
    return ["".join(row) for row in padded[tuple(at)].reshape(rows, columns)]


OPEN = ["." * 7] * 6


@pytest.mark.parametrize(
    "picture, pitch, seen",
    [
        (OPEN, 0, [".......", ".......", ".......", " ..... ", "       ", "       "]),
        (OPEN, 1, ["       ", "       ", "       ", " ..... ", "  ...  ", "   .   "]),
        # A wall hides what is behind it, and shows its own near side only.
        (
            [".......", ".......", "..###..", "...R...", ".......", "......."],
            0,
            [".     .", ".     .", "..###..", " ..R.. ", "       ", "       "],
        ),
        # Along a corridor, its walls and an opening are seen, but nothing beyond that.
        (
            ["###.###", "R.....C", "###.###", "###.###", "###.###", "###.###"],
            0,
            ["  #.#  ", "  ...  ", "  #.#  ", "  #.#  ", "  # #  ", "       "],
        ),
        # Between two walls that meet at a corner there is no gap.
        (
            ["YYYYYYY", "YYYYYYY", "YYYYYYY", "YYYYYYY", "YYY#YYY", "YY#.#YY"],
            0,
            ["       "] * 4 + ["   #   ", "       "],
        ),
        (["LLLLLLL"] * 5 + ["LLLBLLL"], 1, ["       "] * 3 + [" LLLLL ", "  LLL  ", "   B   "]),
    ],
    ids=["open", "down", "hidden", "corridor", "corner", "colours"],
)
def test_what_is_in_sight(picture, pitch, seen):
    assert looked(picture, pitch) == seen


@pytest.mark.parametrize("facing", range(4))
@pytest.mark.parametrize("pitch", [0, 1])
def test_the_picture_turns_with_the_agent(facing, pitch):
    walk = Walk(world(), facing=facing)
    walk(LOOK_DOWN if pitch else LOOK_UP)
    assert walk.seen == looked(plan_ahead(facing), pitch)


def test_turning_right_four_times_sees_all_directions():
    walk = Walk(world(), facing=0)
    for turn in range(1, 5):
        walk(LOOK_RIGHT)
        assert walk.seen == looked(plan_ahead(turn % 4))
    walk(LOOK_LEFT)
    assert walk.seen == looked(plan_ahead(3))


def place(walk):
    """Where the agent is in the drawing: the margin is 5 cells on each side."""
    return tuple(int(x) - 5 for x in divmod(int(walk.state.at), len(WORLD[0]) + 10))


@pytest.mark.parametrize("facing", range(4))
def test_walls_block_both_ways(facing):
    walk = Walk(world(), facing=facing)
    here = (4, 5)
    rng = np.random.default_rng(facing)
    for action in rng.choice([FORWARD, BACKWARD, FORWARD, LOOK_LEFT, LOOK_DOWN], 25):
        if walk.timestep.last:
            break
        step = {FORWARD: 1, BACKWARD: -1}.get(action, 0)
        there = tuple(here + step * DIRECTIONS[int(walk.state.facing)])
        here = here if WORLD[there[0]][there[1]] == "#" else there
        assert place(walk(int(action))) == here


def test_the_head_stays_where_it_is_beyond_its_range():
    walk = Walk(world())
    pitches = [int(walk(a).state.pitch) for a in (LOOK_UP, LOOK_DOWN, LOOK_DOWN, LOOK_UP, 17)]
    assert pitches == [0, 1, 1, 0, 0]


def slowly(rules, ids):
    """Follow the rules for visits of `ids`, as the original does: rewards and ends."""
    progress, rows = [0] * len(rules.goals), []
    for goal_id in ids:
        paid, end = [], False
        for i, goal in enumerate(rules.goals):
            if goal_id and goal.sequence[progress[i]] == goal_id:
                paid.append(goal.rewards[progress[i]])
                progress[i] += 1
                if progress[i] == len(goal.sequence):
                    end |= bool(goal.terminate)
                    progress[i] = 0
        rows.append((np.float32(sum(paid) if paid else rules.step_reward), end))
        if end:
            break
    return rows


def quickly(rules, ids):
    following, reward, ends = jax.tree.map(np.asarray, machine(rules))
    state, rows = 0, []
    for goal_id in ids:
        rows.append((reward[state, goal_id], bool(ends[state, goal_id])))
        state = following[state, goal_id]
        if rows[-1][1]:
            break
    return rows


RULES = {
    "choice": priced(choice(1, 2) + choice(5, 4), 50),
    "order": priced(order(2, 1) + order(4, 5), 100),
    "laps": Rules(
        (Goal((1, 2, 1), (0.1, 0.2, 0.4), False), Goal((2, 2), (0.5, 1.0), True)),
        {1: 2, 2: 3},
        -0.1,
        9,
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_rules_as_tables_pay_what_the_rules_say(name):
    rules, rng = RULES[name], np.random.default_rng(0)
    ends = 0
    for _ in range(100):
        ids = rng.choice(max(rules.colours) + 1, 12)
        expected = slowly(rules, ids)
        assert quickly(rules, ids) == expected
        ends += expected[-1][1]
    assert ends > 10


@pytest.mark.parametrize(
    "visits, rewards, reached",
    [
        ([1, 0, 1, 2], [0.5, -0.04, -0.04, 1.0], True),
        ([2, 1], [-0.5, -1.0], False),
        ([1, 0, 0, 0], [0.5, -0.04, -0.04, -0.04], False),
    ],
)
def test_order_pays_a_half_and_one(visits, rewards, reached):
    paid = [float(r) for r, _ in quickly(priced(order(1, 2), 50), visits)]
    assert paid == pytest.approx(rewards)
    assert success(sum(paid), len(paid), 50) == reached


@pytest.mark.parametrize("last, reached", [(1.0, True), (-1.0, False), (-0.04, False)])
@pytest.mark.parametrize("length", [1, 20, 50])
def test_success_is_told_from_return_and_length(last, reached, length):
    total = np.full(3, last - 0.04 * (length - 1), np.float32)
    assert (success(total, np.full(3, length), 50) == reached).all()


def test_the_time_limit_truncates():
    walk = Walk(world(limit=4))
    for n in range(1, 5):
        walk(LOOK_LEFT)
        assert (bool(walk.timestep.last), float(walk.timestep.discount)) == (n == 4, 1)
        assert walk.timestep.reward == pytest.approx(-0.5)
    walk(FORWARD)
    assert bool(walk.timestep.start) and not walk.timestep.last
    assert (float(walk.timestep.reward), int(walk.timestep.action)) == (0, 0)
    assert (place(walk), int(walk.state.time)) == ((4, 5), 0)


def test_a_goal_terminates():
    walk = Walk(world(), facing=2)(FORWARD, FORWARD, LOOK_LEFT, FORWARD)  # cyan, the wrong one
    assert (float(walk.timestep.reward), float(walk.timestep.discount)) == (-1, 0)
    assert walk.timestep.last and walk(0).timestep.start


def to_the_goal(length, side):
    """Walk the I-Maze from its start, facing the indicator, to the goal on one side.

    The corridor is on the right then; at its end, red is on the left.
    """
    turn = LOOK_LEFT if side == "red" else LOOK_RIGHT
    return [LOOK_RIGHT, *[FORWARD] * (length - 1), turn, FORWARD, FORWARD]


@pytest.mark.parametrize("length", [3, 5, 9, 40])
def test_remembering_the_indicator_solves_the_imaze(length):
    env = imaze((length,))
    colours = set()
    for seed in range(4):
        for side in ("red", "cyan"):
            walk = Walk(env, seed, facing=1)(LOOK_RIGHT)  # faces the indicator
            colour = next(x for row in walk.seen for x in row if x in "YL")
            walk(*to_the_goal(length, side))
            right = (colour == "Y") == (side == "red")
            assert walk.timestep.last and walk.timestep.discount == 0
            assert float(walk.timestep.reward) == (1 if right else -1)
            assert success(walk.total, walk.length, env.horizon) == right
            colours.add(colour)
    assert colours == {"Y", "L"}


@pytest.mark.parametrize("length", [5, 9])
@pytest.mark.parametrize("rows, columns", [(6, 7), (9, 13)])
def test_indicator_and_goals_are_never_in_sight_at_once(length, rows, columns):
    """Nor is the indicator ever seen from the corridor or from the far end."""
    env = imaze((length,), rows=rows, columns=columns)
    episode, _ = env.reset(jax.random.key(0))
    width = 7 + 2 * max(rows - 1, columns // 2)
    cells = [(0, c) for c in (-1, 0, 1)] + [(r, 0) for r in range(1, length)]
    cells += [(length - 1, c) for c in (-1, 1)]
    near = len([r for r, _ in cells if r == 0])
    offsets = np.array(cells)
    at = jnp.asarray(int(episode.state.at) + offsets @ [width, 1], jnp.int32)

    def seen(at, facing, action):
        placed = episode._replace(state=episode.state._replace(at=at, facing=facing))
        return env.step(jax.random.key(0), placed, action)[1].observation.max(axis=(0, 1)) > 0

    over = jax.vmap(seen, (None, 0, None)), jnp.arange(4)
    views = jax.vmap(jax.vmap(over[0], (0, None, None)), (None, None, 0))
    blocks = np.asarray(jax.jit(views)(at, over[1], jnp.array([LOOK_UP, LOOK_DOWN])))
    indicator = np.any(blocks[..., [BLOCKS.index(x) for x in ("yellow", "lime")]], axis=-1)
    goals = np.any(blocks[..., [BLOCKS.index(x) for x in ("red", "cyan")]], axis=-1)
    assert indicator[:, :near].any() and goals[:, near:].any()
    assert not indicator[:, near:].any() and not goals[:, :near].any()


def test_lengths_share_one_shape():
    shapes = {imaze(lengths).spec.observations.shape for lengths in [(5, 7, 9), (40,), [4]]}
    assert shapes == {(6, 7, 7)}
    assert imaze((4,), rows=5, columns=5).spec.observations.shape == (5, 5, 7)


@pytest.mark.parametrize("unseen", [False, True])
def test_patterns_on_one_side_of_the_split(unseen):
    same, other = patterns(unseen)
    assert same.shape == other.shape == (250, 3, 3)
    assert set(np.unique(same)) == {3, 6}
    mine, theirs = (set(map(bytes, x)) for x in (same, other))
    assert len(mine) == 250 and theirs <= mine and len(theirs) > 120
    assert (same != other).any(axis=(1, 2)).all()
    for half in (same, other):
        np.testing.assert_array_equal(half, patterns(unseen)[half is other])


def test_no_pattern_is_on_both_sides():
    seen, unseen = (set(map(bytes, patterns(x)[0])) for x in (False, True))
    assert not seen & unseen


@pytest.mark.parametrize("unseen", [False, True])
def test_both_rooms_are_seen_and_tell_the_goal(unseen):
    env, found = pattern_matching(unseen), set()
    for seed in range(6):
        walk = Walk(env, seed, facing=1)(LOOK_LEFT)
        left = [row[2:5] for row in walk.seen[1:4]]
        right = [row[2:5] for row in walk(LOOK_LEFT, LOOK_LEFT).seen[1:4]]
        assert set("".join(left + right)) <= {"Y", "L"}
        same = left == right
        to_cyan = [LOOK_RIGHT, FORWARD, FORWARD, FORWARD, LOOK_RIGHT, FORWARD]
        assert float(walk(*to_cyan).timestep.reward) == (1 if same else -1)
        assert success(walk.total, walk.length, env.horizon) == same
        found.add(same)
    assert found == {True, False}


def flooded(free, begin):
    """Return all cells that can be reached from `begin`."""
    seen, queue = {begin}, deque([begin])
    while queue:
        row, column = queue.popleft()
        for cell in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            if free[cell] and cell not in seen:
                seen.add(cell)
                queue.append(cell)
    return seen


@pytest.mark.parametrize("seed", range(5))
def test_one_piece_or_more(seed):
    rng, found = np.random.default_rng(seed), set()
    maps = np.pad(rng.random((60, 4, 7)) < 0.8, ((0, 0), (1, 1), (1, 1)))
    told = np.asarray(one_piece(maps))
    for free, answer in zip(maps, told, strict=True):
        cells = {tuple(c) for c in np.argwhere(free).tolist()}
        found.add(flooded(free, min(cells)) == cells)
        assert answer == (flooded(free, min(cells)) == cells)
    assert found == {True, False}


one_piece = jax.jit(jax.vmap(random_mazes.in_one_piece))


@cache
def mazes(kind, large, indicator):
    """Draw 40 mazes with the settings of an environment."""
    sides, walls = getattr(random_mazes, kind)[large, indicator]
    size = sides[1] + 2 + 2 * indicator
    draw = partial(
        random_mazes.random_map, size=size, sides=sides, walls=walls, indicator=indicator
    )
    u = np.random.default_rng(0).random((40, 3 + 2 * size**2), np.float32)
    return sides, walls, Maps(*map(np.asarray, jax.jit(jax.vmap(draw))(u)))


KINDS = [("SINGLE", False, False), ("SINGLE", True, False), ("SEQUENTIAL", False, True)]


@pytest.mark.parametrize("kind", KINDS)
def test_each_goal_is_in_reach_of_every_start_without_crossing_the_other(kind):
    for wall, goal, spawn in zip(*mazes(*kind)[2], strict=True):
        (first,), (second,) = (np.argwhere(np.isin(goal, x)).tolist() for x in ([1, 4], [2, 5]))
        starts = {tuple(x) for x in np.argwhere(spawn).tolist()}
        assert starts and not starts & {tuple(first), tuple(second)}
        for target, other in ((first, second), (second, first)):
            free = ~wall
            free[tuple(other)] = False
            assert starts <= flooded(free, tuple(target))


@pytest.mark.parametrize("kind", KINDS)
def test_random_mazes_have_the_sizes_and_walls_asked_for(kind):
    sides, walls, maps = mazes(*kind)
    found, shares = set(), []
    for wall, goal, spawn in zip(*maps, strict=True):
        free = ~wall
        if kind[2]:
            ((row, column),) = np.argwhere(np.isin(goal, [3, 6]))
            assert spawn.sum() == 1 and spawn[row, column + 1]
            assert free[:, column:].sum() == 2  # the start lies behind the indicator
            side = int(column) - 1
            free = free[:, :column]
            assert len({bool(x > 3) for x in goal[goal > 0]}) == 1
        else:
            side = int(np.argwhere(free).max())
            np.testing.assert_array_equal(spawn, free & (goal == 0))
        found.add(side)
        shares.append(1 - free[1 : side + 1, 1 : side + 1].mean())
        assert walls[0] - 1 / side**2 <= shares[-1] <= walls[1]
    assert found <= set(range(sides[0], sides[1] + 1)) and sides[1] in found
    assert np.ptp(shares) > 0.02


def test_unseen_mazes_are_others_and_always_the_same():
    draw = random_mazes.random_maps.__wrapped__  # drawn anew each time
    make = partial(draw, mazes=3, sides=(4, 4), walls=(0.2, 0.2))
    one, again, other = (make(seed, indicator=False).wall.tobytes() for seed in (0, 0, 1))
    assert one == again != other


@original_maps
def test_imaze_is_the_original():
    with np.load(FOLDER / "oh2016_maps.npz") as data:
        wall, goal, spawn = (data[f"IMaze/{k}"] for k in ("topology", "goal", "spawn"))
    ours = made(imaze, lengths=(5, 7, 9))
    for mine, theirs in zip(ours, (wall != 1, goal, spawn), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@original_maps
@pytest.mark.parametrize(
    "task, unseen", [("PatternMatching", False), ("PatternMatchingTest", True)]
)
def test_patterns_lie_in_the_original_building_and_mean_the_same(task, unseen):
    with np.load(FOLDER / "oh2016_maps.npz") as data:
        wall, goal, spawn = (data[f"{task}/{k}"] for k in ("topology", "goal", "spawn"))
    ours = made(pattern_matching, unseen=unseen)
    np.testing.assert_array_equal(ours.wall, wall != 1)
    np.testing.assert_array_equal(ours.spawn, spawn)
    for goals in (ours.goal, goal):
        left, right = goals[:, 1:4, 1:4], goals[:, 1:4, 7:10][:, ::-1, ::-1]
        same = (left == right).all(axis=(1, 2))
        assert same.sum() == 250
        np.testing.assert_array_equal(goals[:, 5, 4], np.where(same, 1, 4))
        np.testing.assert_array_equal(goals[:, 5, 6], np.where(same, 2, 5))


def made(make, **options):
    """Return the maps of which an environment is made."""
    with pytest.MonkeyPatch.context() as patch:
        found = []
        patch.setitem(make.__globals__, "maze", lambda maps, *_: found.append(maps))
        make(**options)
    return found[0]


TASKS = (
    "IMaze", "IMazeTest", "PatternMatching", "PatternMatchingTest", "Seq", "SeqIndicator",
    "SeqIndicatorLarge", "SeqIndicatorTest", "SeqLarge", "SeqTest", "Single", "SingleIndicator",
    "SingleIndicatorLarge", "SingleIndicatorTest", "SingleLarge", "SingleTest",
)  # fmt: skip


@original_maps
@pytest.mark.parametrize("task", TASKS)
def test_original_tasks_load_with_their_rules(task):
    given = json.loads((FOLDER / "oh2016_tasks.json").read_text())["tasks"][task]
    env = ENVIRONMENTS["OriginalMaze"](path=str(FOLDER), task=task)
    assert env.horizon == given["time_limit"]
    assert given["step_reward"] == pytest.approx(-2 / env.horizon)  # what `success` relies on
    rules, rng = original_rules(given), np.random.default_rng(0)
    for _ in range(10):
        ids = rng.choice(max(rules.colours) + 1, 8)
        assert quickly(rules, ids) == slowly(rules, ids)


@original_maps
@pytest.mark.parametrize("task, name", [
    ("IMaze", "IMaze"), ("PatternMatching", "PatternMatching"), ("Single", "SingleGoal"),
    ("SingleIndicator", "SingleGoal-indicator"), ("Seq", "SequentialGoals"),
    ("SeqIndicator", "SequentialGoals-indicator"),
])  # fmt: skip
def test_generated_tasks_pay_as_the_originals(task, name, monkeypatch):
    given = json.loads((FOLDER / "oh2016_tasks.json").read_text())["tasks"][task]
    found = []
    make = next(
        c.cell_contents for c in ENVIRONMENTS[name].__closure__ or () if callable(c.cell_contents)
    )
    monkeypatch.setitem(make.__globals__, "maze", lambda maps, rules, *_: found.append(rules))
    monkeypatch.setitem(make.__globals__, "random_maps", lambda *_: None)
    ENVIRONMENTS[name]()
    ours, theirs = found[0], original_rules(given)
    rng = np.random.default_rng(1)
    sides = [[0, 1, 2, 3], [0, 4, 5, 6]] if 6 in theirs.colours else [[0, 1, 2]]
    for ids in sides * 30:
        visits = rng.choice(ids, 8)
        assert slowly(ours, visits) == slowly(theirs, visits)


@original_maps
def test_unknown_tasks_are_named():
    with pytest.raises(ValueError, match=r"^task: 'Imaze' is unknown; did you mean 'IMaze'\?"):
        ENVIRONMENTS["OriginalMaze"](path=str(FOLDER), task="Imaze")


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("OriginalMaze", {}, "path: '' names no folder with oh2016_maps.npz"),
        ("OriginalMaze", {"path": "nowhere"}, "path: 'nowhere' has no file oh2016_maps.npz"),
        ("IMaze", {"lengths": (5, 2)}, "lengths: 2 is below 3"),
        ("IMaze", {"lengths": ()}, "lengths: "),
        ("IMaze", {"length": 5}, "environment_args: length=5 .* did you mean 'lengths'"),
        ("IMaze", {"lengths": (5,), "rows": 2}, "rows: 2 is below 3"),
        ("IMaze", {"lengths": (5,), "columns": 4}, "columns: 4 is even"),
        ("IMaze", {"max_steps_in_episode": 0}, "max_steps_in_episode: 0 is below 1"),
        ("SingleGoal", {"mazes": 0}, "mazes: 0 is below 1"),
    ],
)
def test_mistakes_are_named(name, options, message):
    with pytest.raises(ValueError, match=f"^{message}") as error:
        ENVIRONMENTS[name](**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options, limit", [({}, 50), ({"large": True}, 100)])
def test_large_mazes_leave_twice_the_time(options, limit, monkeypatch):
    monkeypatch.setattr(random_mazes, "random_maps", lambda *_: mazes(*KINDS[0])[2])
    for name in ("SingleGoal", "SequentialGoals"):
        assert ENVIRONMENTS[name](**options).horizon == limit
        assert ENVIRONMENTS[name](**options, max_steps_in_episode=7).horizon == 7


def test_a_file_of_another_kind_is_named(tmp_path):
    (tmp_path / "oh2016_tasks.json").write_text("{}")
    (tmp_path / "oh2016_maps.npz").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"oh2016_tasks.json in .* is not of this kind"):
        ENVIRONMENTS["OriginalMaze"](path=str(tmp_path))
    rules = {"time_limit": 5, "step_reward": -1.0, "goals": [], "blocks": []}
    (tmp_path / "oh2016_tasks.json").write_text(json.dumps({"tasks": {"IMaze": rules}}))
    with pytest.raises(ValueError, match=r"oh2016_maps.npz in .* is not of this kind"):
        ENVIRONMENTS["OriginalMaze"](path=str(tmp_path))


def test_a_path_may_name_a_variable_of_the_environment(monkeypatch, tmp_path):
    write_original_maps(tmp_path, ["Corridor"])
    monkeypatch.setenv("MEMRL_MAZES", str(tmp_path))
    env = ENVIRONMENTS["OriginalMaze"](path="$MEMRL_MAZES", task="Corridor")
    assert env.horizon == 9
    monkeypatch.delenv("MEMRL_MAZES")
    with pytest.raises(ValueError, match=r"^path: '\$MEMRL_MAZES' has no file"):
        ENVIRONMENTS["OriginalMaze"](path="$MEMRL_MAZES", task="Corridor")


def test_maps_that_cannot_be_played_are_refused():
    wall, goal = np.zeros((1, 3, 3), bool), np.zeros((1, 3, 3), np.uint8)
    with pytest.raises(ValueError, match=r"^spawn: map 0 of 1 has no spawn cell"):
        maze(Maps(wall, goal, wall), RULES["choice"])
    with pytest.raises(ValueError, match=r"^goal: ids \[9\] of the maps"):
        maze(Maps(wall, goal + 9, ~wall), RULES["choice"])


def test_many_at_once_are_as_one_alone_and_keep_their_types():
    env, count = imaze(), 3
    many = batch(env)
    keys = jax.random.split(jax.random.key(0), (2, count))
    state, timestep = many.reset(keys[0])
    actions = jnp.array([LOOK_RIGHT, FORWARD, LOOK_DOWN])
    after = jax.jit(many.step)(keys[1], state, actions)
    assert jax.tree.map(jnp.shape, after[1]) == jax.tree.map(jnp.shape, timestep)
    step = jax.jit(env.step)
    for i in range(count):
        alone = step(keys[1, i], jax.tree.map(lambda x, i=i: x[i], state), actions[i])
        together = jax.tree.map(lambda x, i=i: x[i], after)
        jax.tree.map(np.testing.assert_array_equal, alone, together)
        assert jax.tree.map(lambda x: x.dtype, alone[0]) == jax.tree.map(lambda x: x.dtype, state)


def test_starts_are_uniform_over_maps_and_directions():
    env = imaze((5,))
    episode, timestep = jax.jit(batch(env).reset)(jax.random.split(jax.random.key(2), 2000))
    assert timestep.start.all() and not timestep.last.any()
    pairs = np.stack([episode.state.at, episode.state.facing])
    _, counts = np.unique(pairs, axis=1, return_counts=True)
    assert len(counts) == 8 and np.ptp(counts) < 100
