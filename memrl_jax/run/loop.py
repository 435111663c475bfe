"""The loop of a training run: chunks of jitted steps, with all side effects between them."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import parallel
from memrl_jax.run import folder, greedy, history, measured, processes, snapshot
from memrl_jax.run.history import History
from memrl_jax.run.program import Carry, Program, Run
from memrl_jax.run.telling import Tell
from memrl_jax.statistics import carry_forward, iqm

PACE = 1.0  # seconds that a chunk should take: as long as Ctrl-C may have to wait


class Progress(NamedTuple):
    """How far a run is, after a chunk of steps."""

    steps: int  # environment steps so far, over all environments of a seed; mean over seeds
    timesteps: int  # steps, and the timesteps that begin an episode
    total_steps: int  # timesteps of the whole run
    rate: float  # environment steps per second in this chunk, of all seeds together
    mean_return: float  # of the latest episodes of all seeds; NaN before any has ended
    evaluation: float | None  # interquartile mean over seeds of the latest evaluation, if any


class Result(NamedTuple):
    """How a run ended."""

    folder: Path
    history: History
    finished: bool  # False: it was interrupted and can be resumed


class Pace(NamedTuple):
    """How many steps the next chunk has."""

    handover: float  # seconds that a chunk takes beside its steps
    steps: int = 1

    def after(self, steps: int, seconds: float) -> "Pace":
        """Return the pace, after `steps` took `seconds`, for chunks of PACE or ten handovers."""
        each = max(seconds - self.handover, 0.1 * seconds) / steps
        return self._replace(steps=max(1, int(max(PACE, 10 * self.handover) / each)))


Say = Callable[[str], None]
Report = Callable[[Progress], None]


def train(
    program: Program,
    place: Path,
    carry: Carry,
    done: int,
    past: History,
    say: Say,
    report: Report,
    tell: Tell,
) -> Result:
    """Train from each due event to the next until the end, the target return or an interrupt."""
    saved, reached = done, _reached(program.run, past)
    if reached or done >= program.total_steps:
        return Result(place, past, finished=True)
    say(compiled(program))
    with interruptible() as asked:

        def interrupted() -> bool:
            return bool(processes.largest(asked()))

        told: set[int] = set()
        carry, handover = program.handover(carry)
        pace = Pace(processes.largest(handover))
        while done < program.total_steps and not reached:
            log, evaluation, save = program.due(done)
            due = min(log, evaluation, save)
            span = range(done, due)
            carry, done, pace = _chunks(program, carry, past, span, pace, report, interrupted)
            if done < due:
                break
            totals = program.totals(carry)
            diverged = _diverged(program, totals, past)
            for lane in sorted(diverged.keys() - told):
                say(f"{diverged[lane]}; it counts as diverged, the others go on")
            told |= diverged.keys()
            past = history.extend(past, done, history.means(totals))
            carry = carry._replace(sums=jax.tree.map(jnp.zeros_like, carry.sums))
            if done >= evaluation:
                played = greedy.evaluate(program, carry, done)
                kept = {k: np.where(_well(totals), x, np.nan) for k, x in played.items()}
                past = history.extend(past, done, kept, "evaluation_")
                reached = _reached(program.run, past)
            if processes.leads():
                measured.log(place, done, past)
            tell(past)
            if done >= save:
                save_checkpoint(program, place, done, carry, past)
                saved = done
        if saved < done:
            save_checkpoint(program, place, done, carry, past)
    return Result(place, past, finished=reached or done >= program.total_steps)


def compiled(program: Program) -> str:
    """Compile, and wait for the other processes; return a text about the memory needed."""
    said = program.compile()
    processes.gathered(0)
    return said


def save_checkpoint(program: Program, place: Path, step: int, carry: Carry, past: History) -> None:
    """Write a checkpoint, without the lanes that are padding."""
    settings = folder.settings(program.config, vars(program.run), program.lanes.varied)
    snapshot.save(place, step, parallel.held(carry, program.lanes.rows), settings, past)


def _reached(run: Run, past: History) -> bool:
    score = _score(past)
    return run.target_return is not None and score is not None and score >= run.target_return


def _chunks(
    program: Program,
    carry: Carry,
    past: History,
    span: range,
    pace: Pace,
    report: Report,
    interrupted: Callable[[], bool],
) -> tuple[Carry, int, Pace]:
    """Train over the timesteps of `span`, chunk by chunk, unless interrupted."""
    done, sums = span.start, program.totals(carry)
    while done < span.stop and not interrupted():
        steps = min(pace.steps, -(-(span.stop - done) // program.per_step))
        before, began = sums["steps"], time.perf_counter()
        carry = program.chunk(carry, jnp.int32(steps))
        sums = program.totals(carry)
        seconds = processes.largest(time.perf_counter() - began)
        pace = pace.after(steps, seconds)
        if program.strict:
            _check_finite(program, sums, past)
        done += steps * program.per_step
        if interrupted():  # without a report: the terminal may be gone
            break
        report(
            Progress(
                steps=round(_taken(past, sums).mean()),
                timesteps=done,
                total_steps=program.total_steps,
                rate=float((sums["steps"] - before).sum() / seconds),
                mean_return=_latest_return(sums, past),
                evaluation=_score(past),
            )
        )
    return carry, done, pace


def _taken(past: History, sums: dict[str, np.ndarray]) -> np.ndarray:
    """Return the environment steps of every seed so far, [S]."""
    return sums["steps"] + (past["steps"].sum(axis=-1) if past else 0)


def _score(past: History) -> float | None:
    """Return the interquartile mean of the last evaluation, over the lanes that are well."""
    if "evaluation_return" not in past:
        return None
    last = past["evaluation_return"][:, -1]
    return float(iqm(last[np.isfinite(last)])) if np.any(np.isfinite(last)) else None


def _latest_return(sums: dict[str, np.ndarray], past: History) -> float:
    """Return the mean return of the episodes since the last point, or else of the latest before."""
    well = _well(sums)
    if sums["episodes"][well].sum():
        return float(sums["return_sum"][well].sum() / sums["episodes"][well].sum())
    if "return" not in past or not np.any(well):
        return math.nan
    return float(np.mean(carry_forward(past["return"])[well, -1]))


def _well(sums: dict[str, np.ndarray]) -> np.ndarray:
    """Tell of every lane, bool [S], whether all its metrics are finite."""
    return np.all([np.isfinite(x) for x in sums.values()], axis=0)


def _check_finite(program: Program, sums: dict[str, np.ndarray], past: History) -> None:
    """Raise FloatingPointError, naming the step, once a metric is NaN or infinite."""
    for said in _diverged(program, sums, past).values():
        raise FloatingPointError(f"{said}; the last checkpoint before it is kept")


def _diverged(program: Program, sums: dict[str, np.ndarray], past: History) -> dict[int, str]:
    """Tell of every lane with a metric that is NaN or infinite which one, and at which step."""
    said = {}
    for lane in np.flatnonzero(~_well(sums)).tolist():
        bad = [name for name, x in sums.items() if not np.isfinite(x[lane])]
        name = next(x for x in ("reward_sum", "loss_sum", *bad) if x in bad)  # causes first
        since = int(past["timestep"][-1]) if past else program.first_step
        timestep = since + int(sums["training_steps"][lane]) * program.per_step
        said[lane] = (
            f"{name.removesuffix('_sum')}: {sums[name][lane]} at step "
            f"{_taken(past, sums)[lane]:,} of {program.lanes.told(lane)}, timestep {timestep:,}"
        )
    return said


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Catch SIGINT, SIGTERM and SIGHUP; yield a function that tells whether one has arrived.

    A second signal raises KeyboardInterrupt at once. Outside the main thread no signals can be
    caught. SIGHUP stays ignored if it was, as under `nohup`.
    """
    caught: list[int] = []

    def catch(number: int, frame: Any) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, catch) for number in numbers if main}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
