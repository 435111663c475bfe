"""Whether a replay memory keeps to what agents rely on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import imports
from memrl_jax.replay import REPLAYS
from memrl_jax.testing.differences import same
from memrl_jax.testing.replay_trial import DRAWS, Trial, check_sample, filled, play, try_out
from memrl_jax.testing.streams import Case, first, segments

SIZES = (
    Case(7, 1, 1, 1, 3, "float32"),  # transitions
    Case(5, 4, 6, 1, 3),  # 20 rows in windows of 7
    Case(5, 3, 7, 3, 2),  # from stored memories
    Case(4, 6, 5, 2, 2, "int32"),  # aligned, but not with the segments
)
HIGH, LOW = 10.0, 0.1  # priorities


def check_replay(replay: Any, seed: int = 0, **options: Any) -> None:
    """Check a replay memory against a deque: pass in silence, or say what to mend.

    `replay` is a name, or a function that returns a `ReplayMemory` from `segments`, `period`,
    `length`, `batch_size` and `stride`, as `replay.uniform` does, and from `options`. Several sizes
    are tried with random segments of all dtypes. Raises ValueError in one line, with the window, if

    - a state, or a sample, changes its structure, a shape or a dtype;
    - a window is drawn that is not whole, or that is not bit for bit what was added;
    - a window does not begin with a `start` and an empty memory, or, where `stride` is `period` and
      above 1, with the memory that was stored there;
    - `can_sample` and `warmup` do not tell whether a window is whole, or a sample weighs something
      before, or nothing after that;
    - priorities, such as those of windows that were overwritten since, change what is held, or the
      higher ones are drawn less often;
    - the same key draws other windows, or copies under `vmap` differ from one alone.
    """
    constructor = imports.part("replay", replay, REPLAYS) if isinstance(replay, str) else replay
    name = f"replay: {replay}" if isinstance(replay, str) else "replay"
    for case in SIZES:
        trial = try_out(lambda *sizes: constructor(*sizes, **options), case, name)
        for holds in PROPERTIES:
            holds(trial, seed)


def windows_are_what_was_added(trial: Trial, seed: int) -> None:
    """And whether one is whole is told in time."""
    bursts = np.random.default_rng(seed).integers(1, 5, 8)
    for _ in play(trial, [1, *bursts.tolist()], seed):
        pass


def priorities_change_nothing_that_is_held(trial: Trial, seed: int) -> None:
    """Not even those that are none, or of windows that were overwritten since they were drawn."""
    oracle, state, more = filled(trial, seed)
    drawn = trial.sample(jax.random.key(seed), state)
    odd = jnp.where(jnp.arange(DRAWS) % 7 == 0, jnp.nan, jnp.arange(DRAWS, dtype=jnp.float32))
    for segment in more:
        state, _ = trial.update(state, drawn.index, odd)
        check_sample(trial, oracle, trial.sample(jax.random.key(seed), state))
        state = trial.add(state, segment)
        oracle.add(segment)


def higher_priorities_are_not_drawn_less(trial: Trial, seed: int) -> None:
    """More often or, if priorities mean nothing, as often."""
    oracle, state, _ = filled(trial, seed)
    for key in jax.random.split(jax.random.key(seed), 4):
        drawn = trial.sample(key, state)
        high = first(drawn)[1] // trial.case.stride % 2 == 0
        state, _ = trial.update(state, drawn.index, jnp.where(high, HIGH, LOW))
    keys = jax.random.split(jax.random.key(seed + 1), 16)
    times = np.concatenate([first(trial.sample(key, state))[1] for key in keys])
    parity = np.asarray(oracle.starts()) // trial.case.stride % 2
    even, odd = (np.mean(times // trial.case.stride % 2 == x) / np.sum(parity == x) for x in (0, 1))
    if even < 0.9 * odd:
        told = f"{even / odd:.2f} times as often as those of {LOW}"
        raise ValueError(f"{trial.name}: update: windows of priority {HIGH} are drawn {told}")


def the_same_key_draws_the_same(trial: Trial, seed: int) -> None:
    """Trace it anew: what it draws from elsewhere is drawn again."""
    _, state, _ = filled(trial, seed)
    anew = jax.jit(lambda key, state: trial.replay.sample(key, state))
    ours, again = (sample(jax.random.key(seed), state) for sample in (trial.sample, anew))
    same(f"{trial.name}: sample: the same key draws other windows: sample", ours, again, 0)


def copies_in_a_loop_are_like_one_alone(trial: Trial, seed: int) -> None:
    """Filled by a scan and drawn from under `vmap`, as in training."""
    seeds = range(seed, seed + 2)
    streams = [segments(trial.case, s, trial.case.segments + 2) for s in seeds]
    keys = jax.random.split(jax.random.key(seed), len(seeds))

    def play_all(parts: Any, key: Any) -> Any:
        state, _ = jax.lax.scan(lambda *x: (trial.replay.add(*x), None), trial.empty, parts)
        return state, trial.replay.sample(key, state)

    stacked = [jax.tree.map(lambda *x: np.stack(x), *parts) for parts in streams]
    together = jax.jit(jax.vmap(play_all))(jax.tree.map(lambda *x: np.stack(x), *stacked), keys)
    for i, (key, parts) in enumerate(zip(keys, streams, strict=True)):
        state, (ours, drawn) = trial.empty, jax.tree.map(lambda x, i=i: x[i], together)
        for part in parts:
            state = trial.add(state, part)
        what = f"{trial.name}: in a loop under vmap, a copy differs from one alone"
        same(f"{what}: add", ours, state)
        same(f"{what}: sample", drawn.segment, trial.sample(key, state).segment, 0)


PROPERTIES = (
    windows_are_what_was_added,
    priorities_change_nothing_that_is_held,
    higher_priorities_are_not_drawn_less,
    the_same_key_draws_the_same,
    copies_in_a_loop_are_like_one_alone,
)
