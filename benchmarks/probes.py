"""Results of neural memories that learn a task under supervision, all seeds in one program.

An interrupted training can be resumed: until the report is written, states and curves are kept in
`runs/` of the result's folder.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

from benchmarks.findings import Claim, Findings
from memrl_jax import parallel, plot
from memrl_jax.memory import MEMORIES
from memrl_jax.run import checkpoint
from memrl_jax.tasks import Probe, Task, make_probe
from memrl_jax.types import Array, Key, NeuralMemory

Figures = Mapping[str, Mapping[str, np.ndarray]]  # label -> name -> [seeds]


class Learner(NamedTuple):
    """A memory and how it learns: by Adam, with a learning rate that decays linearly to 0."""

    memory: str
    memory_args: Mapping[str, Any]
    sequences: int = 25_000
    batch_size: int = 1
    learning_rate: float = 1e-3
    max_gradient_norm: float = 10.0
    width: int = 64  # of the layer before the memory


class Test(NamedTuple):
    """Fresh sequences to evaluate on, of the task or of a longer one."""

    task: Task
    sequences: int


class Result(NamedTuple):
    """Memories to train on a task and what they should show."""

    title: str
    task: Task
    tests: Mapping[str, Test]
    learners: Mapping[str, Learner]
    claims: Callable[[Figures], list[Claim]]
    seeds: int = 5
    points: int = 50  # of a curve


class Trained(NamedTuple):
    """The state of a training, and its curve so far."""

    carry: Any  # keys, parameters and the optimizer's state, [seeds, ...]
    errors: list[list[float]]  # [points so far, seeds], wrong bits per sequence
    seconds: float


def study(make: Callable[[], Result], console: Console, place: Path, quick: bool) -> Findings:
    """Train and test the memories of a result; draw their curves."""
    result = shortened(make()) if quick else make()
    learned, figures, kept = {}, {}, place / "runs"
    kept.mkdir(exist_ok=True)
    for label, learner in result.learners.items():
        console.print(f"{label}: {learner.sequences:,} sequences, {result.seeds} seeds")
        probe = make_probe(result.task, memory(learner), learner.width)
        learned[label] = train(result, learner, probe, kept / f"{label}.ckpt", console)
        figures[label] = tested(result, probe, learned[label].carry[1])
    draw(result, learned, place / "curves.png")
    figured = {
        k: {n: x.astype(float).round(3).tolist() for n, x in of.items()}
        for k, of in figures.items()
    }
    return Findings(
        title=result.title,
        claims=[] if quick else result.claims(figures),
        figures={"figures": figured, "seeds": list(range(result.seeds))},
        minutes=sum(trained.seconds for trained in learned.values()) / 60,
        configs={label: learner._asdict() for label, learner in result.learners.items()},
        table=table(figures),
    )


def memory(learner: Learner) -> NeuralMemory:
    """Make the memory of a learner."""
    return MEMORIES[learner.memory](**learner.memory_args)


def train(result: Result, learner: Learner, probe: Probe, path: Path, console: Console) -> Trained:
    """Train all seeds, from the start or from where the file at `path` leaves off."""
    steps = learner.sequences // learner.batch_size // result.points
    begin, go_on = trainer(learner, probe, steps, result.points)
    now = Trained(jax.jit(jax.vmap(begin))(jnp.arange(result.seeds)), [], 0.0)
    about = {"learner": learner._asdict(), "seeds": result.seeds, "points": result.points}
    if path.exists():
        now = resumed(path, about, now.carry)
    go_on = jax.jit(jax.vmap(go_on))
    while len(now.errors) < result.points:
        began = time.perf_counter()
        carry, errors = jax.block_until_ready(go_on(now.carry))
        seconds = now.seconds + time.perf_counter() - began
        now = Trained(carry, [*now.errors, np.asarray(errors, float).round(4).tolist()], seconds)
        checkpoint.save(path, carry, {**about, "errors": now.errors, "seconds": seconds})
        done = len(now.errors) * steps * learner.batch_size
        told = "  ".join(f"{x:.2f}" for x in now.errors[-1])
        console.print(f"{done:>10,} sequences  bits wrong in one: {told}  {seconds:.0f} s")
    return now


def trainer(learner: Learner, probe: Probe, steps: int, points: int) -> tuple[Callable, Callable]:
    """Return `begin(seed) -> carry` and `go_on(carry) -> (carry, errors)`, of `steps` steps."""
    rate = optax.linear_schedule(learner.learning_rate, 0.0, steps * points)
    clip = optax.clip_by_global_norm(learner.max_gradient_norm)
    optimizer = optax.chain(clip, optax.adam(rate))

    def begin(seed: Array) -> Any:
        key, params, _ = probe.init(jax.random.key(seed))
        return key, params, optimizer.init(params)

    def objective(params: Any, key: Key) -> tuple[Array, Array]:
        metrics = probe.evaluate(params, key, learner.batch_size)
        return metrics["loss"] / metrics["answers"], metrics["errors"] / learner.batch_size

    def step(carry: Any, _: None) -> tuple[Any, Array]:
        key, params, state = carry
        key, batch_key = jax.random.split(key)
        gradient, errors = jax.grad(objective, has_aux=True)(params, batch_key)
        updates, state = optimizer.update(gradient, state, params)
        return (key, optax.apply_updates(params, updates), state), errors

    def go_on(carry: Any) -> tuple[Any, Array]:
        carry, errors = jax.lax.scan(step, carry, length=steps)
        return carry, jnp.mean(errors)

    return begin, go_on


def resumed(path: Path, about: Mapping[str, Any], carry: Any) -> Trained:
    """Read what was saved; raises ValueError if that has other settings."""
    saved = checkpoint.about(path)
    if any(saved[name] != value for name, value in about.items()):
        raise ValueError(f"out: {path} was begun with other settings; remove it to begin anew")
    return Trained(checkpoint.load(path, carry), saved["errors"], saved["seconds"])


def tested(result: Result, probe: Probe, params: Any) -> dict[str, np.ndarray]:
    """Return for every test the wrong bits per sequence, and their percentage, [seeds] each."""
    figures = {}
    for i, (name, test) in enumerate(result.tests.items()):

        def judge(params: Any, key: Key, test: Test = test) -> Any:
            metrics = probe.evaluate(params, key, test.sequences, on=test.task)
            share = 100 * metrics["errors"] / metrics["answers"]
            return metrics["errors"] / test.sequences, share

        keys = parallel.seed_keys(1, result.seeds, i)
        errors, share = jax.jit(jax.vmap(judge))(params, keys)
        figures[f"{name}: wrong bits"] = np.asarray(errors)
        figures[f"{name}: % wrong"] = np.asarray(share)
    return figures


def draw(result: Result, learned: Mapping[str, Trained], path: Path) -> None:
    """Draw the errors of all memories along training."""
    series = {}
    for label, trained in learned.items():
        points = np.arange(1, result.points + 1) * result.learners[label].sequences // result.points
        series[label] = points, np.transpose(trained.errors)
    plot.curves(
        series, path, xlabel="sequences", ylabel="wrong bits in a sequence", title=result.title
    )


def table(figures: Figures) -> Table:
    """Tabulate every seed's figures."""
    out = Table("memory", "figure", "of each seed")
    for label, of in figures.items():
        for name, values in of.items():
            out.add_row(label, name, "  ".join(f"{x:.3g}" for x in values))
    return out


def shortened(result: Result) -> Result:
    """Take two seeds and a few sequences."""
    learners = {
        label: learner._replace(sequences=4 * learner.batch_size)
        for label, learner in result.learners.items()
    }
    tests = {name: test._replace(sequences=2) for name, test in result.tests.items()}
    return result._replace(learners=learners, tests=tests, seeds=2, points=2)
