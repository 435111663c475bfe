"""Random mazes with one goal to choose, or two to visit in order."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import checks, tree
from memrl_jax.environments.mazes.maze import Maps, maze
from memrl_jax.environments.mazes.rules import choice, order, priced
from memrl_jax.types import Array, Environment

# By size and `indicator`: ranges of the side and of the fraction of walls, as in the original maps.
SMALL, LARGE = False, True
SINGLE = {
    (SMALL, False): ((4, 8), (0.14, 0.29)),
    (LARGE, False): ((8, 14), (0.20, 0.30)),
    (SMALL, True): ((5, 7), (0.16, 0.30)),
    (LARGE, True): ((8, 10), (0.05, 0.18)),
}
SEQUENTIAL = {
    (SMALL, False): ((5, 7), (0.14, 0.29)),
    (LARGE, False): ((8, 10), (0.10, 0.30)),
    (SMALL, True): ((4, 6), (0.15, 0.28)),
    (LARGE, True): ((7, 9), (0.06, 0.23)),
}


def single_goal(
    indicator: bool = False,
    large: bool = False,
    unseen: bool = False,
    mazes: int = 1000,
    max_steps_in_episode: int | None = None,
    rows: int = 6,
    columns: int = 7,
) -> Environment:
    """Make random mazes with a red and a cyan goal (Oh et al., 2016, section 5.3); see `maze`.

    Cyan pays 1 and red -1. With the `indicator`, a block that the agent crosses at the beginning,
    this holds if the block is lime; if it is yellow, red pays 1 and cyan -1. Either goal ends the
    episode; every other step pays -2 / `max_steps_in_episode`, by default 50, or 100 in `large`
    mazes. See `random_maps` for the mazes; `unseen` draws other mazes of the same kind.
    """
    sides, walls = SINGLE[large, indicator]
    right, wrong = (1, 2) if indicator else (2, 1)
    goals = choice(right, wrong) + choice(right=5, wrong=4)
    rules = priced(goals, _limit(max_steps_in_episode, large))
    return maze(random_maps(int(unseen), mazes, sides, walls, indicator), rules, rows, columns)


def sequential_goals(
    indicator: bool = False,
    large: bool = False,
    unseen: bool = False,
    mazes: int = 1000,
    max_steps_in_episode: int | None = None,
    rows: int = 6,
    columns: int = 7,
) -> Environment:
    """Make random mazes with two goals to be visited in order (Oh et al., 2016); see `maze`.

    Red and then cyan pays 0.5 and 1, the other order -0.5 and -1. With the `indicator`, a block
    that the agent crosses at the beginning, this holds if the block is lime; if it is yellow, the
    orders are swapped. The second goal ends the episode; every other step pays
    -2 / `max_steps_in_episode`, by default 50, or 100 in `large` mazes. See `random_maps` for the
    mazes; `unseen` draws other mazes of the same kind.
    """
    sides, walls = SEQUENTIAL[large, indicator]
    first, second = (2, 1) if indicator else (1, 2)
    goals = order(first, second) + order(4, 5)
    rules = priced(goals, _limit(max_steps_in_episode, large))
    return maze(random_maps(int(unseen), mazes, sides, walls, indicator), rules, rows, columns)


def _limit(steps: int | None, large: bool) -> int:
    return (100 if large else 50) if steps is None else steps


@lru_cache(maxsize=8, typed=True)
def random_maps(
    seed: int, mazes: int, sides: tuple[int, int], walls: tuple[float, float], indicator: bool
) -> Maps:
    """Draw random square mazes, [mazes, H, W], with a side in the range `sides`, ends included.

    Walls are placed one by one where the free cells stay connected, until they are a fraction of
    all cells that is drawn from the range `walls`. Goals are placed where they block no way, so
    that each can be reached from every other cell without crossing the other goal. Episodes begin
    on any other free cell; with the `indicator`, in an extra cell behind that block, on the right.
    The same seed always gives the same mazes. Raises ValueError for more than 100,000 of them.
    """
    checks.positive("mazes", mazes, high=100_000)
    size = sides[1] + 2 + 2 * indicator
    draw = jax.vmap(partial(random_map, size=size, sides=sides, walls=walls, indicator=indicator))
    u = np.random.default_rng(seed).random((mazes, 3 + 2 * size**2), np.float32)
    # Mazes are constants, also if an environment is made inside a traced function.
    with jax.ensure_compile_time_eval():
        return Maps(*map(np.asarray, jax.jit(draw)(u)))


def random_map(
    u: Array, size: int, sides: tuple[int, int], walls: tuple[float, float], indicator: bool
) -> Maps:
    """Turn u [3 + 2 `size`^2], uniform in [0, 1), into one maze of `size` x `size` cells."""
    side_u, part_u, sign_u = u[:3]
    wall_u, goal_u = u[3:].reshape(2, -1)
    side = sides[0] + jnp.floor(side_u * (sides[1] + 1 - sides[0])).astype(jnp.int32)
    row, column = jnp.indices((size, size))
    room = (row >= 1) & (row <= side) & (column >= 1) & (column <= side)
    beside = (row == (side + 2) // 2) & indicator
    sign, spawn = beside & (column == side + 1), beside & (column == side + 2)
    count = jnp.floor((walls[0] + part_u * (walls[1] - walls[0])) * side**2).astype(jnp.int32)
    free = _put_walls(wall_u, room | sign | spawn, room, count)
    first, second = _goals(goal_u, free, room)
    lime = (sign_u < 0.5) & indicator
    goal = jnp.where(sign, 3, 0) + jnp.where(first, 1, 0) + jnp.where(second, 2, 0)
    goal = jnp.where(lime & (goal > 0), goal + 3, goal).astype(jnp.uint8)
    return Maps(~free, goal, spawn if indicator else free & (goal == 0))


def _put_walls(u: Array, free: Array, room: Array, count: Array) -> Array:
    """Return `free` [H, W] with up to `count` walls put in the room, in order of `u` [H * W]."""

    def put(carry: tuple[Array, Array], cell: Array) -> tuple[tuple[Array, Array], None]:
        free, left = carry
        without = free.at[cell].set(False)
        allowed = (left > 0) & room.ravel()[cell] & in_one_piece(without.reshape(room.shape))
        return (tree.where(allowed, without, free), left - allowed), None

    (free, _), _ = jax.lax.scan(put, (free.ravel(), count), jnp.argsort(u))
    return free.reshape(room.shape)


def _goals(u: Array, free: Array, room: Array) -> tuple[Array, Array]:
    """Draw two cells of the room, bool [H, W] each, that no path needs to cross.

    Of such cells, they have the highest `u` [H * W]. With less than a third of walls, there are
    always two.
    """

    def spare(cell: Array) -> Array:
        return in_one_piece(free.ravel().at[cell].set(False).reshape(room.shape))

    cells = jnp.arange(room.size)
    possible = (free & room).ravel() & jax.vmap(spare)(cells)
    _, drawn = jax.lax.top_k(jnp.where(possible, u, -1.0), 2)
    first, second = (cells[None] == drawn[:, None]).reshape(2, *room.shape)
    return first, second


def in_one_piece(free: Array) -> Array:
    """Tell whether the free cells of a map, bool [H, W] with walls all around, are connected.

    A flood fill on whole rows: each is an integer of W <= 32 bits.
    """
    size = free.shape[1]
    places = jnp.arange(size, dtype=jnp.uint32)[None]
    bits = jnp.sum(free.astype(jnp.uint32) << places, axis=1)

    def step(floods: tuple[Array, Array]) -> tuple[Array, Array]:
        flood = floods[1]
        beside = (flood << 1) | (flood >> 1) | jnp.roll(flood, 1) | jnp.roll(flood, -1)
        return flood, (flood | beside) & bits

    row = jnp.argmax(bits > 0)
    one = bits[row] & -bits[row]  # the lowest bit
    begin = jnp.where(jnp.arange(len(bits)) == row, one, jnp.uint32(0))
    pair = (jnp.zeros_like(begin), begin)
    _, flood = jax.lax.while_loop(lambda floods: jnp.any(floods[0] != floods[1]), step, pair)
    return jnp.all(flood == bits)
