"""Environments alone: steps per second with random actions, beside popgym and gymnax.

    python -m benchmarks.environments [--quick]

POPGym's tasks in 1, 64 and 4,096 copies, all steps and new episodes in one compiled loop, beside
gymnax's CartPole-v1 in as many copies and the popgym package (NumPy, one copy, one process). Then
the mean return of a random policy in 10,000 episodes, beside what was published. Before that, every
environment of the library is checked. With --quick, none is, and only the easy tasks are timed, in
4,096 copies. Figures go to benchmarks/results/.
"""

import importlib
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from benchmarks import command, report
from benchmarks.command import Say, Setting
from benchmarks.targets import Target
from benchmarks.timing import Program, Timing, compiled, interleave, loop, ratio
from memrl_jax import draws, environments, spaces
from memrl_jax.environments.popgym import TASKS, Concentration
from memrl_jax.environments.popgym.base import DeckTask
from memrl_jax.testing import check_environment
from memrl_jax.types import Array, Key

COPIES = (1, 64, 4096)
RIVAL, POPGYM = "gymnax CartPole-v1", "popgym"
EPISODES = 10_000
# Mean return of a random policy at the easy level: RATE (2023), table 9.
PUBLISHED = {
    "AutoencodeEasy": -0.50,
    "CountRecallEasy": -0.93,
    "HigherLowerEasy": 0.00,
    "RepeatFirstEasy": -0.49,
    "RepeatPreviousEasy": -0.49,
    "NoisyPositionOnlyPendulumEasy": 0.27,
    "MultiarmedBanditEasy": 0.02,
    "PositionOnlyCartPoleEasy": 0.12,
    "NoisyPositionOnlyCartPoleEasy": 0.11,
}


def actions(space: Any, key: Key, copies: int) -> Any:
    """Draw random actions [B, ...]."""
    parts, treedef = jax.tree.flatten(space, is_leaf=spaces.is_part)
    keys = draws.split(key, len(parts))

    def one(part: Any, key: Key) -> Array:
        if isinstance(part, spaces.Discrete):
            return draws.randint(key, (copies,), 0, part.n)
        return draws.uniform(key, (copies, *part.shape), part.dtype, part.low, part.high)

    return jax.tree.unflatten(treedef, map(one, parts, keys))


def ours(name: str, copies: int) -> Program:
    """Step copies of one of our environments; the first step of an episode does not count."""
    env = environments.batch(environments.make(name, {}))
    state, _ = env.reset(draws.split(jax.random.key(0), copies))

    def step(carry: Any) -> Any:
        key, state, count = carry
        key, act_key, env_key = draws.split(key, 3)
        action = actions(env.spec.actions, act_key, copies)
        state, timestep = env.step(draws.split(env_key, copies), state, action)
        return key, state, count + jnp.sum(~timestep.start, dtype=jnp.int32)

    carry = jax.random.key(1), state, jnp.int32(0)
    return compiled((name, copies, 1), loop(step), carry, lambda carry: int(carry[2]))


def gymnax_cartpole(copies: int) -> Program:
    """Step copies of gymnax's CartPole by its own vmapped `step`, which resets by itself."""
    import gymnax

    env, params = gymnax.make("CartPole-v1")
    _, state = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), copies), params)

    def step(carry: Any) -> Any:
        key, state, count = carry
        key, act_key, env_key = jax.random.split(key, 3)
        action = jax.random.randint(act_key, (copies,), 0, 2)
        keys = jax.random.split(env_key, copies)
        _, state, *_ = jax.vmap(env.step, (0, 0, 0, None))(keys, state, action, params)
        return key, state, count + copies

    carry = jax.random.key(1), state, jnp.int32(0)
    return compiled((RIVAL, copies, 1), loop(step), carry, lambda carry: int(carry[2]))


def theirs(name: str) -> Program:
    """Step one environment of the popgym package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = getattr(importlib.import_module("popgym.envs"), name)()
    env.reset(seed=0)
    env.action_space.seed(0)
    count = 0

    def advance(steps: int) -> None:
        nonlocal count
        for _ in range(steps):
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()
        count += steps

    return Program(f"{POPGYM} {name}", 1, 1, None, advance, lambda: count)


def measure(names: Sequence[str], copies: Sequence[int], say: Say) -> list[Timing]:
    """Time some tasks: all programs of a task in turns, with gymnax's CartPole among them."""
    timings = []
    for name in names:
        say(name)
        programs = [theirs(name)]
        for n in copies:
            programs += [ours(name, n), gymnax_cartpole(n)]
        timed = interleave(programs, seconds=0.1, turns=5)
        timings += [t._replace(name=f"{RIVAL}, {name}") if t.name == RIVAL else t for t in timed]
    return timings


