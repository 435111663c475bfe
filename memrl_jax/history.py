"""What a run has measured so far: named arrays, seeds first, time last.

`step` [P] belongs to the metrics of training and `evaluation_step` [E] to the greedy
evaluations, whose names all begin with `evaluation_`.
"""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from memrl_jax import checks, files

History = dict[str, np.ndarray]


def extend(history: History, step: int, row: Mapping[str, np.ndarray], prefix: str = "") -> History:
    """Return `history` with one more point: `row` has an array [seeds] for every name."""
    new = {"step": np.array([step])} | {k: np.asarray(v)[:, None] for k, v in row.items()}
    out = dict(history)
    for name, value in new.items():
        old = history.get(prefix + name)
        out[prefix + name] = value if old is None else np.concatenate([old, value], axis=-1)
    return out


def until(history: History, step: int) -> History:
    """Return the part of `history` up to and including `step`, less what has no point there."""

    def keep(name: str) -> np.ndarray:
        own = "evaluation_step" if name.startswith("evaluation_") else "step"
        return history[own] <= step

    return {name: x[..., keep(name)] for name, x in history.items() if np.any(keep(name))}


def read(path: Path) -> History:
    """Read `metrics.npz`, or nothing where there is none; raises ValueError for anything else."""
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
    """Raise ValueError unless every name has a number for every seed and step."""
    for name, x in history.items():
        own = "evaluation_step" if name.startswith("evaluation_") else "step"
        if own not in history:
            raise ValueError(f"{name} is there, but not {own}")
        if name == own:
            whole = x.ndim == 1 and x.dtype.kind == "i" and bool(np.all(np.diff(x) > 0))
        else:
            whole = x.ndim == 2 and x.dtype.kind in "iuf" and x.shape[1:] == history[own].shape
        if not whole:
            raise ValueError(f"{name}: {x.dtype} of shape {x.shape}, not numbers [seeds, {own}]")


def digest(history: History) -> str:
    """Return a hash of every bit."""
    found = hashlib.sha256()
    for name, x in sorted(history.items()):
        found.update(f"{name} {x.dtype.str} {x.shape}\n".encode() + x.tobytes())
    return found.hexdigest()


def means(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Turn sums over steps into means: `return` and `length` per episode, others per update.

    NaN where nothing was counted, e.g. before the first episode has ended.
    """

    def per(total: np.ndarray, count: np.ndarray) -> np.ndarray:
        return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)

    out = {}
    for name, total in sums.items():
        if name.endswith("_sum"):
            of = "episodes" if name in ("return_sum", "length_sum") else "updates"
            out[name.removesuffix("_sum")] = per(np.asarray(total), np.asarray(sums[of]))
    return out | {"episodes": np.asarray(sums["episodes"]), "steps": np.asarray(sums["steps"])}


def binned(metrics: Mapping[str, ArrayLike], points: int) -> tuple[np.ndarray, History]:
    """Turn the metrics of training steps, [.., steps], into `points` means of equal spans.

    Returns the environment steps up to the end of each span [points], averaged over seeds and
    not counting the warm-up, and the `means` of the sums within each span, [.., points]. Where
    `points` does not divide the training steps, spans differ by one. Raises ValueError if there
    are fewer training steps than points.
    """
    steps = np.shape(metrics["steps"])[-1]
    if checks.positive("points", points) > steps:
        raise ValueError(f"points: {points} is above {steps}, the training steps there are")
    starts = np.arange(points) * steps // points
    sums = {
        name: np.add.reduceat(np.asarray(x, np.float64), starts, axis=-1)
        for name, x in metrics.items()
    }
    taken = np.cumsum(sums["steps"], axis=-1)
    return taken.reshape(-1, points).mean(axis=0), means(sums)
