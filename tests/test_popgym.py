"""POPGym's tasks against the popgym package: its hidden state and noise, the same actions."""

import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest.mock import patch

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax import draws, plot
from memrl_jax.environments import make
from memrl_jax.environments.check import QUICKLY
from memrl_jax.environments.popgym import (
    TASKS,
    Battleship,
    CartPole,
    CountRecall,
    MineSweeper,
    MultiarmedBandit,
    Pendulum,
    RepeatFirst,
    RepeatPrevious,
    cards,
    register,
    text,
)
from memrl_jax.environments.popgym.boards import chosen, nth_bit, place, places
from memrl_jax.spaces import Continuous, is_part

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import popgym.envs

EPISODES = 12  # of each task; in half of them most actions come from a policy that cheats


class Game(NamedTuple):
    """How the tests see into one of popgym's games."""

    hidden: Callable[[Any], dict[str, Any]]  # what was decided when the episode began
    cheat: Callable[[Any], Any]  # a good action, or None for any


def order(env: Any) -> np.ndarray:
    """Return the suits of the cards in the order in which popgym draws them."""
    return env.deck.suits_idx[env.deck.idx[::-1]]


def queries(env: Any) -> np.ndarray:
    return np.stack([env.deck_idx_type[x.idx[::-1]] for x in (env.value_deck, env.query_deck)])


def previous(env: Any) -> Any:
    seen = env.deck["player"]
    return env.deck.suits_idx[seen[-env.k]] if len(seen) >= env.k else None


def pair(env: Any) -> Any:
    turned = env.deck["in_play_idx"]
    closed = [i for i in range(len(env.state)) if i not in env.deck["face_up_idx"] + turned]
    return next((i for i in closed if not turned or env.state[i] == env.state[turned[0]]), None)


def balance(env: Any) -> int:
    return int(env.state[2] + env.state[3] > 0)


GAMES = {
    "Autoencode": Game(
        lambda env: {"order": order(env)},
        lambda env: env.deck.suits_idx[env.deck["system"][-1]],
    ),
    "RepeatFirst": Game(lambda env: {"order": order(env)}, lambda env: env.card),
    "RepeatPrevious": Game(lambda env: {"order": order(env)}, previous),
    "CountRecall": Game(lambda env: {"order": queries(env)}, lambda env: env.counts[env.query]),
    "HigherLower": Game(
        lambda env: {"order": env.deck.ranks_idx[env.deck.idx[::-1]]},
        lambda env: int(env.deck.show("player", ["ranks_idx"]).item() > 6),
    ),
    "Concentration": Game(lambda env: {"order": env.state.copy()}, pair),
    "MultiarmedBandit": Game(
        lambda env: {"chance": env.bandits.copy()}, lambda env: int(np.argmax(env.bandits))
    ),
    "Battleship": Game(
        # Of cells, it is not known which make a ship: each counts as one.
        lambda env: {"ships": np.tile(np.argwhere(env.board == 1), 2).astype(np.int32)},
        lambda env: np.argwhere((env.board == 1) & (env.guesses == 0))[0],
    ),
    "MineSweeper": Game(
        lambda env: {"mines": np.flatnonzero(env.hidden_grid == 1).astype(np.int32)},
        lambda env: np.argwhere(env.hidden_grid == 0)[0],
    ),
    "CartPole": Game(lambda env: {}, balance),
    "Pendulum": Game(lambda env: {}, lambda env: None),
}


def game(name: str) -> Game:
    stem = re.sub("Easy$|Medium$|Hard$|.*Only", "", re.sub("(Easy|Medium|Hard)$", "", name))
    return GAMES[stem]


class Recorder:
    """A NumPy generator that keeps the normal numbers, and the single uniform ones, it gives."""

    def __init__(self, generator: np.random.Generator):
        self.generator = generator
        self.normals: list[Any] = []
        self.uniforms: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.generator, name)

    def normal(self, mean: float, deviation: Any) -> Any:
        self.normals.append(self.generator.normal(size=np.shape(deviation)))
        return mean + deviation * self.normals[-1]

    def random(self, *size: int, **options: Any) -> Any:
        x = self.generator.random(*size, **options)
        if not size:
            self.uniforms.append(x)
        return x


def physics(env: Any) -> np.ndarray:
    return np.asarray(env.state, np.float32) if hasattr(env, "state") else np.zeros(0, np.float32)


