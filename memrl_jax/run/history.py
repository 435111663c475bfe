"""The metrics of a run so far: arrays [seeds, points] by name.

A point has a `timestep`, in which the run's schedule is counted, and a `step`: the environment
steps until then, warm-up included, averaged over seeds. They differ by the timesteps that begin an
episode, in which no action is taken. `step` and `timestep` [P] belong to the metrics of training,
`evaluation_step` and `evaluation_timestep` [E] to those of greedy evaluations, whose names begin
with `evaluation_`.
"""

import hashlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from memrl_jax import checks
from memrl_jax.run import files

History = dict[str, np.ndarray]

SHOWN = {  # metric -> what it is called in pictures; others by their name
    "return": "return of training episodes",
    "length": "length of training episodes (steps)",
    "evaluation_return": "return of greedy episodes",
    "evaluation_length": "length of greedy episodes (steps)",
    "evaluation_unfinished": "share of greedy episodes that did not end",
}

# The count that a sum is divided by; all others are divided by `updates`.
PER = {"return_sum": "episodes", "length_sum": "episodes", "reward_sum": "steps"}


def extend(
    history: History, timestep: int, row: Mapping[str, np.ndarray], prefix: str = ""
) -> History:
    """Return `history` with one more point: `row` has an array [seeds] for every name.

    Its `step` adds up the `steps` of all points of training, including one that is appended here.
    """
    out = dict(history)

    def append(name: str, value: np.ndarray) -> None:
        old = history.get(prefix + name)
        out[prefix + name] = value if old is None else np.concatenate([old, value], axis=-1)

    for name, value in row.items():
        append(name, np.asarray(value)[:, None])
    append("timestep", np.array([timestep]))
    append("step", out["steps"].sum(axis=-1).mean(keepdims=True))
    return out


def of_seeds(history: History, take: Callable[[np.ndarray], np.ndarray]) -> History:
    """Return the history of some of the seeds: `take` chooses them from an array [seeds, ...]."""
    out = {name: take(x) if x.ndim == 2 else x for name, x in history.items()}
    if history:
        steps = np.cumsum(out["steps"], axis=-1).mean(axis=0)
        out["step"] = steps
    if "evaluation_timestep" in out:
        last = np.searchsorted(out["timestep"], out["evaluation_timestep"], side="right") - 1
        out["evaluation_step"] = steps[last]
    return out


def until(history: History, timestep: int) -> History:
    """Return `history` up to and including a timestep, without arrays that then have no point."""

    def keep(name: str) -> np.ndarray:
        return history[timesteps(name)] <= timestep

    return {name: x[..., keep(name)] for name, x in history.items() if np.any(keep(name))}


def at(history: History, timestep: int) -> History:
    """Return the values [seeds] of all metrics that have a point at a timestep."""
    out = {}
    for name, x in history.items():
        own = history[timesteps(name)]
        i = int(np.searchsorted(own, timestep))
        if x.ndim == 2 and i < len(own) and own[i] == timestep:
            out[name] = x[:, i]
    return out


def timesteps(name: str) -> str:
    """Return the name of the timesteps that belong to the array `name`."""
    return "evaluation_timestep" if name.startswith("evaluation_") else "timestep"


def shown(name: str) -> str:
    """Return what a metric is called in pictures."""
    return SHOWN.get(name, name.replace("_", " "))


def read(path: Path) -> History:
    """Read `metrics.npz`, {} if there is none; raises ValueError if it cannot be read."""
    try:
        with warnings.catch_warnings(), files.opened(path) as file:
            warnings.simplefilter("error")
            with np.load(file) as arrays:
                history = {name: arrays[name] for name in arrays.files}
        _check(history)
    except FileNotFoundError:
        return {}
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        raise ValueError(f"metrics: {path} cannot be read ({files.reason(error)})") from None
    return history


def _check(history: History) -> None:
    """Raise ValueError unless every name has a number for every seed and timestep."""
    for name, x in history.items():
        own = timesteps(name)
        if own not in history:
            raise ValueError(f"{name} is there, but not {own}")
        axes = 1 if name.removeprefix("evaluation_") in ("timestep", "step") else 2
        whole = x.ndim == axes and x.dtype.kind in "iuf" and x.shape[-1:] == history[own].shape
        if name == own:
            whole = whole and x.dtype.kind == "i" and bool(np.all(np.diff(x) > 0))
        if not whole:
            raise ValueError(f"{name}: {x.dtype} of shape {x.shape}, not numbers [seeds, {own}]")


def digest(history: History) -> str:
    """Return a SHA-256 of all names, dtypes, shapes and values."""
    found = hashlib.sha256()
    for name, x in sorted(history.items()):
        found.update(f"{name} {x.dtype.str} {x.shape}\n".encode() + x.tobytes())
    return found.hexdigest()


def means(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Turn sums [...] into means [...]; all counts but `updates` stay as they are.

    `return` and `length` are per episode, `reward` is per environment step, all others are per
    update. NaN where nothing was counted, e.g. before the first episode has ended.
    """

    def per(total: np.ndarray, count: np.ndarray) -> np.ndarray:
        return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)

    out = {}
    for name, total in sums.items():
        if name.endswith("_sum"):
            count = sums[PER.get(name, "updates")]
            out[name.removesuffix("_sum")] = per(np.asarray(total), np.asarray(count))
    counts = [name for name in sums if not name.endswith("_sum")]
    return out | {k: np.asarray(sums[k]) for k in counts if k != "updates"}


def binned(metrics: Mapping[str, ArrayLike], points: int) -> tuple[np.ndarray, History]:
    """Average the metrics of `make_train`, [..., 1 + steps], over `points` spans of equal length.

    Returns the environment steps up to the end of each span [points], averaged over seeds, and
    the `means` of the sums within each span, [..., points]. The warm-up, the first entry of the
    metrics, belongs to the first span. Where `points` does not divide the training steps, spans
    differ by one. Raises ValueError if there are fewer training steps than points.
    """
    steps = np.shape(metrics["steps"])[-1] - 1
    if checks.positive("points", points) > steps:
        raise ValueError(f"points: {points} is above {steps}, the training steps there are")
    starts = np.arange(points) * steps // points + (np.arange(points) > 0)
    sums = {
        name: np.add.reduceat(np.asarray(x, np.float64), starts, axis=-1)
        for name, x in metrics.items()
    }
    taken = np.cumsum(sums["steps"], axis=-1)
    return taken.reshape(-1, points).mean(axis=0), means(sums)
