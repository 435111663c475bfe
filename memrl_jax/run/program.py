"""The compiled parts of a run: all seeds at once, over the devices of all processes."""

import dataclasses
import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import checks, parallel, shards, tree
from memrl_jax.build import make, per_rollout
from memrl_jax.config import Config, flat
from memrl_jax.run import elsewhere, limits, sums
from memrl_jax.run.ahead import CompiledFunction
from memrl_jax.run.lanes import NOTHING, Lanes, Varied
from memrl_jax.run.limits import FreeMemory
from memrl_jax.run.sums import Sums
from memrl_jax.settings import frozen
from memrl_jax.train import Trainer, TrainState
from memrl_jax.types import Array, Key


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything around a training run that does not change what one seed computes."""

    out: str = ""
    """Folder to make for the run; by default runs/PRESET-ENVIRONMENT."""
    seeds: int = 8
    """Seeds to run at once."""
    seed: checks.Seed = 0
    """Number that the keys of all seeds come from."""
    log_every: checks.Steps | None = None
    """Timesteps between two points of the metrics, counted like total_steps; by default a hundredth
    of the run."""
    evaluate_every: checks.Steps | None = None
    """Timesteps between two greedy evaluations; by default a twentieth of the run."""
    evaluate_episodes: int = 32
    """Episodes in an evaluation, each in an environment of its own."""
    checkpoint_every: checks.Steps | None = None
    """Timesteps between two checkpoints; by default a tenth of the run."""
    target_return: float | None = None
    """Stop once the interquartile mean of an evaluation over seeds reaches this."""
    max_gigabytes: float | None = None
    """Refuse to start when all seeds together would need more memory than this."""
    taken: Mapping[str, Any] | None = None
    """Parameters that the run began with: of which run, as of when, and which parts; None if they
    are its own. It is told by `experiment.start`, not given."""
    track: tuple[str, ...] = ()
    """Trackers to tell of the run while it goes on: tensorboard, wandb, mlflow, or one of your own
    in TRACKERS. The last two work offline, in the folder of the run, unless their environment
    variables say otherwise."""

    def __post_init__(self) -> None:
        """Freeze lists, e.g. from JSON."""
        object.__setattr__(self, "track", frozen(self.track))


class Carry(NamedTuple):
    """What a chunk of training steps is given and returns; a checkpoint stores exactly this."""

    train: TrainState
    sums: Sums  # since the last point of the metrics; `training_steps` counts the terms
    varied: dict[str, Array]  # floats of the config that differ between lanes, [] each


class Program(NamedTuple):
    """The parts of a run and its schedule."""

    config: Config
    run: Run
    lanes: Lanes
    init: Any  # (keys, varied floats, parameters by part to begin with or None) [S] -> Carry [S]
    chunk: Any  # Carry [S], steps -> Carry [S]; donates
    evaluate: Any  # (keys, agent states, varied floats) [S] -> Evaluation [S, E]
    elsewhere: Any  # config -> `evaluate` in that config's environment
    params: Any  # the state of an agent -> its parameters by part
    parts: tuple[CompiledFunction, ...]  # what is compiled for these, a training step first
    shapes: Any  # of a Carry [S, ...]
    estimate: str
    per_step: int  # timesteps in a training step
    first_step: int  # timesteps of warm-up
    total_steps: int
    lost: str = ""  # what a checkpoint does not hold, so that a resumed run has other numbers
    strict: bool = True  # whether a lane with a number that is not finite ends the run

    def trace(self) -> None:
        """Raise MemoryError if a lower bound exceeds the memory there is; takes seconds."""
        for part in self.parts:
            _ = part.traced

    def compile(self) -> str:
        """Compile what is not compiled yet; return a text about the memory that it needs.

        Raises MemoryError if that is more than there is, ValueError if it is above `max_gigabytes`.
        """
        for part in self.parts:
            _ = part.compiling  # all at once: much of a compiler's work uses one core
        for part in self.parts:
            _allow(self.run, f"{part.needs} {limits.format_bytes(part.nbytes)}", part.nbytes)
        return f"the compiled step needs {limits.format_bytes(self.parts[0].nbytes)}"

    def due(self, done: int) -> tuple[int, int, int]:
        """Return the timesteps of the next point, evaluation and checkpoint after `done`."""
        every = spacings(self.run, self.total_steps).values()
        log, evaluation, save = (min(self.total_steps, (done // e + 1) * e) for e in every)
        return log, evaluation, save

    def totals(self, carry: Carry) -> dict[str, np.ndarray]:
        """Fetch the sums [S] since the last point, over the shards of each lane."""
        totals = sums.totals(parallel.fetched(carry.sums))
        by_lane = {name: self.lanes.joined(x) for name, x in totals.items()}
        steps = by_lane["training_steps"].min(axis=1)  # of a shard: all take them together
        return {name: x.sum(axis=1) for name, x in by_lane.items()} | {"training_steps": steps}

    def handover(self, carry: Carry) -> tuple[Carry, float]:
        """Return the carry, and the seconds that a chunk of no steps takes: it copies all seeds."""
        carry = self.chunk(carry, jnp.int32(0))
        began = time.perf_counter()
        carry = self.chunk(carry, jnp.int32(0))
        return carry, time.perf_counter() - began


def make_program(config: Config, run: Run, varied: Varied = NOTHING, taken: Any = None) -> Program:
    """Prepare a run, or several that differ in floats; nothing is compiled yet.

    `varied` has values [P] of some of the config's floats, which take the place of its own; seeds
    begin with parameters `taken` [S, ...], by part. Raises ValueError for settings out of range and
    for parameters of other shapes, MemoryError if the states alone do not fit.
    """
    check(run)
    lanes = Lanes(run.seed, run.seeds, varied, config.data_parallel)
    trainer, steps = make(config)
    room = limits.room(_devices(lanes))
    per_step = per_rollout(config)
    episodes = -(-run.evaluate_episodes // lanes.shards)  # that a row plays
    one, (init, chunk, evaluate) = _parts(config, run, lanes, episodes, taken, room)
    return Program(
        config,
        run,
        lanes,
        init,
        chunk,
        evaluate,
        partial(elsewhere.evaluation, config, lanes, episodes, evaluate),
        trainer.params,
        parts=(chunk, evaluate, init),
        shapes=of_seeds(one, lanes.rows),
        estimate=estimate(config, run, lanes, one.train, room),
        per_step=per_step,
        first_step=config.total_steps - steps * per_step,
        total_steps=config.total_steps,
    )


def _parts(
    config: Config, run: Run, lanes: Lanes, episodes: int, taken: Any, room: FreeMemory
) -> tuple[Carry, tuple[CompiledFunction, CompiledFunction, CompiledFunction]]:
    """Return the shapes of a row, and the functions that begin a run, advance it and evaluate it.

    The first of these is traced for the shapes.
    """
    spread = lanes.size, lanes.shards
    devices = _devices(lanes)
    given = jax.eval_shape(lambda: (lanes.keys(), lanes.settings(), lanes.repeated(taken)))
    first = parallel.padded(given, *spread)
    steps = jax.ShapeDtypeStruct((), jnp.int32)
    training, evaluation = labels(config, run)

    def trainer(varied: dict[str, Array]) -> Trainer:
        return make(config.replace(**varied))[0]

    def evaluate(x: tuple[Key, Any, dict[str, Array]]) -> Any:
        key, agent, varied = x
        return trainer(varied).evaluate(shards.own(key), agent, episodes)

    init = parallel.over_seeds(lambda x: _begin(trainer(x[1]), *x), *spread)
    one = of_one(jax.eval_shape(init, first))
    carry = parallel.padded(of_seeds(one, lanes.rows), *spread)
    chunk = parallel.update_seeds(lambda x, n: _advance(trainer(x.varied), x, n), *spread)
    play = parallel.over_seeds(evaluate, *spread)
    played = first[0], carry.train.agent, carry.varied
    return one, (
        CompiledFunction(init, (first,), "the warm-up needs", room, devices),
        CompiledFunction(chunk, (carry, steps), training, room, devices),
        CompiledFunction(play, (played,), evaluation, room, devices),
    )


def _devices(lanes: Lanes) -> int:
    """Return on how many devices of this process lanes are; raises ValueError if on none."""
    where = parallel.mesh(lanes.size, lanes.shards)
    if not where.local_devices:
        spread = f"{lanes.size} seeds in {lanes.shards} shards are on {where.size} devices"
        raise ValueError(f"processes: {jax.process_count()} are too many: {spread}")
    return len(where.local_devices)


def of_one(states: Any) -> Any:
    """Return the shapes for a seed of states [S, ...]."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), states)


