"""What is known to do well in bandits and in small MDPs, in NumPy, on N tasks at once.

These are what agents that have learned to learn are compared with: `bandit_returns` and
`mdp_returns` play them on tasks of the same distributions as the environments'.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

# generator, times arms paid [N, A] and did not [N, A], pulls left -> scores [N, A]; the arm with
# the highest score is pulled.
Strategy = Callable[[np.random.Generator, np.ndarray, np.ndarray, int], np.ndarray]


def bandit_returns(
    strategy: Strategy, arms: int, pulls: int, tasks: int, seed: int = 0
) -> np.ndarray:
    """Play N = `tasks` Bernoulli bandits with chances uniform in [0, 1]; return the payouts [N]."""
    rng = np.random.default_rng(seed)
    chance, rows = rng.random((tasks, arms)), np.arange(tasks)
    won, lost = np.zeros((2, tasks, arms), int)
    for left in range(pulls, 0, -1):
        arm = np.argmax(strategy(rng, won, lost, left), axis=1)
        paid = rng.random(tasks) < chance[rows, arm]
        won[rows, arm] += paid
        lost[rows, arm] += ~paid
    return won.sum(axis=1)


def random_arm(rng: Any, won: np.ndarray, lost: np.ndarray, left: int) -> np.ndarray:
    """Score arms [N, A] at random."""
    return rng.random(won.shape)


def greedy(rng: Any, won: np.ndarray, lost: np.ndarray, left: int) -> np.ndarray:
    """Score arms [N, A] by their expected chance of paying."""
    return (won + 1) / (won + lost + 2)


def thompson(rng: Any, won: np.ndarray, lost: np.ndarray, left: int) -> np.ndarray:
    """Draw the chances of arms [N, A] from what is known of them (Thompson, 1933)."""
    return rng.beta(won + 1, lost + 1)


def ucb1(rng: Any, won: np.ndarray, lost: np.ndarray, left: int, width: float = 1.0) -> np.ndarray:
    """Score arms [N, A] by an upper bound of their chance; those never pulled come first.

    Auer et al. (2002), where `width` is 1.
    """
    pulled = np.maximum(won + lost, 1)
    total = np.maximum((won + lost).sum(axis=1, keepdims=True), 1)
    bound = won / pulled + width * np.sqrt(2 * np.log(total) / pulled)
    return np.where(won + lost > 0, bound, np.inf)


def gittins(pulls: int) -> Strategy:
    """Return the strategy of Gittins indices for so many pulls; see `gittins_indices`."""
    index = gittins_indices(pulls)

    def strategy(rng: Any, won: np.ndarray, lost: np.ndarray, left: int) -> np.ndarray:
        return index[left, won, lost]

    return strategy


def gittins_indices(pulls: int, discount: float = 1.0, points: int = 201) -> np.ndarray:
    """Return the index [pulls + 1, pulls, pulls] of an arm by pulls left, times won and times lost.

    It is what a sure arm would have to pay for pulling either to be as good: with more, one would
    stop at once; with less, pull at least once and stop when that is best. The prior is uniform.
    Defined where won + lost + left <= `pulls`, nan elsewhere. With a discount below 1 and many
    pulls left, it is the index of Gittins (1979), which is optimal for endless discounted play; for
    finite play without a discount it is close to optimal (Kaufmann, 2018). By dynamic programming
    for sure arms at `points` places in [0, 1], and linearly between them: the error is below 1e-4.
    """
    sure = np.linspace(0, 1, points)[:, None, None]
    index = np.full((pulls + 1, pulls, pulls), np.nan)
    gain = np.zeros((points, pulls + 1, pulls + 1))  # over the sure arm, when stopping well
    for left in range(1, pulls + 1):
        size = pulls + 1 - left
        won, lost = np.indices((size, size))
        chance = (won + 1) / (won + lost + 2)
        after = chance * gain[:, 1:, :-1] + (1 - chance) * gain[:, :-1, 1:]
        pulled = chance - sure + discount * after
        index[left, :size, :size] = np.where(won + lost < size, _zero(pulled), np.nan)
        gain = np.maximum(pulled, 0)
    return index


def _zero(y: np.ndarray) -> np.ndarray:
    """Return where in [0, 1] decreasing functions [points, ...] become 0."""
    last = np.sum(y > 0, axis=0)[None] - 1
    above, below = (np.take_along_axis(y, x, axis=0)[0] for x in (last, last + 1))
    return (last[0] + above / (above - below)) / (len(y) - 1)


class Experience(NamedTuple):
    """What was seen of N MDPs."""

    moves: np.ndarray  # [N, S, A, S] how often each was made
    reward: np.ndarray  # [N, S, A] earned in all


class Tables(NamedTuple):
    """N MDPs, or what is believed of them."""

    reward: np.ndarray  # [N, S, A]
    chance: np.ndarray  # [N, S, A, S]


# generator, the true MDPs, what was seen of them, horizon -> actions [horizon, N, S]
Planner = Callable[[np.random.Generator, Tables, Experience, int], np.ndarray]


def mdp_returns(
    planner: Planner,
    tasks: int,
    seed: int = 0,
    states: int = 10,
    actions: int = 5,
    horizon: int = 10,
    episodes: int = 10,
) -> np.ndarray:
    """Play N = `tasks` MDPs as `tabular_mdp` draws them, planning before every episode.

    Returns the rewards of whole trials [N].
    """
    rng, shape, rows = np.random.default_rng(seed), (tasks, states, actions), np.arange(tasks)
    true = Tables(rng.normal(1, 1, shape), rng.dirichlet(np.ones(states), shape))
    seen = Experience(np.zeros((*shape, states)), np.zeros(shape))
    for _ in range(episodes):
        policy, state = planner(rng, true, seen, horizon), np.zeros(tasks, int)
        for step in range(horizon):
            at = rows, state, policy[step, rows, state]
            reward = true.reward[at] + rng.normal(size=tasks)
            bounds = np.cumsum(true.chance[at], axis=1)[:, :-1]
            state = np.sum(rng.random((tasks, 1)) >= bounds, axis=1)
            seen.moves[(*at, state)] += 1
            seen.reward[at] += reward
    return seen.reward.sum(axis=(1, 2))


def best_actions(mdp: Tables, horizon: int) -> np.ndarray:
    """Return the best action at every step of an episode, [horizon, N, S]."""
    value, found = np.zeros(mdp.reward.shape[:2]), []
    for _ in range(horizon):
        q = mdp.reward + np.einsum("nsat,nt->nsa", mdp.chance, value)
        value = q.max(axis=2)
        found.append(q.argmax(axis=2))
    return np.stack(found[::-1])


def random_plan(rng: Any, true: Tables, seen: Experience, horizon: int) -> np.ndarray:
    """Plan to do anything, [horizon, N, S]: in a state always the same at one step."""
    tasks, states, actions = true.reward.shape
    return rng.integers(actions, size=(horizon, tasks, states))


def known_plan(rng: Any, true: Tables, seen: Experience, horizon: int) -> np.ndarray:
    """Plan with the true MDPs, [horizon, N, S]: what cannot be surpassed."""
    return best_actions(true, horizon)


def bonus_plan(
    rng: Any, true: Tables, seen: Experience, horizon: int, bonus: float = 0.0
) -> np.ndarray:
    """Plan for the expected MDP, [horizon, N, S], with `bonus` / (1 + visits) added to its rewards.

    Without a bonus it is the greedy policy; with one, it explores: BEB (Kolter & Ng, 2009).
    """
    visits = seen.moves.sum(axis=3)
    reward = (1 + seen.reward + bonus) / (1 + visits)
    weight = 1 + seen.moves
    return best_actions(Tables(reward, weight / weight.sum(axis=3, keepdims=True)), horizon)


def posterior_plan(rng: Any, true: Tables, seen: Experience, horizon: int) -> np.ndarray:
    """Plan for MDPs that are drawn from what is known, [horizon, N, S]: PSRL (Strens, 2000).

    The prior is the distribution that tasks are drawn from.
    """
    visits = seen.moves.sum(axis=3)
    reward = rng.normal((1 + seen.reward) / (1 + visits), 1 / np.sqrt(1 + visits))
    weight = rng.standard_gamma(1 + seen.moves)
    return best_actions(Tables(reward, weight / weight.sum(axis=3, keepdims=True)), horizon)


# By the names of Duan et al. (2016), tables 1 and 2.
BANDIT_STRATEGIES: dict[str, Callable[[int], Strategy]] = {
    "random": lambda pulls: random_arm,
    "Gittins": gittins,
    "Thompson": lambda pulls: thompson,
    "UCB1": lambda pulls: ucb1,
    "UCB1, width 0.2": lambda pulls: partial(ucb1, width=0.2),
    "greedy": lambda pulls: greedy,
}
MDP_PLANNERS: dict[str, Planner] = {
    "random": random_plan,
    "PSRL": posterior_plan,
    "greedy": bonus_plan,
    "BEB": partial(bonus_plan, bonus=0.5),
    "knows everything": known_plan,
}
