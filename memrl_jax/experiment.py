"""A run on disk: chunks of jitted steps, and between them everything that is not pure."""

import dataclasses
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

from memrl_jax import checkpoint, checks, folder, history, parallel, tree
from memrl_jax.config import Config, make
from memrl_jax.history import History
from memrl_jax.rollout import Evaluation
from memrl_jax.statistics import iqm
from memrl_jax.train import Metrics, Trainer, TrainState
from memrl_jax.types import Array, Key

PACE = 1.0  # seconds of work handed to the devices at a time: how long Ctrl-C may have to wait


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything around a training run that does not change what one seed computes."""

    out: str = ""
    """Folder to make for the run; by default runs/PRESET-ENVIRONMENT."""
    seeds: int = 8
    """Seeds to run at once."""
    seed: int = 0
    """Number that the keys of all seeds come from."""
    log_every: int | None = None
    """Timesteps between two points of the metrics; by default a hundredth of the run."""
    evaluate_every: int | None = None
    """Timesteps between two greedy evaluations; by default a twentieth of the run."""
    evaluate_episodes: int = 32
    """Episodes in an evaluation, each in an environment of its own."""
    checkpoint_every: int | None = None
    """Timesteps between two checkpoints; by default a tenth of the run."""
    target_return: float | None = None
    """Stop once the interquartile mean of an evaluation over seeds reaches this."""


class Carry(NamedTuple):
    """What a chunk of steps carries, per seed; a checkpoint is exactly this."""

    train: TrainState
    sums: Metrics  # since the last point of the metrics; `finite` counts steps before a NaN


class Progress(NamedTuple):
    """What is known after a chunk of steps."""

    steps: int  # timesteps so far, over all environments of a seed
    total_steps: int
    rate: float  # timesteps per second in this chunk, of all seeds together
    mean_return: float  # of the episodes that ended last, over seeds; NaN before any did
    evaluation: float | None  # interquartile mean over seeds, where one was just made


class Result(NamedTuple):
    """How a run ended."""

    folder: Path
    history: History
    finished: bool  # False: it was interrupted and can be resumed


Say = Callable[[str], None]
Report = Callable[[Progress], None]


def start(config: Config, run: Run, say: Say, report: Report) -> Result:
    """Train all seeds of a new run.

    `say` gets lines of text, `report` the progress after every chunk. Raises ValueError, before
    anything is written, for settings out of range; FloatingPointError if a loss is not finite.
    """
    program = make_program(config, run)
    place = folder.create(run.out, config, dataclasses.asdict(run))
    say(program.estimate)
    carry = _first(program, place)
    return _loop(program, place, carry, program.first_step, {}, report)


def resume(path: str, say: Say, report: Report) -> Result:
    """Go on with a run from its last checkpoint, as if it had never stopped.

    Raises like `start`, and ValueError if the folder or its checkpoint cannot be read.
    """
    place, config, run = read(path)
    program = make_program(config, run)
    if not folder.checkpoints(place):  # it ended before it had begun
        _first(program, place)
    carry, done = _load(program, place)
    say(f"{program.estimate}; going on from step {done:,}")
    past = history.until(history.read(place / "metrics.npz"), done)
    folder.truncate_log(place, done)
    return _loop(program, place, carry, done, past, report)


def read(path: str) -> tuple[Path, Config, Run]:
    """Return the folder, config and options of a run; raises ValueError if it is not one."""
    place, config, options = folder.read(path)
    for name in options:
        checks.known(f"{path}/config.json", name, [f.name for f in dataclasses.fields(Run)])
    return place, config, Run(**options | {"out": path})


class Program(NamedTuple):
    """The compiled parts of a run and its timetable."""

    run: Run
    init: Callable[..., Any]  # keys [S] -> Carry [S]
    chunk: Callable[..., Any]  # Carry [S], steps -> Carry [S]; donates
    evaluate: Callable[..., Any]  # (keys, agent states) [S] -> Evaluation [S, E]
    shapes: Any  # of a Carry of all seeds
    estimate: str
    per_step: int  # timesteps in a training step
    first_step: int  # timesteps of warm-up
    total_steps: int

    def save(self, place: Path, step: int, carry: Carry) -> None:
        """Write a checkpoint of the seeds that are not padding."""
        folder.save(place, step, jax.tree.map(lambda x: x[: self.run.seeds], carry))


def make_program(config: Config, run: Run) -> Program:
    """Prepare a run; raises ValueError for settings out of range. Nothing is compiled yet."""
    _check(run)
    trainer, steps = make(config)
    per_step = config.environments * config.rollout_length
    one = jax.eval_shape(lambda key: _begin(trainer, key), jax.random.key(0))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((run.seeds, *x.shape), x.dtype), one)

    def evaluate(x: tuple[Key, Any]) -> Any:
        return trainer.evaluate(*x, run.evaluate_episodes)

    return Program(
        run,
        init=parallel.over_seeds(lambda key: _begin(trainer, key), run.seeds),
        chunk=parallel.update_seeds(lambda carry, n: _advance(trainer, carry, n), run.seeds),
        evaluate=parallel.over_seeds(evaluate, run.seeds),
        shapes=shapes,
        estimate=_estimate(run.seeds, one.train),
        per_step=per_step,
        first_step=config.total_steps - steps * per_step,
        total_steps=config.total_steps,
    )


def _first(program: Program, place: Path) -> Carry:
    """Make and save what training starts from."""
    run = program.run
    carry = program.init(parallel.pad(parallel.seed_keys(run.seed, run.seeds), run.seeds))
    program.save(place, program.first_step, carry)
    return carry


def _begin(trainer: Trainer, key: Key) -> Carry:
    state = trainer.init(key)
    metrics = jax.eval_shape(trainer.step, state)[1]
    sums = {name: jnp.zeros(x.shape, x.dtype) for name, x in metrics.items()}
    return Carry(state, sums | {"finite": jnp.int32(0)})


def _advance(trainer: Trainer, carry: Carry, steps: Array) -> Carry:
    """Take a number of steps that is not known when compiling, so any chunk is one program."""

    def step(_: Array, carry: Carry) -> Carry:
        state, metrics = trainer.step(carry.train)
        sums = {name: carry.sums[name] + x for name, x in metrics.items()}
        finite = jnp.all(jnp.array([jnp.isfinite(x) for x in sums.values()]))
        return Carry(state, sums | {"finite": carry.sums["finite"] + finite.astype(jnp.int32)})

    return jax.lax.fori_loop(0, steps, step, carry)


def _loop(
    program: Program, place: Path, carry: Carry, done: int, past: History, report: Report
) -> Result:
    """Go from one event of the timetable to the next until the end, the target or an interrupt."""
    saved, pace, reached = done, 1, _reached(program.run, past)
    with interruptible() as interrupted:
        while done < program.total_steps and not reached:
            log, evaluation, save = _timetable(program, done)
            due = min(log, evaluation, save)
            span = range(done, due)
            carry, done, pace = _chunks(program, carry, past, span, pace, report, interrupted)
            if done < due:
                break
            past = history.extend(past, done, history.means(_sums(program, carry)))
            carry = carry._replace(sums=jax.tree.map(jnp.zeros_like, carry.sums))
            if done >= evaluation:
                past = history.extend(past, done, _evaluate(program, carry, done), "evaluation_")
                reached = _reached(program.run, past)
            folder.log(place, done, past)
            if done >= save:
                program.save(place, done, carry)
                saved = done
    if saved < done:
        program.save(place, done, carry)
    return Result(place, past, finished=reached or done >= program.total_steps)


def _timetable(program: Program, done: int) -> tuple[int, int, int]:
    """Return when, after `done`, the next point, evaluation and checkpoint are due."""
    run, total = program.run, program.total_steps
    log = run.log_every or math.ceil(total / 100)
    evaluation = run.evaluate_every or math.ceil(total / 20)
    save = run.checkpoint_every or math.ceil(total / 10)

    def after(every: int) -> int:
        return min(total, (done // every + 1) * every)

    return after(log), after(evaluation), after(save)


def _reached(run: Run, past: History) -> bool:
    score = _score(past)
    return run.target_return is not None and score is not None and score >= run.target_return


def _chunks(
    program: Program,
    carry: Carry,
    past: History,
    span: range,
    pace: int,
    report: Report,
    interrupted: Callable[[], bool],
) -> tuple[Carry, int, int]:
    """Train over the timesteps of `span` unless interrupted, in chunks of about PACE seconds."""
    done = span.start
    while done < span.stop and not interrupted():
        steps = min(pace, -(-(span.stop - done) // program.per_step))
        began = time.perf_counter()
        carry = program.chunk(carry, jnp.int32(steps))
        sums = _sums(program, carry)
        speed = steps / (time.perf_counter() - began)
        pace = max(1, int(speed * PACE))
        _check_finite(program, sums, past)
        done += steps * program.per_step
        rate = speed * program.per_step * program.run.seeds
        latest = _latest_return(sums, past)
        report(Progress(done, program.total_steps, rate, latest, _score(past)))
    return carry, done, pace


def _sums(program: Program, carry: Carry) -> dict[str, np.ndarray]:
    """Fetch the sums since the last point, without the padding."""
    sums: dict[str, np.ndarray] = jax.device_get(carry.sums)
    return {name: x[: program.run.seeds] for name, x in sums.items()}


def evaluate(path: str, episodes: int, seed: int) -> Evaluation:
    """Play greedy episodes, [S, episodes], with every seed of a run as it was last saved.

    Raises ValueError if the folder or its checkpoint cannot be read.
    """
    place, config, run = read(path)
    checks.positive("episodes", episodes)
    run = dataclasses.replace(run, evaluate_episodes=episodes, seed=seed)
    program = make_program(config, run)
    return _play(program, _load(program, place)[0], stream=program.total_steps)


def _load(program: Program, place: Path) -> tuple[Carry, int]:
    """Return the last checkpoint, padded, and its step."""
    saved = folder.checkpoints(place)
    if not saved:
        raise ValueError(f"run: {place} has no checkpoint")
    carry = jax.tree.map(jnp.asarray, checkpoint.load(saved[-1], program.shapes))
    return parallel.pad(carry, program.run.seeds), checkpoint.about(saved[-1])["step"]


def _play(program: Program, carry: Carry, stream: int) -> Evaluation:
    """Play greedy episodes; their keys depend on the seed and `stream` alone."""
    run = program.run
    keys = parallel.pad(parallel.seed_keys(run.seed, run.seeds, stream), run.seeds)
    played = jax.device_get(program.evaluate((keys, carry.train.agent)))
    return Evaluation(*(x[: run.seeds] for x in played))


def _evaluate(program: Program, carry: Carry, done: int) -> dict[str, np.ndarray]:
    played = _play(program, carry, stream=done)
    return {
        "return": np.mean(played.total, axis=1),
        "length": np.mean(played.length, axis=1),
        "unfinished": np.mean(np.logical_not(played.done), axis=1),
    }


def _score(past: History) -> float | None:
    """Return the interquartile mean over seeds of the last evaluation."""
    return float(iqm(past["evaluation_return"][:, -1])) if "evaluation_return" in past else None


def _latest_return(sums: dict[str, np.ndarray], past: History) -> float:
    """Return the mean over seeds of the episodes since the last point, or else before it."""
    if sums["episodes"].sum():
        return float(sums["return_sum"].sum() / sums["episodes"].sum())
    return float(np.mean(past["return"][:, -1])) if "return" in past else math.nan


def _check_finite(program: Program, sums: dict[str, np.ndarray], past: History) -> None:
    """Raise FloatingPointError at the first step whose metrics are NaN or infinite."""
    bad = [name for name, x in sums.items() if not np.all(np.isfinite(x))]
    if not bad:
        return
    seed = int(np.argmin(np.isfinite(sums[bad[0]])))
    since = int(past["step"][-1]) if past else program.first_step
    step = since + (int(sums["finite"][seed]) + 1) * program.per_step
    value = sums[bad[0]][seed]
    raise FloatingPointError(
        f"{bad[0].removesuffix('_sum')}: {value} at step {step:,} of seed {seed}; "
        "the last checkpoint before it is kept"
    )


def _estimate(seeds: int, state: TrainState) -> str:
    """Say what a run will hold in memory."""
    replay = tree.nbytes(getattr(state.agent, "replay", ()))
    rest = tree.nbytes(state) - replay
    return (
        f"{_bytes(replay)} of replay and {_bytes(rest)} of other state per seed, "
        f"{_bytes(seeds * (replay + rest))} for {seeds} seed{'s' if seeds > 1 else ''}"
    )


def _bytes(count: float) -> str:
    power = min(3, int(math.log(max(count, 1), 1000)))
    return f"{count / 1000**power:,.3g} {('B', 'kB', 'MB', 'GB')[power]}"


def _check(run: Run) -> None:
    for field in ("seeds", "evaluate_episodes"):
        checks.positive(field, getattr(run, field))
    checks.within("seed", checks.at_least("seed", run.seed, 0), 0, 2**32 - 1)
    if run.target_return is not None:
        checks.within("target_return", run.target_return, -math.inf, math.inf)
    for field in ("log_every", "evaluate_every", "checkpoint_every"):
        if getattr(run, field) is not None:
            checks.positive(field, getattr(run, field))


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM into a question that can be asked between chunks.

    A second one ends the program at once. Outside the main thread there are no signals to catch.
    """
    caught: list[int] = []

    def catch(number: int, frame: Any) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
    before = {number: signal.signal(number, catch) for number in numbers}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