def of_seeds(one: Any, seeds: int) -> Any:
    """Return the shapes [S, ...] of what has shapes `one` for a seed."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((seeds, *x.shape), x.dtype), one)


def labels(config: Config, run: Run) -> tuple[str, str]:
    """Return how messages begin about the memory of a training step and of an evaluation."""
    training = f"a step of training{_with('batch_size', config)} needs"
    return training, f"an evaluation with evaluate_episodes {run.evaluate_episodes} needs"


def spacings(run: Run, total_steps: int) -> dict[str, int]:
    """Return the timesteps between points, evaluations and checkpoints, by the option's name."""
    parts = {"log_every": 100, "evaluate_every": 20, "checkpoint_every": 10}
    asked = {name: getattr(run, name) for name in parts}
    return {name: asked[name] or math.ceil(total_steps / n) for name, n in parts.items()}


def check(run: Run) -> None:
    """Raise ValueError for options out of range."""
    checks.fields(run)
    for field in ("seeds", "evaluate_episodes"):
        checks.positive(field, getattr(run, field))
    checks.at_least("seed", run.seed, 0, 2**32 - 1)
    if run.target_return is not None:
        checks.within("target_return", run.target_return, -math.inf, math.inf)
    if run.max_gigabytes is not None:
        checks.within("max_gigabytes", run.max_gigabytes, 0, math.inf)
    for field in ("log_every", "evaluate_every", "checkpoint_every"):
        if getattr(run, field) is not None:
            checks.positive(field, getattr(run, field), high=2**53)