def play(name: str, seed: int, cheating: bool) -> dict[str, Any]:
    """Play an episode of popgym; return what was hidden, done and seen, as arrays [T, ...]."""
    env = getattr(popgym.envs, name)()
    rng = np.random.default_rng(seed)
    env._np_random = Recorder(np.random.default_rng(seed + 1))
    env.action_space.seed(seed)
    first, _ = env.reset()
    out: dict[str, Any] = {"hidden": game(name).hidden(env), "first": first, "steps": []}
    over = False
    while not over:
        before = physics(env) if "Only" in name else ()
        action = game(name).cheat(env) if cheating and rng.random() < 0.8 else None
        action = env.action_space.sample() if action is None else action
        observation, reward, terminated, truncated, _ = env.step(action)
        out["steps"].append((before, action, observation, reward, terminated, truncated))
        over = terminated or truncated
    noise = np.asarray(env._np_random.normals, np.float32).reshape(-1, 2)
    chance = np.asarray(env._np_random.uniforms, np.float32)
    return out | {"noise": noise, "chance": chance}


class Dealer:
    """Stands for chance in our tasks: decides as popgym did; what it holds is traced."""

    def __init__(self, hidden: dict[str, Any]):
        self.hidden = hidden
        self.normal = self.uniform = self.card = None

    def draw(self, key: Any, left: Any) -> Any:
        order = self.hidden["order"]
        kind = order[len(order) - jnp.sum(left)] if self.card is None else self.card
        return kind, cards.take(left, kind)

    def draw_each(self, key: Any, *left: Any) -> Any:
        orders = self.hidden["order"]
        kinds = tuple(order[len(order) - jnp.sum(x)] for order, x in zip(orders, left, strict=True))
        return kinds, tuple(map(cards.take, left, kinds))

    def at(self, action: Any) -> None:
        """Decide what the card at a place shows, where cards lie on a table."""
        self.card = self.hidden["order"][action]


def follow(task: Any, played: dict[str, Any], concentration: bool) -> Any:
    """Take popgym's actions in our task; return the first observation, and what steps gave [T]."""
    dealer = Dealer(played["hidden"])
    own = {name: x for name, x in played["hidden"].items() if name != "order"}
    key, params = jax.random.key(0), task.default_params

    def normal(key: Any, shape: Any, dtype: Any) -> Any:
        return dealer.normal

    def uniform(key: Any, shape: Any, *rest: Any) -> Any:
        return dealer.uniform if shape == () else jnp.zeros(shape, jnp.float32)

    def step(state: Any, x: Any) -> Any:
        before, action, dealer.normal, dealer.uniform = x
        if concentration:
            dealer.at(action)
        state = state._replace(physics=before) if hasattr(state, "physics") else state
        observation, state, reward, terminated, _ = task.step_env(key, state, action, params)
        return state, (observation, reward, terminated, task.is_truncated(state, params))

    with (
        patch.object(cards, "draw", dealer.draw),
        patch.object(cards, "draw_each", dealer.draw_each),
        patch.object(draws, "normal", normal),
        patch.object(draws, "uniform", uniform),
    ):
        dealer.normal = played["noise"][0]
        first, state = task.reset_env(key, params)
        state = state._replace(**own)
        if concentration:
            dealer.card = None
        xs = played["before"], played["action"], played["noise"][1:], played["chance"]
        return first, jax.lax.scan(step, state, xs)[1]


