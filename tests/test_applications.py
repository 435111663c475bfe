"""Applications against slow simulations, and what can be had with a memory and without."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import memrl_jax
from memrl_jax.build import make_environment
from memrl_jax.environments import ENVIRONMENTS, check, from_gymnax, make
from memrl_jax.environments.applications import HiddenRobot, Instructions, Recommender
from memrl_jax.environments.applications.instructions import KINDS, MOVES, TAKE, words
from memrl_jax.environments.check import QUICKLY

compiled = partial(jax.jit, compiler_options=QUICKLY)


def played(task: Any, policy: Any, seed: int, steps: int, params: Any = None) -> Any:
    """Play one episode on: states [T + 1], and actions, observations, rewards, ends, info [T].

    `policy`: key, state, params -> action. It is not stopped where the episode ends.
    """
    params = task.default_params if params is None else params

    def step(state: Any, key: Any) -> Any:
        act_key, key = jax.random.split(key)
        action = policy(act_key, state, params)
        observation, after, *rest = task.step_env(key, state, action, params)
        return after, (state, action, observation, *rest)

    reset_key, key = jax.random.split(jax.random.key(seed))
    first, state = task.reset_env(reset_key, params)
    _, out = jax.lax.scan(step, state, jax.random.split(key, steps))
    return first, *out


def many(task: Any, policy: Any, episodes: int, steps: int) -> Any:
    """Play episodes [E] and return what `played` does, as NumPy arrays [E, ...]."""
    play = compiled(jax.vmap(lambda seed: played(task, policy, seed, steps)))
    return jax.tree.map(np.asarray, play(jnp.arange(episodes)))


def often(task: Any, chance: float) -> Any:
    """Return the policy that knows everything, but for random actions with a chance."""

    def policy(key: Any, state: Any, params: Any) -> Any:
        chance_key, key = jax.random.split(key)
        space = task.actions
        if isinstance(task, HiddenRobot):
            random = jax.random.uniform(key, space.shape, jnp.float32, -1.5, 1.5)
        else:
            random = jax.random.randint(key, (), 0, space.n)
        best = task.best(state, params)
        return jnp.where(jax.random.uniform(chance_key) < chance, random, best)

    return policy


# The recommender.

USERS = Recommender()


def test_clicks_come_with_the_chance_that_the_docstring_says():
    task = Recommender(items=5, features=4, sharpness=3.0, offset=1.0, drift=0.1, steps=40)
    first, state, action, seen, reward, ends, info = many(task, often(task, 1.0), 500, 40)
    liking = np.einsum("etf,nf->etn", state.preference, task.catalogue)
    chance = 1 / (1 + np.exp(1.0 - 3.0 * liking))
    own = np.take_along_axis(chance, action[..., None], axis=-1)[..., 0]
    assert (first == 0).all() and not ends.any()
    np.testing.assert_array_equal(seen[..., 0], reward)
    np.testing.assert_array_equal(seen[..., 1:], task.catalogue[action])
    np.testing.assert_allclose(info["regret"], chance.max(axis=-1) - own, atol=1e-5)
    assert set(np.unique(reward)) == {0.0, 1.0}
    for low, high in [(0.0, 0.2), (0.2, 0.4), (0.4, 1.0)]:
        some = (own >= low) & (own < high)
        gap = (reward - own)[some].mean()
        assert some.sum() > 500 and abs(gap) < 4 * 0.5 / np.sqrt(some.sum())


def test_taste_drifts_on_the_sphere():
    task = Recommender(features=4, drift=0.1, steps=40)
    _, state, *_ = many(task, often(task, 1.0), 500, 40)
    taste = state.preference
    np.testing.assert_allclose(np.linalg.norm(taste, axis=-1), 1.0, rtol=1e-5)
    rng = np.random.default_rng(0)
    moved = np.eye(4)[0] + 0.1 * rng.normal(size=(20_000, 4))
    turned = moved[:, 0] / np.linalg.norm(moved, axis=1)
    cosine = (taste[:, 1:] * taste[:, :-1]).sum(axis=-1)
    assert abs(cosine.mean() - turned.mean()) < 4 * turned.std() / np.sqrt(19_000)
    assert abs(taste[:, 0].mean(axis=0)).max() < 4 * 0.5 / np.sqrt(500)  # any taste at first


def test_items_are_the_same_in_every_episode_and_of_length_one():
    np.testing.assert_array_equal(USERS.catalogue, Recommender(drift=0.5).catalogue)
    np.testing.assert_allclose(np.linalg.norm(USERS.catalogue, axis=1), 1.0, rtol=1e-6)
    assert not np.array_equal(USERS.catalogue, Recommender(seed=1).catalogue)


def chances(task: Recommender, users: int) -> np.ndarray:
    """Return the chance of a click on every item, for all users and steps [U, T, N].

    It does not depend on what is recommended.
    """
    _, state, *_ = many(task, often(task, 1.0), users, task.steps)
    liking = state.preference @ task.catalogue.T
    return 1 / (1 + np.exp(task.offset - task.sharpness * liking))


def memoryless(chance: Any, ascents: int = 200) -> Any:
    """Return clicks per step of the best function found of the last item and click.

    By gradient ascent on the exact expectation, over the same users [U, T, N]; the function gives
    chances of the next item. It begins at staying after a click and going anywhere else without.
    """
    items = chance.shape[-1]
    stay = 4 * jnp.eye(items)

    def clicks(logits: Any) -> Any:
        begin, missed, hit = jax.tree.map(jax.nn.softmax, logits)

        def step(share: Any, chance: Any) -> Any:  # [U, N] how likely each item is shown
            clicked = share * chance
            return clicked @ hit + (share - clicked) @ missed, clicked.sum(axis=-1).mean()

        share = jnp.broadcast_to(begin, chance[:, 0].shape)
        return jax.lax.scan(step, share, jnp.swapaxes(chance, 0, 1))[1].mean()

    optimizer = optax.adam(0.2)
    logits = jnp.zeros(items), 0.1 * jax.random.normal(jax.random.key(0), stay.shape) - stay, stay

    def ascend(carry: Any, _: Any) -> Any:
        logits, moments = carry
        value, gradient = jax.value_and_grad(lambda x: -clicks(x))(logits)
        step, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(logits, step), moments), -value

    carry = logits, optimizer.init(logits)
    return jax.jit(lambda: jax.lax.scan(ascend, carry, length=ascents)[1])()


def averaging(chance: np.ndarray, catalogue: np.ndarray, decay: float, usual: float) -> float:
    """Return clicks per step of an agent that keeps one vector for every user.

    It is the sum of the items shown, each times how much more often than `usual` it was clicked,
    and decays; what lies farthest in its direction is recommended.
    """
    rng = np.random.default_rng(0)
    taste = np.zeros((len(chance), catalogue.shape[1]))
    total = 0.0
    for now in np.swapaxes(chance, 0, 1):
        item = np.argmax(taste @ catalogue.T, axis=1)
        shown = now[np.arange(len(now)), item]
        clicked = rng.random(len(now)) < shown
        taste = decay * taste + (clicked - usual)[:, None] * catalogue[item]
        total += shown.mean()
    return total / chance.shape[1]


def test_a_running_average_has_less_than_half_the_regret_of_any_agent_without_memory():
    chance = chances(USERS, 400)
    known = chance.max(axis=-1).mean()
    fixed = chance.mean(axis=(0, 1)).max()
    found = np.asarray(memoryless(jnp.asarray(chance[:80])))
    best = found[-1] + known - chance[:80].max(axis=-1).mean()
    remembers = averaging(chance, USERS.catalogue, decay=0.99, usual=0.3)
    assert found[-1] - found[-100] < 0.02  # it has all but converged
    assert known > 3 * fixed and best > fixed
    assert known - remembers < 0.5 * (known - best)


# The robot.


def drive(task: HiddenRobot, goal: Any, actions: Any) -> Any:
    """Simulate the robot in plain Python: rows of position, velocity and reward."""
    at, speed, rows = [0.0, 0.0], [0.0, 0.0], []
    for action in actions:
        for i in range(2):
            push = task.strength * max(-1.0, min(1.0, float(action[i])))
            speed[i] += 0.1 * (push - task.friction * speed[i])
            at[i] += 0.1 * speed[i]
            if abs(at[i]) >= 2:
                at[i], speed[i] = (2.0 if at[i] > 0 else -2.0), 0.0
        arrived = (at[0] - goal[0]) ** 2 + (at[1] - goal[1]) ** 2 <= task.radius**2
        if arrived:
            at, speed = [0.0, 0.0], [0.0, 0.0]
        rows.append([*at, *speed, float(arrived)])
    return np.array(rows)


@pytest.mark.parametrize("shown", [(), ("velocity",), ("goal",), ("velocity", "goal")])
def test_the_robot_moves_as_in_plain_python(shown):
    task = HiddenRobot(steps=150, strength=1.5, **dict.fromkeys(shown, True))
    _, state, action, seen, reward, ends, _ = many(task, often(task, 0.3), 3, 150)
    assert not ends.any() and reward.sum() > 10
    for e in range(3):
        goal = state.goal[e, 0]
        rows = drive(task, goal, action[e])
        parts = [rows[:, :2], rows[:, 4:]]
        if "goal" in shown:
            parts.insert(1, np.tile(goal, (150, 1)))
        if "velocity" in shown:
            parts.insert(1, rows[:, 2:4])
        np.testing.assert_allclose(seen[e], np.concatenate(parts, axis=1), atol=1e-4)
        np.testing.assert_array_equal(reward[e], rows[:, 4])


def test_walls_stop_the_robot():
    task = HiddenRobot(radius=0.0)
    _, _, action, seen, *_ = many(task, lambda *_: jnp.array([9.0, -1.0]), 1, 60)
    np.testing.assert_allclose(seen[0], drive(task, (1, 0), action[0])[:, [0, 1, 4]], atol=1e-4)
    np.testing.assert_array_equal(seen[0, -1], [2, -2, 0])


def test_the_goal_lies_anywhere_on_the_circle_and_stays():
    task = HiddenRobot()
    _, state, *_ = many(task, often(task, 1.0), 2_000, 2)
    np.testing.assert_allclose(np.linalg.norm(state.goal, axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(state.goal[:, 0], state.goal[:, 1])
    angle = np.arctan2(*state.goal[:, 0].T)
    seen, _ = np.histogram(angle, 20, (-np.pi, np.pi))
    assert abs(((seen - 100) ** 2 / 100).sum() - 19) < 4 * np.sqrt(2 * 19)


def test_the_controller_that_knows_everything_returns_what_the_docstring_says():
    task = HiddenRobot()
    *_, reward, _, _ = many(task, often(task, 0.0), 400, 200)
    assert abs(reward.sum(axis=1).mean() - 15.75) < 0.2  # three standard errors


# Instructions.


def follow(task: Instructions, state: Any, actions: Any, delay: int) -> Any:
    """Simulate an errand in plain Python: rows of word, cells, reward and whether it ended."""
    colours, shapes = ["red", "green", "blue"], ["ball", "key"]
    names = [f"{colours[kind // 2]} {shapes[kind % 2]}" for kind in state.kinds]
    text = "go to the " + " then the ".join(names[: task.named])
    script = text.split() + [""] * delay
    lying = {(int(r), int(c)): i for i, (r, c) in enumerate(state.places)}
    here, order, rows = (int(state.at[0]), int(state.at[1])), list(range(task.named)), []
    for t, action in enumerate(actions):
        reward, ends = 0.0, False
        if t >= len(script):
            if action == TAKE and here in lying:
                right = lying.pop(here) == order.pop(0)
                reward, ends = right / task.named, not right or not order
            there = here[0] + int(MOVES[action][0]), here[1] + int(MOVES[action][1])
            here = there if min(there) >= 0 and max(there) < task.size else here
        word = script[t + 1] if t + 1 < len(script) else ""
        rows.append(
            (word, look(task, here, lying, state.kinds, t + 1 >= len(script)), reward, ends)
        )
        if ends:
            break
    return rows


def look(task: Instructions, here: Any, lying: Any, kinds: Any, seeing: bool) -> np.ndarray:
    span = range(-task.sight, task.sight + 1)
    cells = np.zeros((len(span), len(span)), int)
    for i, down in enumerate(span):
        for j, right in enumerate(span):
            cell = here[0] + down, here[1] + right
            if seeing and (min(cell) < 0 or max(cell) >= task.size):
                cells[i, j] = 1
            elif seeing and cell in lying:
                cells[i, j] = 2 + kinds[lying[cell]]
    return cells


@pytest.mark.parametrize(("named", "delay", "sight"), [(1, 0, 1), (2, 3, 2), (3, 1, 4)])
def test_errands_go_as_in_plain_python(named, delay, sight):
    task = Instructions(named=named, delay=delay, sight=sight)
    steps = task.default_params.max_steps_in_episode
    first, state, action, seen, reward, ends, _ = many(task, often(task, 0.5), 30, steps)
    ended = []
    for e in range(30):
        start = jax.tree.map(lambda x, e=e: x[e, 0], state)
        rows = follow(task, start, action[e], delay)
        word, cells, rewards, over = zip(*rows, strict=True)
        assert words([first[0][e]]) == "go" and (first[1][e] == 0).all()
        assert [words([x]) for x in seen[0][e, : len(rows)]] == list(word)
        keep = slice(0, len(rows) - over[-1])  # after the last step, what is seen does not matter
        np.testing.assert_array_equal(seen[1][e, keep], np.array(cells)[keep])
        np.testing.assert_allclose(reward[e, : len(rows)], rewards, rtol=1e-6)
        np.testing.assert_array_equal(ends[e, : len(rows)], over)
        ended.append(sum(rewards) == pytest.approx(1))
    assert 0 < sum(ended) < 30  # errands that went right and that went wrong were compared


def test_a_sentence_in_words():
    assert words([1, 2, 3, 5, 8, 4, 3, 7, 9, 0]) == "go to the red ball then the blue key"


@pytest.mark.parametrize(
    "options", [{}, {"named": 4, "delay": 7, "size": 8}, {"objects": 1, "named": 1}]
)
def test_who_knows_everything_returns_one_in_time(options):
    task = Instructions(**options)
    steps = task.default_params.max_steps_in_episode
    *_, reward, ends, _ = many(task, often(task, 0.0), 100, steps)
    alive = np.cumsum(ends, axis=1) - ends == 0
    np.testing.assert_allclose((reward * alive).sum(axis=1), 1.0, rtol=1e-6)
    read = 4 * task.named + 1 + task.delay
    most = read + task.named * (2 * task.size - 1)
    assert alive.sum(axis=1).max() <= most and steps - read == 4 * (most - read)


def test_objects_differ_and_lie_apart():
    task = Instructions(objects=KINDS, named=1, size=3)
    _, state, *_ = many(task, often(task, 0.0), 500, 1)
    assert (np.sort(state.kinds[:, 0], axis=1) == np.arange(KINDS)).all()
    cells = state.places[:, 0] @ [3, 1]
    taken = np.sort(np.append(cells, (state.at[:, 0] @ [3, 1])[:, None], axis=1), axis=1)
    assert (np.diff(taken, axis=1) > 0).all() and taken.min() == 0 and taken.max() == 8
    seen = np.bincount(state.kinds[:, 0, 0], minlength=KINDS)
    assert abs(((seen - 500 / KINDS) ** 2 / (500 / KINDS)).sum() - 5) < 4 * np.sqrt(10)


# All of them.


@pytest.mark.parametrize(
    ("task", "dials"),
    [
        (Recommender(steps=30), {"drift": [0.0, 0.1, 1.0], "sharpness": [1.0, 5.0, 9.0]}),
        (HiddenRobot(steps=30), {"radius": [0.1, 0.5, 0.9], "friction": [0.0, 0.5, 1.0]}),
        (Instructions(objects=4), {"named": [1, 2, 4], "delay": [0, 5, 2]}),
    ],
    ids=["recommender", "robot", "instructions"],
)
def test_one_program_plays_all_dials(task, dials):
    traced = []

    @jax.jit
    def rewards(dials: Any) -> Any:
        traced.append(1)
        params = task.default_params.replace(**dials)
        return played(task, often(task, 0.0), 1, 30, params)[4]

    points = [dict(zip(dials, x, strict=True)) for x in zip(*dials.values(), strict=True)]
    as_arrays = jax.tree.map(jnp.asarray, points)
    alone = [rewards(point) for point in as_arrays]
    assert len(traced) == 1 and not np.array_equal(alone[0], alone[1])
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *as_arrays)
    np.testing.assert_allclose(jax.jit(jax.vmap(rewards))(stacked), np.stack(alone), atol=1e-6)
    constructed = type(task)(**{**vars(task), **points[2]})
    assert constructed.default_params.replace(
        max_steps_in_episode=1
    ) == task.default_params.replace(**points[2], max_steps_in_episode=1)


def test_options_go_to_the_task_or_to_its_parameters():
    env = make("Recommender", {"items": 7, "drift": 0.2, "max_steps_in_episode": 9})
    assert env.spec.actions.n == 7 and env.horizon == 9
    robot = make("HiddenRobot", {"velocity": True, "goal": True})
    assert robot.spec.observations.shape == (7,)
    errand = make("Instructions", {"sight": 1, "size": 8})
    assert errand.spec.observations[1].shape == (3, 3)

    def reward(radius: Any) -> Any:
        env = from_gymnax(HiddenRobot(), radius=radius)
        state, _ = env.reset(jax.random.key(0))
        return env.step(jax.random.key(1), state, jnp.zeros(2))[1].reward

    assert jax.vmap(reward)(jnp.array([0.9, 1.1])).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Recommender", {"items": 1}, "items: 1 is below 2"),
        ("Recommender", {"features": 1}, "features: 1 is below 2"),
        ("Recommender", {"drift": -0.1}, "drift: -0.1 is not between"),
        ("Recommender", {"sharpnes": 1.0}, "Recommender option: 'sharpnes' is unknown"),
        ("HiddenRobot", {"radius": 2.0}, "radius: 2.0 is not between 0 and 1"),
        ("HiddenRobot", {"friction": 11.0}, "friction: 11.0 is not between 0 and 10"),
        ("HiddenRobot", {"goal": 2}, "environment_args: goal=2 is"),
        ("Instructions", {"objects": 7}, "objects: 7 is above 6"),
        ("Instructions", {"objects": 2, "named": 3}, "named: 3 is above 2"),
        ("Instructions", {"size": 2}, "size: 2 is below 3"),
        ("Instructions", {"delay": -1}, "delay: -1 is below 0"),
    ],
)
def test_options_out_of_range_are_refused_in_one_line(name, options, message):
    with pytest.raises(ValueError) as error:
        make(name, options)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_breakout_flickers():
    config = memrl_jax.presets["drqn"].replace(
        environment="Breakout-MinAtar", view=("flicker=0.5",)
    )
    env = make_environment(config)
    check(env, jax.random.key(0), steps=30)
    key = jax.random.key(1)

    def step(state: Any, key: Any) -> Any:
        state, timestep = env.step(key, state, jax.random.randint(key, (), 0, 3))
        return state, timestep.observation

    seen = compiled(lambda: jax.lax.scan(step, env.reset(key)[0], jax.random.split(key, 1_000)))()[
        1
    ]
    plain = ENVIRONMENTS["Breakout-MinAtar"]()
    assert np.any(plain.reset(key)[1].observation)  # a frame is never blank
    assert abs((~np.any(seen, axis=(1, 2, 3))).mean() - 0.5) < 4 * 0.5 / np.sqrt(1_000)