def speeds(names: Sequence[str], timings: Sequence[Timing]) -> Table:
    """Tabulate steps per second by the number of copies, and ratios for the most of them."""
    cases = {t[:2]: t.steps_per_second for t in timings}
    copies = sorted({t.capacity for t in timings if t.name in names})
    table = Table("steps/s")
    for title in (*(f"{n:,}" for n in copies), POPGYM, f"/ {POPGYM}", f"/ {RIVAL}"):
        table.add_column(title, justify="right")
    for name in names:
        most, rival = cases[name, copies[-1]], cases[f"{RIVAL}, {name}", copies[-1]]
        popgym = cases[f"{POPGYM} {name}", 1]
        cells = [f"{np.median(cases[name, n]):,.0f}" for n in copies]
        cells += [f"{np.median(popgym):,.0f}", f"{ratio(most, popgym):,.0f}x"]
        table.add_row(name, *cells, f"{ratio(most, rival):.2f}x")
    return table


def targets(names: Sequence[str]) -> list[Target]:
    """Return how much faster deck tasks, and how much slower any task, should be at most."""

    def over_popgym(t: Any) -> float:
        decks = [name for name in names if isinstance(TASKS[name], DeckTask | Concentration)]
        return min(speed(t, name) / speed(t, f"{POPGYM} {name}", 1) for name in decks)

    def under_gymnax(t: Any) -> float:
        return max(speed(t, f"{RIVAL}, {name}") / speed(t, name) for name in names)

    def speed(t: Any, name: str, copies: int = COPIES[-1]) -> Any:
        return np.median(t[name, copies, 1].steps_per_second)

    return [
        Target(f"steps/s of the slowest deck task / {POPGYM}", False, 10.0, over_popgym),
        Target(f"time of the slowest task / {RIVAL}", True, 5.0, under_gymnax),
    ]


def random_return(name: str) -> np.ndarray:
    """Return the returns of a random policy in EPISODES episodes."""
    env = environments.make(name, {})
    copies = 1_000
    many = environments.batch(env)

    def episodes(key: Key) -> Array:
        reset_key, key = draws.split(key)
        state, first = many.reset(draws.split(reset_key, copies))

        def step(carry: Any, key: Key) -> Any:
            state, total, over = carry
            act_key, env_key = draws.split(key)
            action = actions(env.spec.actions, act_key, copies)
            state, timestep = many.step(draws.split(env_key, copies), state, action)
            total += jnp.where(over, 0.0, timestep.reward)
            return (state, total, over | timestep.last), None

        carry = state, jnp.zeros(copies, jnp.float32), first.last
        return jax.lax.scan(step, carry, draws.split(key, env.horizon))[0][1]

    keys = draws.split(jax.random.key(2), EPISODES // copies)
    return np.asarray(jax.jit(lambda keys: jax.lax.map(episodes, keys))(keys)).ravel()


def returns() -> tuple[Table, dict[str, Any]]:
    """Tabulate the returns of a random policy beside the published ones."""
    table, found = Table(f"random policy, {EPISODES:,} episodes"), {}
    for title in ("mean return", "standard error", "published"):
        table.add_column(title, justify="right")
    for name, published in PUBLISHED.items():
        x = random_return(name)
        error = float(np.std(x) / np.sqrt(len(x)))
        found[name] = {"mean": float(np.mean(x)), "error": error, "published": published}
        table.add_row(name, f"{np.mean(x):.4f}", f"{error:.4f}", f"{published:.2f}")
    return table, {"random": found}


def main() -> None:
    quick = command.quick(__doc__.splitlines()[0])
    names = [name for name in TASKS if not quick or name.endswith("Easy")]
    copies = COPIES[-1:] if quick else COPIES
    if not quick:
        for name in environments.ENVIRONMENTS.keys() - {"OriginalMaze"}:  # needs a folder of maps
            print(f"checking {name}")
            check_environment(name, steps=100)
    setting = Setting(
        "POPGym's tasks, random actions",
        lambda say: measure(names, copies, say),
        lambda timings: [speeds(names, timings)],
        targets(names),
    )
    name = "environments-quick" if quick else "environments"
    command.run(name, report.machine((POPGYM,)), [setting], returns)


if __name__ == "__main__":
    main()
