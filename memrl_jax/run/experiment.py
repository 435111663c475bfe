"""Training runs on disk: chunks of jitted steps, with all side effects between the chunks."""

import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import checks, draws, parallel, tree
from memrl_jax.build import make, make_agent, make_agent_on_host, make_environment, make_on_host
from memrl_jax.config import Config, from_json, plain, to_json
from memrl_jax.environments import check, on_host
from memrl_jax.host_rollout import player as host_player
from memrl_jax.rollout import Episode, Evaluation, player
from memrl_jax.run import elsewhere, folder, history, processes, snapshot, taken, trackers
from memrl_jax.run.history import History
from memrl_jax.run.host_program import make_host_program
from memrl_jax.run.lanes import NOTHING, Varied
from memrl_jax.run.program import Carry, Program, Run, make_program, spacings
from memrl_jax.run.program import check as check_run
from memrl_jax.run.taken import Taken
from memrl_jax.run.telling import Tell, telling
from memrl_jax.statistics import carry_forward, iqm

PACE = 1.0  # seconds that a chunk should take: as long as Ctrl-C may have to wait

# First numbers of streams of keys (`parallel.seed_keys`): no two purposes share keys. Training's is
# 0; an EVALUATION during training adds its timestep; the others are `memrl evaluate` and `watch`.
EVALUATION, EVALUATE, WATCH = 1, 2, 3


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
Prepare = Callable[[Config, Run, Varied, Taken | None], Program]


def prepared(
    config: Config, run: Run, varied: Varied = NOTHING, first: Taken | None = None
) -> Program:
    """Prepare a run, within JAX or on the host as its environment is; see `make_program`."""
    params = first.params if first else None
    if not on_host(config.environment):
        return make_program(config, run, varied, params)
    for those, what in ((varied, "point"), (jax.process_count() > 1, "process")):
        if those:
            said = f"{config.environment} steps on the host, one {what} at a time"
            raise ValueError(f"environment: {said}")
    return make_host_program(config, run, params)


def start(
    config: Config,
    run: Run,
    say: Say,
    report: Report,
    first: Taken | None = None,
    varied: Varied = NOTHING,
    prepare: Prepare = prepared,
) -> Result:
    """Train all seeds of a new run, which begins with parameters of another if `first` has any.

    Or of several runs that differ in floats, in `varied`: see `make_program`.

    `say` gets lines of text, `report` the progress after every chunk. Where there are several
    processes (`jax.distributed`), all of them call this alike, and the first one writes the folder,
    on a file system that they share. Raises ValueError for settings out of range and for parameters
    of other shapes, and MemoryError if the memory does not suffice, and then leaves no folder
    behind; later FloatingPointError if a reward or a loss is not finite.
    """
    config = from_json(to_json(config))  # train exactly what config.json will say
    if run.taken is not None:
        raise ValueError(f"taken: {checks.shown(run.taken)} is what `first` tells, and not given")
    run = Run(**{name: plain(name, x) for name, x in vars(run).items()})
    run = dataclasses.replace(run, taken=first.record if first else None)
    program = prepare(config, run, varied, first)
    trackers.check(run.track)
    processes.check_same("settings", [to_json(config), vars(run), dict(varied)])
    if processes.leads():
        folder.check_free(run.out)
    program.trace()
    if not on_host(config.environment):
        check(make_environment(config), jax.random.key(run.seed), name=config.environment)
    options = vars(run) | spacings(run, config.total_steps)
    more = partial(taken.save, taken=first)
    made = folder.created(run.out, config, options, varied, say, more)
    with (
        made if processes.leads() else nullcontext(Path(run.out)) as place,
        _telling(program, place, {}, say) as tell,
    ):
        say(program.estimate)
        carry = _first(program, place, first)
        return _loop(program, place, carry, program.first_step, {}, say, report, tell)