def padded(episodes: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack episodes, [E, T, ...]; `going` tells which steps were taken."""
    most = max(len(e["steps"]) for e in episodes)

    def extended(x: Any, size: int) -> np.ndarray:
        x = np.asarray(x)
        x = x.astype(np.float32) if x.dtype.kind == "f" else x
        return np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]), x.dtype)])

    def one(e: dict[str, Any]) -> dict[str, Any]:
        names = "before", "action", "observation", "reward", "terminated", "truncated"
        columns: dict[str, Any] = dict(zip(names, zip(*e["steps"], strict=True), strict=True))
        columns["going"] = np.ones(len(e["steps"]), bool)
        columns = {name: extended(x, most) for name, x in columns.items()}
        columns |= {"noise": extended(e["noise"], most + 1), "chance": extended(e["chance"], most)}
        return columns | {"hidden": e["hidden"], "first": np.asarray(e["first"])}

    return jax.tree.map(lambda *xs: np.stack(xs), *map(one, episodes))


@pytest.mark.parametrize("name", TASKS)
def test_it_is_popgyms(name):
    played = padded([play(name, 100 + i, i % 2 == 0) for i in range(EPISODES)])
    task = TASKS[name]
    if "VelocityOnly" in name:
        task = task.__class__("velocities", task.steps, faithful=True)
    given = (
        played | {"action": played["action"].astype(np.float32)} if "Pendulum" in name else played
    )
    if not is_part(task.actions):
        given = given | {"action": tuple(np.moveaxis(given["action"], -1, 0))}
    both = jax.jit(
        jax.vmap(lambda x: follow(task, x, "Concentration" in name)), compiler_options=QUICKLY
    )
    first, (observation, *rest) = both(given)
    arranged = jnp.stack(observation, -1) if isinstance(observation, tuple) else observation
    begun = jnp.stack(first, -1) if isinstance(first, tuple) else first
    going = played["going"]
    close = dict(rtol=0, atol=1e-5) if isinstance(task.observations, Continuous) else dict(rtol=0)
    if not ("Cart" in name or "Pendulum" in name):
        np.testing.assert_array_equal(begun, played["first"])
    np.testing.assert_allclose(arranged[going], played["observation"][going], **close)
    for x, name in zip(rest, ("reward", "terminated", "truncated"), strict=True):
        np.testing.assert_allclose(x[going], played[name][going], rtol=0, atol=1e-6, err_msg=name)


def perfect(state: Any, task: Any, observation: Any) -> Any:
    """Return the best action by what the state hides."""
    if isinstance(task, RepeatFirst):
        return state.first
    if isinstance(task, CountRecall):
        return task.actions.n - 1 - state.shown[state.query]
    back = task.k if isinstance(task, RepeatPrevious) else 2 * (state.time + 1) - task.length
    return state.suits[state.time + 1 - back].astype(jnp.int32)


@pytest.mark.parametrize("name", ["RepeatFirst", "RepeatPrevious", "Autoencode", "CountRecall"])
def test_a_perfect_memory_returns_one(name):
    env = make(f"{name}Easy", {})
    task = TASKS[f"{name}Easy"]

    def episode(key: Any) -> Any:
        reset_key, key = jax.random.split(key)

        def step(carry: Any, key: Any) -> Any:
            state, timestep = carry
            action = perfect(state.state, task, timestep.observation)
            return (after := env.step(key, state, action)), after[1]

        carry = env.reset(reset_key)
        return jax.lax.scan(step, carry, jax.random.split(key, env.horizon))[1]

    keys = jax.random.split(jax.random.key(0), 8)
    timestep = jax.jit(jax.vmap(episode), compiler_options=QUICKLY)(keys)
    assert timestep.last[:, -1].all() and not timestep.last[:, :-1].any()
    assert (timestep.discount[:, -1] == 0).all()
    np.testing.assert_allclose(timestep.reward.sum(axis=1), 1.0, atol=1e-5)


def chi_squared(seen: np.ndarray, expected: Any) -> float:
    """Return how many standard deviations above its mean the statistic of some counts is."""
    freedom = seen.size - 1
    return float((((seen - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


def test_cards_come_like_those_of_a_shuffled_deck():
    def two(key: Any) -> Any:
        first_key, key = jax.random.split(key)
        first, left = cards.draw(first_key, cards.fresh(4, 1))
        second, left = cards.draw(key, left)
        return 4 * first + second, left

    pair, left = jax.jit(jax.vmap(two))(jax.random.split(jax.random.key(1), 40_000))
    same = np.eye(4, dtype=bool).ravel()
    expected = 40_000 * np.where(same, 13 * 12, 13 * 13) / (52 * 51)
    assert abs(chi_squared(np.bincount(pair, minlength=16), expected)) < 4
    assert (left.sum(axis=1) == 50).all()


def test_every_set_of_mines_is_as_likely():
    sets = jax.jit(jax.vmap(lambda key: chosen(key, 6, 3)))(
        jax.random.split(jax.random.key(2), 20_000)
    )
    found, seen = np.unique(np.sort(sets, axis=1), axis=0, return_counts=True)
    assert (
        len(found) == 20 and (found[:, 0] < found[:, 1]).all() and (found[:, 1] < found[:, 2]).all()
    )
    assert abs(chi_squared(seen, 1_000)) < 4


def test_ships_lie_as_in_popgym():
    """The second ship is placed uniformly where the first one leaves room."""
    board = np.zeros((5, 5), bool)
    board[2, 1:4] = True
    (other,) = np.flatnonzero((places(5, 3) == [2, 1, 2, 3]).all(axis=1))
    number = jax.jit(jax.vmap(lambda x: place([(3, jnp.int32(other))], 3, 5, x)))(
        jax.random.uniform(jax.random.key(3), (30_000,))
    )
    found, seen = np.unique(number, return_counts=True)
    ours = np.tile(board, (len(found), 1, 1))
    for x, (top, left, bottom, right) in zip(ours, places(5, 3)[found], strict=True):
        x[top : bottom + 1, left : right + 1] = True
    env = popgym.envs.Battleship(board_size=5)
    env._np_random = np.random.default_rng(0)
    theirs = [env.place_ship(board.astype(np.int8), 3) for _ in range(3_000)]
    assert {x.tobytes() for x in ours} == {(np.asarray(x) > 0).tobytes() for x in theirs}
    assert abs(chi_squared(seen, 30_000 / len(ours))) < 4


def test_bits_are_counted_from_the_lowest():
    word = 0b1000_0000_0000_0001_0010_0000_0000_0110
    found = [int(nth_bit(jnp.uint32(word), jnp.int32(n))) for n in range(word.bit_count())]
    assert found == [i for i in range(32) if word >> i & 1]


def test_episodes_begin_as_in_popgym():
    keys = jax.random.split(jax.random.key(4), 2_000)
    _, cart = jax.vmap(CartPole().reset)(keys)
    _, pendulum = jax.vmap(Pendulum().reset)(keys)
    _, arms = jax.vmap(MultiarmedBandit().reset)(keys)
    for x, low, high in [
        (cart.physics, -0.05, 0.05),
        (pendulum.physics / np.array([np.pi, 1]), -1, 1),
        (arms.chance, 0, 1),
    ]:
        seen, _ = np.histogram(x, 20, (low, high))
        assert abs(chi_squared(seen, np.size(x) / 20)) < 4


def test_noise_is_normal():
    _, states = jax.vmap(CartPole(noise=0.1).reset)(jax.random.split(jax.random.key(5), 2_000))
    env = CartPole(noise=0.1)
    step = jax.vmap(
        lambda key, state: env.step_env(key, state, jnp.int32(0), env.default_params)[:2]
    )
    observation, after = step(jax.random.split(jax.random.key(6), 2_000), states)
    noise = observation - after.physics[:, ::2]
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 0.1) < 0.005
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.1


def test_gymnax_makes_them():
    register()
    with pytest.raises(ValueError, match="AutoencodeEasy is already registered"):
        register()
    env, params = gymnax.make("RepeatPreviousEasy", k=2)
    assert params.k == 2 and env.action_space(params).n == env.num_actions == 4
    observation, state = env.reset(jax.random.key(0), params)
    assert env.observation_space(params).contains(observation)
    out = env.step(jax.random.key(1), state, 0, params)
    assert len(out) == 6 and out[5]["final_observation"] == out[0]
    seen = gymnax.make("ConcentrationEasy")[0].observation_space(None)
    assert seen.shape == (52,) and seen.low == 0 and seen.high == 2


def test_parameters_can_be_traced():
    """One program for all numbers of steps back, each with the rewards of its own."""

    def total(k: Any) -> Any:
        task = RepeatPrevious()
        params = task.default_params.replace(k=k)
        _, state = task.reset_env(jax.random.key(0), params)

        def step(state: Any, key: Any) -> Any:
            answer = state.suits[jnp.maximum(state.time + 1 - k, 0)]
            _, state, reward, *_ = task.step_env(key, state, answer, params)
            return state, reward

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 51))[1].sum()

    totals = jax.jit(jax.vmap(total))(jnp.arange(1, 33))
    np.testing.assert_allclose(totals, 1.0, atol=1e-5)


some: Any = str  # a text of any type


@pytest.mark.parametrize(
    ("make_task", "message"),
    [
        (lambda: RepeatPrevious(1, 52), "k: 52 is above 51"),
        (lambda: RepeatFirst(0), "decks: 0"),
        (lambda: CountRecall(1, some("rank")), "kind: .*ranks"),
        (lambda: MineSweeper(4, 14), "mines: 14"),
        (lambda: Battleship(4), "size: 4"),
        (lambda: CartPole(some("position")), "seen: .*positions"),
        (lambda: Pendulum(noise=-1.0), "noise: -1"),
    ],
)
def test_sizes_out_of_range_are_refused(make_task, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make_task()


@pytest.mark.parametrize("name", [name for name in TASKS if name.endswith("Easy")])
def test_states_are_shown_as_text_and_picture(name, tmp_path):
    env = TASKS[name]
    state = env.reset(jax.random.key(0))[1]
    lines = text(state).splitlines()
    assert len(lines) >= 2 and not lines[0].startswith(" ")
    plot.state(state, tmp_path / "state.png")
    assert (tmp_path / "state.png").stat().st_size > 5_000


def test_a_board_shows_ships_and_shots():
    env = TASKS["BattleshipEasy"]
    _, state = env.reset(jax.random.key(0))
    row, column = np.asarray(state.ships[3, :2])
    _, state, *_ = env.step_env(jax.random.key(1), state, (row, column), env.default_params)
    board = text(state).splitlines()[1:]
    cells = np.array([line.split() for line in board])
    assert cells[row, column] == "X" and (cells == "S").sum() == 11 and cells.shape == (8, 8)


def test_only_states_of_popgym_are_shown():
    with pytest.raises(TypeError, match="int is no state of a task of POPGym"):
        text(3)