def _begin(trainer: Trainer, key: Key, varied: dict[str, Array], taken: Any) -> Carry:
    state, metrics = trainer.init(key, taken)
    metrics = metrics | {"training_steps": jnp.int32(0)}
    varied = {name: jnp.asarray(x, jnp.float32) for name, x in varied.items()}
    return Carry(state, sums.add(sums.zeros(metrics), metrics), varied)


def _advance(trainer: Trainer, carry: Carry, steps: Array) -> Carry:
    """Take a traced number of steps, so that chunks of all lengths share one program."""

    def step(_: Array, carry: tuple[TrainState, Sums]) -> tuple[TrainState, Sums]:
        state, metrics = trainer.step(carry[0])
        return state, sums.add(carry[1], metrics | {"training_steps": jnp.int32(1)})

    train, total = jax.lax.fori_loop(0, steps, step, (carry.train, carry.sums))
    return Carry(train, total, carry.varied)


def estimate(config: Config, run: Run, lanes: Lanes, state: TrainState, room: FreeMemory) -> str:
    """Describe the memory that a run's states take; raises if that is more than it may or can."""
    whole = lanes.rows * tree.nbytes(state)
    where = parallel.mesh(lanes.size, lanes.shards)
    seeds = f"{run.seeds} seed{'s' if run.seeds > 1 else ''}"
    seeds += f" at {lanes.points} points" if lanes.points > 1 else ""
    agent, rest = (lanes.shards * tree.nbytes(x) for x in (state.agent, state._replace(agent=())))
    of_agent, of_rest = limits.format_bytes(agent), limits.format_bytes(rest)
    parts = f"{of_agent} of agent and {of_rest} of environments per seed"
    needs = f"{seeds} need {limits.format_bytes(whole)} ({parts})"
    _allow(run, needs, whole)
    here = whole * len(where.local_devices) // where.size
    room.hold(f"{needs}{_with('capacity', config)}", here)
    return f"{parts}, {limits.format_bytes(whole)} for {seeds}"


def _with(name: str, config: Config) -> str:
    """Name a setting on which a size depends, with its value, if the agent has it."""
    return f" with {name} {flat(config)[name]}" if name in flat(config) else ""


def _allow(run: Run, needs: str, nbytes: int) -> None:
    if run.max_gigabytes is not None and nbytes > run.max_gigabytes * 1e9:
        raise ValueError(f"max_gigabytes: {needs}, more than {run.max_gigabytes:g} GB")