def resume(
    path: str,
    say: Say,
    report: Report,
    changes: Mapping[str, Any] = MappingProxyType({}),
    prepare: Prepare = prepared,
) -> Result:
    """Resume a run from its last checkpoint, as if it had never stopped.

    Environments on the host begin new episodes, those under way count as truncated, and `say` is
    told so. `changes` are new values of settings in `folder.CHANGEABLE`, on which no number of the
    training depends. Raises like `start`, and ValueError if the folder or its files cannot be read,
    are not those of one run, or are being written by another process.
    """
    locked = folder.held(path, say) if processes.leads() else nullcontext(Path(path))
    with locked as place:
        _, config, run = _read(path)
        config, run, changed = _changed(config, run, changes)
        trackers.check(run.track)
        program = prepare(config, run, folder.varied(place), None)
        anew = not snapshot.checkpoints(place) and not history.read(place / "metrics.npz")
        if anew:  # it was killed before its first checkpoint
            first = _kept(program, place)
            program = prepared(config, run, first=first) if first else program
            _first(program, place, first)
        carry, about = _load(program, place)
        if program.total_steps < about.timestep:
            done = f"{about.timestep}, the timesteps that are done"
            raise ValueError(f"total_steps: {program.total_steps} is below {done}")
        past = snapshot.measured(place, about)
        processes.check_same("settings", [to_json(config), vars(run), about])
        if processes.leads():
            _tidied(program, place, past, about.timestep, changed)
        say(f"{program.estimate}; going on from timestep {about.timestep:,}")
        if program.lost and not anew:
            say(program.lost)
        if others := folder.other_versions(place):
            say(f"begun with others, so that numbers may differ: {', '.join(others)}")
        with _telling(program, place, past, say) as tell:
            return _loop(program, place, carry, about.timestep, past, say, report, tell)


def _tidied(
    program: Program, place: Path, past: History, timestep: int, changed: dict[str, Any]
) -> None:
    """Bring a folder to where its last checkpoint is, and enter what was changed."""
    folder.cut_log(place, past, timestep)
    snapshot.remove_old(place)
    if changed:
        entries = [*folder.changes(place), {"timestep": timestep, "changed": changed}]
        run, varied = vars(program.run), program.lanes.varied
        folder.describe(place, program.config, run, varied, entries)


def _telling(
    program: Program, place: Path, past: History, say: Say
) -> AbstractContextManager[Tell]:
    """Tell trackers of a run, from the first process."""
    if processes.leads():
        return telling(program, place, past, say)
    return nullcontext(lambda past: None)


def _changed(
    config: Config, run: Run, changes: Mapping[str, Any]
) -> tuple[Config, Run, dict[str, Any]]:
    """Return the config and options with `changes`, and what differs: name -> [before, after]."""
    for name in changes:
        folder.check_changeable(name)
    given = vars(run) | spacings(run, config.total_steps) | {"total_steps": config.total_steps}
    before = {name: plain(name, x) for name, x in given.items()}
    after = before | {name: plain(name, x) for name, x in changes.items()}
    changed = {name: [before[name], x] for name, x in after.items() if before[name] != x}
    config = config.replace(total_steps=after.pop("total_steps"))
    return config, Run(**after), changed


def read(path: str) -> tuple[Path, Config, Run]:
    """Return the folder, config and options of a run; raises ValueError if it is not one."""
    place, config, run = _read(path)
    if varied := folder.varied(place):
        raise ValueError(f"run: {path} are several runs, of other {', '.join(varied)}: a sweep's")
    return place, config, run


def _read(path: str) -> tuple[Path, Config, Run]:
    place, config, options = folder.read(path)
    for name in options:
        checks.known(f"{path}/config.json", name, [f.name for f in dataclasses.fields(Run)])
    with folder.of_config(place):
        run = Run(**options | {"out": path})
        check_run(run)
        (make_agent_on_host if on_host(config.environment) else make)(config)
    return place, config, run


def _kept(program: Program, place: Path) -> Taken | None:
    """Return the parameters that a run in a folder begins with, if it took any."""
    if program.run.taken is None:
        return None
    agents = jax.eval_shape(program.lanes.first, program.shapes.train.agent)
    shapes = jax.eval_shape(jax.vmap(program.params), agents)
    return taken.load(place, program.run.taken, shapes)


