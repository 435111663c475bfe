"""Blind Cliffwalk: how many updates learning takes from prioritized and from uniform replay.

    python -m benchmarks.cliffwalk [--quick]

In a chain of n states, one of two actions goes on and the other ends the episode; only the last
state's right action is rewarded. The replay memory holds the transitions of all 2^n sequences of
actions, so only one of 2^(n + 1) - 2 is rewarded. The measure is the number of updates of a Q-table
until its mean squared error is below 0.001.
Schaul et al. (2016), section 3.1 and appendix B.1.
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import report
from memrl_jax import tree
from memrl_jax.replay import REPLAYS
from memrl_jax.run import files
from memrl_jax.types import Array, Key, ReplayMemory, Segment, State, TimeStep

RESULTS = Path(__file__).parent / "results"
RATE, TOLERANCE = 0.25, 1e-3
LIMIT = 20_000_000  # updates after which a seed is given up


class Steps(NamedTuple):
    """What the loop over updates carries."""

    key: Key
    replay: State
    q: Array  # [n, 2]
    updates: Array  # [] int32; draws of the step from one episode to the next are not counted


def experience(n: int) -> TimeStep:
    """Return the timesteps [T, 1] of all sequences of n actions, each until its episode ends."""
    rows = []
    for actions in itertools.product((1, 0), repeat=n):
        rows.append((0, 0, 0.0, 1.0, True, False))
        for state, right in enumerate(actions):
            goal = right and state == n - 1
            over = goal or not right
            # After the end the observation does not matter; the last state is used.
            after = min(state + 1, n - 1)
            rows.append((after, right, float(goal), float(not over), False, bool(over)))
            if over:
                break
    kinds = (jnp.int32, jnp.int32, jnp.float32, jnp.float32, bool, bool)
    columns = zip(*rows, strict=True)
    return TimeStep(*(jnp.asarray(c, k)[:, None] for c, k in zip(columns, kinds, strict=True)))


def filled(n: int, name: str, **options: Any) -> tuple[ReplayMemory, State]:
    """Return a replay memory of single transitions, and its state with all experience added."""
    timestep = experience(n)
    rows = len(timestep.reward)
    replay = REPLAYS[name](segments=rows, period=1, length=1, batch_size=1, **options)
    example = Segment((), tree.at(timestep, 0), jnp.zeros(1, jnp.int32), ())

    def add(state: State, pair: TimeStep) -> tuple[State, None]:
        return replay.add(state, Segment((), pair, pair.action[1:], ())), None

    # No timestep follows the newest: the first takes that place, and is not stored.
    pairs = jax.tree.map(lambda x: jnp.stack([x, jnp.roll(x, -1, axis=0)], axis=1), timestep)
    state, _ = jax.jit(lambda pairs: jax.lax.scan(add, replay.init(example), pairs))(pairs)
    return replay, state


def updates_needed(n: int, name: str, seeds: int, **options: Any) -> np.ndarray:
    """Return how many updates every seed took, [seeds]."""
    replay, state = filled(n, name, **options)
    discount = 1 - 1 / n
    true = jnp.stack([jnp.zeros(n), discount ** jnp.arange(n - 1, -1, -1.0)], axis=1)

    def unfinished(steps: Steps) -> Array:
        return (jnp.mean((steps.q - true) ** 2) >= TOLERANCE) & (steps.updates < LIMIT)

    def update(steps: Steps) -> Steps:
        key, sample_key = jax.random.split(steps.key)
        sample = replay.sample(sample_key, steps.replay)
        before, after = (tree.at(sample.segment.timestep, (t, 0)) for t in (0, 1))
        place = before.observation, after.action
        target = after.reward + discount * after.discount * steps.q[after.observation].max()
        error = jnp.where(before.last, 0.0, target - steps.q[place])
        replay_state, _ = replay.update(steps.replay, sample.index, jnp.abs(error)[None])
        q = steps.q.at[place].add(RATE * error)
        return Steps(key, replay_state, q, steps.updates + ~before.last)

    def learn(key: Key, state: State) -> Array:
        key, q_key = jax.random.split(key)
        q = 0.1 * jax.random.normal(q_key, (n, 2))
        return jax.lax.while_loop(unfinished, update, Steps(key, state, q, jnp.int32(0))).updates

    learn = jax.jit(learn)
    return np.array([learn(key, state) for key in jax.random.split(jax.random.key(0), seeds)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="short chains, in a minute")
    quick = parser.parse_args().quick
    lengths, seeds = ((4, 6, 8), 5) if quick else (range(4, 15, 2), 10)
    console, figures = Console(), {}
    table = Table()
    for column in ("n", "transitions", "uniform", "prioritized", "uniform / prioritized"):
        table.add_column(column, justify="right")
    for n in lengths:
        needed = {
            "uniform": updates_needed(n, "uniform", seeds),
            "prioritized": updates_needed(n, "prioritized", seeds),
        }
        figures[n] = {name: x.tolist() for name, x in needed.items()}
        uniform, prioritized = (float(np.median(x)) for x in needed.values())
        cells = (f"{2 ** (n + 1) - 2:,}", f"{uniform:,.0f}", f"{prioritized:,.0f}")
        table.add_row(str(n), *cells, f"{uniform / prioritized:.1f}")
    console.print(table)
    console.print(
        f"updates until the mean squared error is below {TOLERANCE}, median of {seeds} seeds"
    )
    path = RESULTS / f"cliffwalk{'-quick' * quick}.json"
    path.parent.mkdir(exist_ok=True)
    files.write(path, json.dumps({"machine": report.machine(), "updates": figures}, indent=2))
    console.print(f"figures: {path}")


if __name__ == "__main__":
    main()
