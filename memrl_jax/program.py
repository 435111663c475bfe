"""The compiled parts of a run: all seeds at once, over the devices at hand."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import checks, parallel, tree
from memrl_jax.config import Config, make
from memrl_jax.train import Metrics, Trainer, TrainState
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
    """Timesteps between two points of the metrics; by default a hundredth of the run."""
    evaluate_every: checks.Steps | None = None
    """Timesteps between two greedy evaluations; by default a twentieth of the run."""
    evaluate_episodes: int = 32
    """Episodes in an evaluation, each in an environment of its own."""
    checkpoint_every: checks.Steps | None = None
    """Timesteps between two checkpoints; by default a tenth of the run."""
    target_return: float | None = None
    """Stop once the interquartile mean of an evaluation over seeds reaches this."""
    max_gigabytes: float | None = None
    """Refuse to start when replay and state of all seeds would hold more than this."""


class Carry(NamedTuple):
    """What a chunk of steps carries, per seed; a checkpoint is exactly this."""

    train: TrainState
    sums: Metrics  # since the last point of the metrics; `finite` counts steps before a NaN


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

    def due(self, done: int) -> tuple[int, int, int]:
        """Return when, after `done`, the next point, evaluation and checkpoint are due."""
        run, total = self.run, self.total_steps
        every = (
            run.log_every or math.ceil(total / 100),
            run.evaluate_every or math.ceil(total / 20),
            run.checkpoint_every or math.ceil(total / 10),
        )
        log, evaluation, save = (min(total, (done // e + 1) * e) for e in every)
        return log, evaluation, save

    def sums(self, carry: Carry) -> dict[str, np.ndarray]:
        """Fetch the sums since the last point, of the seeds that are not padding."""
        sums: dict[str, np.ndarray] = jax.device_get(carry.sums)
        return {name: x[: self.run.seeds] for name, x in sums.items()}

    def handover(self, carry: Carry) -> tuple[Carry, float]:
        """Return the seconds that a chunk takes beside its steps: seeds are copied in and out."""
        carry = self.chunk(carry, jnp.int32(0))  # compiles
        jax.block_until_ready(carry)
        began = time.perf_counter()
        carry = self.chunk(carry, jnp.int32(0))
        jax.block_until_ready(carry)
        return carry, time.perf_counter() - began


def make_program(config: Config, run: Run) -> Program:
    """Prepare a run; raises ValueError for settings out of range. Nothing is compiled yet."""
    check(run)
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
        estimate=_estimate(run, one.train),
        per_step=per_step,
        first_step=config.total_steps - steps * per_step,
        total_steps=config.total_steps,
    )


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


def _estimate(run: Run, state: TrainState) -> str:
    """Say what a run will hold in memory; raises ValueError if that is more than it may."""
    replay = tree.nbytes(getattr(state.agent, "replay", ()))
    rest = tree.nbytes(state) - replay
    whole = run.seeds * (replay + rest)
    seeds = f"{run.seeds} seed{'s' if run.seeds > 1 else ''}"
    parts = f"{_bytes(replay)} of replay and {_bytes(rest)} of other state per seed"
    if run.max_gigabytes is not None and whole > run.max_gigabytes * 1e9:
        raise ValueError(
            f"max_gigabytes: {seeds} need {_bytes(whole)} ({parts}), "
            f"more than {run.max_gigabytes:g} GB"
        )
    return f"{parts}, {_bytes(whole)} for {seeds}"


def _bytes(count: float) -> str:
    power = min(3, int(math.log(max(count, 1), 1000)))
    return f"{count / 1000**power:,.3g} {('B', 'kB', 'MB', 'GB')[power]}"