def _first(program: Program, place: Path, first: Taken | None) -> Carry:
    """Compile, warm up all seeds and save the first checkpoint."""
    _compiled(program)
    lanes = program.lanes
    params = lanes.repeated(first.params) if first else None
    carry = program.init(lanes.pad((lanes.keys(), lanes.settings(), params)))
    _save(program, place, program.first_step, carry, {})
    return carry


def _save(program: Program, place: Path, step: int, carry: Carry, past: History) -> None:
    """Write a checkpoint, without the lanes that are padding."""
    settings = folder.settings(program.config, vars(program.run), program.lanes.varied)
    snapshot.save(place, step, parallel.held(carry, program.lanes.rows), settings, past)


def store(
    config: Config,
    run: Run,
    varied: Varied,
    carry: Carry,
    past: History,
    timestep: int,
    say: Say,
) -> None:
    """Make the folder of a run that was trained up to a timestep as a part of another."""
    options = vars(run) | spacings(run, config.total_steps)
    with folder.created(run.out, config, options, varied, say, lambda _: None) as place:
        folder.record(place, past)
        snapshot.save(place, timestep, carry, folder.settings(config, vars(run), varied), past)


def _loop(
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
    say(_compiled(program))
    with interruptible() as asked:

        def interrupted() -> bool:
            return bool(processes.largest(asked()))

        carry, handover = program.handover(carry)
        pace = Pace(processes.largest(handover))
        while done < program.total_steps and not reached:
            log, evaluation, save = program.due(done)
            due = min(log, evaluation, save)
            span = range(done, due)
            carry, done, pace = _chunks(program, carry, past, span, pace, report, interrupted)
            if done < due:
                break
            past = history.extend(past, done, history.means(program.totals(carry)))
            carry = carry._replace(sums=jax.tree.map(jnp.zeros_like, carry.sums))
            if done >= evaluation:
                past = history.extend(past, done, _evaluate(program, carry, done), "evaluation_")
                reached = _reached(program.run, past)
            if processes.leads():
                folder.log(place, done, past)
            tell(past)
            if done >= save:
                _save(program, place, done, carry, past)
                saved = done
        if saved < done:
            _save(program, place, done, carry, past)
    return Result(place, past, finished=reached or done >= program.total_steps)


def _compiled(program: Program) -> str:
    """Compile, and wait for the other processes; return a text about the memory needed."""
    said = program.compile()
    processes.gathered(0)
    return said


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


def evaluate(
    path: str,
    episodes: int,
    seed: int,
    environment: str | None = None,
    environment_args: Mapping[str, Any] = MappingProxyType({}),
) -> Evaluation:
    """Play greedy episodes, [S, episodes], with every seed of a run as it was last saved.

    They are played in another environment if one, or other parameters than the run's, are given.
    Raises ValueError if the folder or its checkpoint cannot be read, and for an environment with
    other spaces.
    """
    place, config, run = read(path)
    checks.positive("episodes", episodes)
    run = dataclasses.replace(run, evaluate_episodes=episodes, seed=seed)
    program = prepared(config, run)
    carry, _ = _load(program, place)
    if environment is not None or environment_args:
        other = elsewhere.moved(config, environment, environment_args)
        program = program._replace(evaluate=program.elsewhere(other))
    return _play(program, carry, EVALUATE)


def take(path: str, parts: Sequence[str], seeds: int) -> Taken:
    """Return parts of the parameters of a run as it was last saved, for the seeds of a new one.

    Each takes those of the seed of the same number, cyclically. Raises ValueError if the folder or
    its checkpoint cannot be read, and for parts that there are not.
    """
    place, config, run = read(path)
    program = prepared(config, run)
    agents, about = _agents(program, place)
    chosen = taken.choose(jax.vmap(program.params)(agents), parts, seeds)
    return Taken(taken.record(path, config, about.timestep, parts), chosen)


def play(path: str, seed: int, episodes: int) -> list[Episode]:
    """Play and record greedy episodes with one seed of a run as it was last saved.

    Raises ValueError if the run has no such seed, or the folder or its checkpoint cannot be read.
    """
    place, config, run = read(path)
    checks.positive("episodes", episodes)
    checks.within("seed", checks.at_least("seed", seed, 0), 0, run.seeds - 1)
    program = prepared(config, run)
    state = tree.at(_agents(program, place)[0], seed)
    episode = _player(config)
    key = parallel.seed_keys(run.seed, run.seeds, WATCH)[seed]
    return [episode(state, draws.fold_in(key, i)) for i in range(episodes)]


def _player(config: Config) -> Callable[[Any, Any], Episode]:
    if on_host(config.environment):
        host = make_on_host(config, 1)
        return host_player(host, make_agent(config, host))
    env = make_environment(config)
    return player(env, make_agent(config, env))


def trained(path: str) -> tuple[Config, Run, Any]:
    """Return the config and options of a run, and the agents' states [S, ...] as last saved.

    Raises ValueError if the folder or its checkpoint cannot be read.
    """
    place, config, run = read(path)
    return config, run, _agents(prepared(config, run), place)[0]


def _agents(program: Program, place: Path) -> tuple[Any, snapshot.About]:
    """Return the agents' states [S, ...] as last saved, and the metadata of that checkpoint."""
    carry, about = snapshot.load(place, program.shapes)
    return jax.tree.map(jnp.asarray, program.lanes.first(carry.train.agent)), about


def _load(program: Program, place: Path) -> tuple[Carry, snapshot.About]:
    """Return the last checkpoint, padded, and its metadata."""
    carry, about = snapshot.load(place, program.shapes)
    return program.lanes.pad(carry), about


def _play(program: Program, carry: Carry, *stream: int) -> Evaluation:
    """Play greedy episodes, [S, E]; their keys depend on the seed and `stream` alone.

    Raises FloatingPointError for the first reward that is NaN or infinite.
    """
    lanes, episodes = program.lanes, program.run.evaluate_episodes
    keys = lanes.pad(lanes.keys(*stream))
    played = parallel.fetched(program.evaluate((keys, carry.train.agent, carry.varied)))
    played = Evaluation(*(lanes.joined(x)[:, :episodes] for x in played))
    for lane, episode in np.argwhere(~np.isfinite(played.total)):
        value, step = played.total[lane, episode], played.length[lane, episode]
        of = lanes.told(int(lane))
        raise FloatingPointError(
            f"reward: {value} at step {step} of episode {episode} of an evaluation of {of}"
        )
    return played


def _evaluate(program: Program, carry: Carry, done: int) -> dict[str, np.ndarray]:
    played = _play(program, carry, EVALUATION, done)
    return {
        "return": np.mean(played.total, axis=1),
        "length": np.mean(played.length, axis=1),
        "unfinished": np.mean(np.logical_not(played.done), axis=1),
    }


def _score(past: History) -> float | None:
    """Return the interquartile mean over seeds of the last evaluation."""
    return float(iqm(past["evaluation_return"][:, -1])) if "evaluation_return" in past else None


def _latest_return(sums: dict[str, np.ndarray], past: History) -> float:
    """Return the mean return of the episodes since the last point, or else of the latest before."""
    if sums["episodes"].sum():
        return float(sums["return_sum"].sum() / sums["episodes"].sum())
    return float(np.mean(carry_forward(past["return"])[:, -1])) if "return" in past else math.nan


def _check_finite(program: Program, sums: dict[str, np.ndarray], past: History) -> None:
    """Raise FloatingPointError, naming the step, once a metric is NaN or infinite."""
    bad = [name for name, x in sums.items() if not np.all(np.isfinite(x))]
    if not bad:
        return
    name = next(x for x in ("reward_sum", "loss_sum", *bad) if x in bad)  # causes first
    lane = int(np.argmin(np.isfinite(sums[name])))
    since = int(past["timestep"][-1]) if past else program.first_step
    timestep = since + int(sums["training_steps"][lane]) * program.per_step
    raise FloatingPointError(
        f"{name.removesuffix('_sum')}: {sums[name][lane]} at step {_taken(past, sums)[lane]:,} of "
        f"{program.lanes.told(lane)}, timestep {timestep:,}; the last checkpoint before it is kept"
    )


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
