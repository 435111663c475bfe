"""A replay memory to be tried out: compiled, and played beside a deque."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import checks
from memrl_jax.environments.check import alike
from memrl_jax.environments.declared import blamed, named
from memrl_jax.testing.differences import differ
from memrl_jax.testing.streams import Case, Oracle, example, first, segments
from memrl_jax.types import ReplayMemory, Sample, Segment

DRAWS = 1024  # windows at once: so many that of some sixty none is missed


class Trial(NamedTuple):
    """A replay memory, compiled, and its state before anything was added."""

    name: str  # what messages begin with
    case: Case
    replay: ReplayMemory
    empty: Any
    add: Any
    sample: Any
    update: Any


def try_out(constructor: Callable[..., Any], case: Case, name: str = "replay") -> Trial:
    """Check the forms of what a replay memory returns, and compile it.

    Raises ValueError as `check_replay` does.
    """
    replay = constructor(case.segments, case.period, case.length, DRAWS, case.stride)
    checks.kind("replay", replay, ReplayMemory)
    if replay.length != case.length:
        raise ValueError(f"{name}: length: {replay.length}, and {case.length} were asked for")
    _check_forms(replay, case, name)
    compiled = map(jax.jit, (replay.add, replay.sample, replay.update))
    return Trial(name, case, replay, replay.init(example(case)), *compiled)


def play(trial: Trial, bursts: Iterable[int], seed: int) -> Iterator[tuple[Oracle, Any, Sample]]:
    """Add segments in bursts, beside a deque; sample after each, and check all that is drawn.

    Yields the deque, the state and the sample [DRAWS] wherever a window is whole.
    """
    bursts = list(bursts)
    oracle, state = Oracle(trial.case), trial.empty
    more = iter(segments(trial.case, seed, sum(bursts)))
    for burst in bursts:
        for _ in range(burst):
            segment = next(more)
            state = trial.add(state, segment)
            oracle.add(segment)
            _check_told(trial, oracle, state)
        sample = trial.sample(jax.random.key(seed + oracle.time), state)
        if oracle.starts():
            check_sample(trial, oracle, sample)
            yield oracle, state, sample
        elif np.any(sample.weight):
            raise ValueError(f"{trial.name}: weight: not 0 {_after(oracle)}")


def check_sample(trial: Trial, oracle: Oracle, sample: Sample) -> None:
    """Check that windows [N] are whole, weigh something, and are what was added.

    Raises ValueError as `check_replay` does.
    """
    environment, time = first(sample)
    known = np.isin(time, oracle.starts()) & (environment < trial.case.environments)

    def told(n: Any) -> str:
        return f"the window that begins at step {time[n]} of environment {environment[n]}"

    if not known.all():
        held = f"steps {oracle.rows[0][0]} to {oracle.rows[-1][0]} are held"
        raise ValueError(f"{trial.name}: {told(np.argmin(known))} is not whole: {held}")
    weight = np.asarray(sample.weight)
    good = np.isfinite(weight) & (weight > 0)
    if not good.all():
        n = np.argmin(good)
        raise ValueError(f"{trial.name}: weight: {weight[n]}, of {told(n)}")
    ours, theirs = named(jax.device_get(sample.segment)), named(oracle.windows(environment, time))
    for path, x in ours.items():
        axis = 0 if path.startswith(".memory") else 1  # there is no time axis
        odd = np.moveaxis(differ(x, theirs[path]), axis, 0).reshape(len(time), -1).any(axis=1)
        if odd.any():
            what = f"{path[1:]} is not what was added"
            raise ValueError(f"{trial.name}: {what}, in {told(np.argmax(odd))}")


def _check_told(trial: Trial, oracle: Oracle, state: Any) -> None:
    """Check that `can_sample` and `warmup` tell whether a window is whole."""
    whole, replay = bool(oracle.starts()), trial.replay
    if bool(replay.can_sample(state)) != whole:
        raise ValueError(f"{trial.name}: can_sample: {not whole} {_after(oracle)}")
    if (len(oracle.memories) >= replay.warmup) != whole:
        raise ValueError(f"{trial.name}: warmup: {replay.warmup} {_after(oracle)}")


def _after(oracle: Oracle) -> str:
    which = "a" if oracle.starts() else "no"
    return f"after {len(oracle.memories)} segments, when {which} window is whole"


def filled(trial: Trial, seed: int) -> tuple[Oracle, Any, list[Segment]]:
    """Return a deque and a state, overwritten in part, and more segments [period + 1, B]."""
    count = 3 * trial.case.segments // 2 + 1
    parts = segments(trial.case, seed, 2 * count)
    oracle, state = Oracle(trial.case), trial.empty
    for segment in parts[:count]:
        state = trial.add(state, segment)
        oracle.add(segment)
    return oracle, state, parts[count:]


def _check_forms(replay: ReplayMemory, case: Case, name: str) -> None:
    """Check structures, shapes and dtypes; nothing is compiled or run."""
    key, priority = jax.random.key(0), jax.ShapeDtypeStruct((DRAWS,), jnp.float32)
    oracle, parts = Oracle(case), segments(case, 0, case.segments)
    for part in parts:
        oracle.add(part)
    with blamed(f"{name}: init"):
        state = jax.eval_shape(replay.init, example(case))
    with blamed(f"{name}: add"):
        alike(f"{name}: add: state", jax.eval_shape(replay.add, state, parts[0]), state)
    with blamed(f"{name}: sample"):
        sample = jax.eval_shape(replay.sample, key, state)
        checks.kind(f"{name}: sample", sample, Sample)
        none = np.zeros(DRAWS, int)
        alike(f"{name}: sample", sample.segment, oracle.windows(none, none))
        alike(f"{name}: sample: weight", sample.weight, priority)
    with blamed(f"{name}: update"):
        after, _ = jax.eval_shape(replay.update, state, sample.index, priority)
        alike(f"{name}: update: state", after, state)
