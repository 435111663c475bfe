"""Trackers, which draw runs while they go on: TensorBoard, Weights & Biases, MLflow, your own."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from memrl_jax import checks

Curves = Mapping[str, Mapping[str, float]]  # "mean" and "seed_0", ... -> metric -> finite value


class Told(NamedTuple):
    """The run that a tracker is told of."""

    name: str  # of the run's folder; of a sweep's point, the sweep's and its number
    id: str  # made up for a run and a tracker; the same on every resume
    folder: Path  # an existing one for the tracker's files, within the run's folder
    settings: Mapping[str, Any]  # config and options, as JSON types


class Tracker(NamedTuple):
    """Where the points of a run go; both functions are called in one thread, and may raise."""

    log: Callable[[int, Curves], None]  # environment steps so far, the curves' values there
    close: Callable[[], None]  # ends this process's part: the run may be resumed


def tensorboard(told: Told) -> Tracker:
    """Write event files, in a folder for every curve: TensorBoard puts those in one picture."""
    from tensorboardX import SummaryWriter

    writers: dict[str, Any] = {}

    def writer(curve: str) -> Any:
        if curve not in writers:
            place = told.folder / curve
            # Files are named by the second: without a number, one begun too soon replaces another.
            number = len([*place.glob("events.*")])
            writers[curve] = SummaryWriter(str(place), filename_suffix=f".{number:04d}")
        return writers[curve]

    def log(step: int, curves: Curves) -> None:
        for curve, values in curves.items():
            for metric, value in values.items():
                writer(curve).add_scalar(metric, value, step)
            writer(curve).flush()

    def close() -> None:
        for each in writers.values():
            each.close()

    lines = [f"    {name}: {value}" for name, value in told.settings.items()]
    writer("mean").add_text("settings", "\n".join(lines))
    return Tracker(log, close)


def wandb(told: Told) -> Tracker:
    """Log to Weights & Biases: for `wandb sync --append`, unless WANDB_MODE says otherwise.

    Metrics are named as in return/mean, return/seed_0.
    """
    import wandb

    run = wandb.init(
        id=told.id,
        name=told.name,
        project=os.environ.get("WANDB_PROJECT", "memrl_jax"),
        dir=told.folder,
        config=dict(told.settings),
        mode=os.environ.get("WANDB_MODE", "offline"),
        resume="allow",
        settings=wandb.Settings(silent=True, console="off"),
    )

    def log(step: int, curves: Curves) -> None:
        run.log(_joined(curves), step=step, commit=True)  # its own steps would begin anew on resume

    return Tracker(log, run.finish)


def mlflow(told: Told) -> Tracker:
    """Log to MLflow: to a database in the folder, unless MLFLOW_TRACKING_URI says otherwise.

    Metrics are named as in return/mean, return/seed_0.
    """
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table it makes
    database = f"sqlite:///{told.folder.absolute()}/mlflow.db"
    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", database))
    run = _mlflow_run(client, told)

    def log(step: int, curves: Curves) -> None:
        now = time.time_ns() // 1_000_000  # milliseconds
        metrics = [Metric(name, x, now, step) for name, x in _joined(curves).items()]
        for first in range(0, len(metrics), 1000):  # as many as it takes at once
            client.log_batch(run, metrics[first : first + 1000])

    return Tracker(log, lambda: client.set_terminated(run))


def _mlflow_run(client: Any, told: Told) -> str:
    """Return the id that MLflow gave the run, which is found by a tag, or made."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "memrl_jax")
    found = client.get_experiment_by_name(name)
    experiment = found.experiment_id if found else client.create_experiment(name)
    for run in client.search_runs([experiment], f"tags.memrl_id = '{told.id}'"):
        client.update_run(run.info.run_id, status="RUNNING")
        return run.info.run_id
    made = client.create_run(experiment, tags={"memrl_id": told.id}, run_name=told.name)
    for setting, value in told.settings.items():
        client.log_param(made.info.run_id, setting, value)
    return made.info.run_id


def _joined(curves: Curves) -> dict[str, float]:
    return {f"{name}/{curve}": x for curve, xs in curves.items() for name, x in xs.items()}


TRACKERS: dict[str, Callable[[Told], Tracker]] = {
    "tensorboard": tensorboard,
    "wandb": wandb,
    "mlflow": mlflow,
}
MODULES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}  # that they import


def check(names: tuple[str, ...]) -> None:
    """Raise ValueError for trackers that are unknown, named twice or not installed."""
    for name in names:
        checks.known("track", name, TRACKERS)
        if names.count(name) > 1:
            raise ValueError(f"track: {name!r} is named {names.count(name)} times")
        if name in MODULES and find_spec(MODULES[name]) is None:
            pip = f'pip install "memrl_jax[{name}]"'
            raise ValueError(f"track: {name!r} is not installed; {pip}")
