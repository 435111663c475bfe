"""Memory networks on bAbI, 1,000 questions per task; of ten restarts, the lowest loss counts.

The original files are read from the folder that the environment variable MEMRL_BABI names; the
short form uses generated stories instead. Finished tasks are kept in `runs/` of the result's folder
until the report is written, so that an interrupted result can go on.
Sukhbaatar et al. (2015), table 1.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.findings import Claim, Findings
from memrl_jax import parallel, plot
from memrl_jax.run.files import write
from memrl_jax.tasks import babi
from memrl_jax.tasks.answering import SINGLE, Setting, make_answerer

# Percent of the questions answered wrong: 3 hops, position encoding, linear start and noise.
PAPER = {
    **{1: 0.1, 2: 8.2, 3: 41.8, 4: 4.4, 5: 13.7, 6: 7.9, 7: 20.3, 8: 11.7, 9: 13.6, 10: 9.7},
    **{11: 0.7, 12: 0.0, 13: 0.3, 14: 0.9, 15: 0.0, 16: 0.4, 17: 51.0, 18: 10.5, 19: 81.4, 20: 0.0},
}
EASY = 1, 12, 15, 20
LATER = 4, 6, 9, 10, 11, 13, 14, 7, 8, 5, 16, 17, 18, 19, 2, 3  # those with long stories last
EVERY = 5  # epochs between two points of the curves
Done = dict[str, Any]  # results of a task, as JSON types


class Plan(NamedTuple):
    """Which tasks to train on, and how."""

    load: Callable[[int], babi.Dataset]
    tasks: tuple[int, ...]
    restarts: int
    setting: Setting


def study(console: Console, place: Path, quick: bool) -> Findings:
    """Train on every task separately."""
    plan = short() if quick else full()
    kept = place / "runs"
    kept.mkdir(exist_ok=True)
    tasks = learned(plan, kept / "tasks.json", console)
    draw(tasks, place / "curves.png")
    seeds = list(range(plan.restarts))
    return Findings(
        title="bAbI, 1,000 questions a task",
        claims=[] if quick else claims(tasks),
        figures={"tasks": {t: without_curves(done) for t, done in tasks.items()}, "seeds": seeds},
        minutes=sum(done["seconds"] for done in tasks.values()) / 60,
        configs={"MemN2N": plan.setting._asdict()},
        table=table(tasks),
    )


def full() -> Plan:
    """Return the plan for the original files."""
    folder = os.environ.get("MEMRL_BABI")
    if not folder:
        raise ValueError(
            "MEMRL_BABI: set this to the folder of the original files, qa1_... to qa20_..., "
            "such as tasks_1-20_v1-2/en"
        )
    return Plan(partial(babi.load, folder), (*EASY, *LATER), 10, SINGLE)


def short() -> Plan:
    """Return a plan for one task, with generated stories."""
    setting = SINGLE._replace(linear_epochs=5, epochs=5)
    return Plan(partial(babi.generate, count=64), (1,), 2, setting)


def learned(plan: Plan, kept: Path, console: Console) -> dict[str, Done]:
    """Train on the tasks that the file `kept` does not hold, adding each once it is done."""
    about = {"restarts": plan.restarts, "setting": plan.setting._asdict()}
    held: dict[str, Any] = (
        json.loads(kept.read_text()) if kept.exists() else {"about": about, "tasks": {}}
    )
    if held["about"] != about:
        raise ValueError(f"out: {kept} was begun with other settings; remove it to begin anew")
    for task in plan.tasks:
        if str(task) not in held["tasks"]:
            done = learn(plan.load(task), plan)
            held["tasks"][str(task)] = done
            write(kept, json.dumps(held))
            console.print(
                f"task {task}: {done['best']:.1f} % wrong, {done['median']:.1f} % in the median "
                f"restart, {PAPER[task]} % published; {done['seconds']:.0f} s"
            )
    return {str(task): held["tasks"][str(task)] for task in sorted(plan.tasks)}


def learn(dataset: babi.Dataset, plan: Plan) -> Done:
    """Train restarts with seeds from 0 on; return percentages of questions answered wrong."""
    began = time.perf_counter()
    answerer = make_answerer(dataset, plan.setting)

    def restart(seed: Any, dataset: Any) -> Any:
        params, curves = answerer.train(jax.random.key(seed), dataset.train)
        return curves, jnp.mean(answerer.wrong(params, dataset.test))

    arrays = dataset._replace(vocabulary=())
    seeds = parallel.pad(jnp.arange(plan.restarts), plan.restarts)
    result = parallel.over_seeds(restart, plan.restarts)(seeds, arrays)
    curves, error = jax.tree.map(lambda x: np.asarray(x, float)[: plan.restarts], result)
    error, loss = (100 * error).round(2), curves.loss[:, -1].round(5)
    return {
        "best": error[loss.argmin()],
        "median": float(np.median(error)),
        "errors": error.tolist(),
        "losses": loss.tolist(),
        "seconds": round(time.perf_counter() - began, 1),
        "held_out": (100 * curves.held_out_error[:, EVERY - 1 :: EVERY]).round(1).tolist(),
    }


def without_curves(done: Done) -> Done:
    """Return the results of a task without its curves."""
    return {name: value for name, value in done.items() if name != "held_out"}


def mean(tasks: Mapping[str, Done], name: str) -> float:
    """Return the mean of a figure over tasks."""
    return float(np.mean([done[name] for done in tasks.values()]))


def claims(tasks: Mapping[str, Done]) -> list[Claim]:
    """Judge the best restarts."""
    wrong = mean(tasks, "best")
    easy = {task: tasks[str(task)]["best"] for task in EASY}
    return [
        Claim("mean of 20 tasks: <= 14.5 % wrong (13.8 published)", f"{wrong:.2f}", wrong <= 14.5),
        *(Claim(f"task {task}: < 1 % wrong", f"{x:.1f}", x < 1) for task, x in easy.items()),
    ]


def draw(tasks: Mapping[str, Done], path: Path) -> None:
    """Draw the mean over tasks of the held-out questions answered wrong, of every restart."""
    held_out = np.mean([done["held_out"] for done in tasks.values()], axis=0)
    epochs = EVERY * np.arange(1, held_out.shape[1] + 1)
    plot.curves(
        {"MemN2N, held-out questions": (epochs, held_out)},
        path,
        xlabel="epochs",
        ylabel="% wrong",
        title=f"bAbI, mean of {len(tasks)} tasks",
        reference={"published": float(np.mean([PAPER[int(task)] for task in tasks]))},
    )


def table(tasks: Mapping[str, Done]) -> Table:
    """Tabulate our figures beside the published ones."""
    out = Table("task", "best of restarts", "median restart", "published", title="% wrong")
    for task, done in tasks.items():
        out.add_row(task, f"{done['best']:.1f}", f"{done['median']:.1f}", f"{PAPER[int(task)]:.1f}")
    published = np.mean([PAPER[int(task)] for task in tasks])
    cells = (mean(tasks, "best"), mean(tasks, "median"), published)
    out.add_row("mean", *(f"{x:.2f}" for x in cells))
    return out
