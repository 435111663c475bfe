"""The files of a run: every one is written whole, synced and renamed, or not at all."""

import json
import math
import os
import platform
import re
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memrl_jax import checkpoint
from memrl_jax.config import Config, from_json, to_json
from memrl_jax.history import History, timesteps

KEPT = 2  # checkpoints


def create(path: str, config: Config, options: Mapping[str, Any]) -> Path:
    """Make a new run folder; raises ValueError if there is something at `path` already."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ValueError(f"out: {path} exists; continue it with --resume {path}") from None
    except OSError as error:
        raise ValueError(f"out: {path} cannot be made ({error.strerror})") from None
    (folder / "checkpoints").mkdir()
    text = json.dumps({"config": json.loads(to_json(config)), "run": dict(options)}, indent=2)
    write(folder / "config.json", text)
    write(folder / "versions.json", json.dumps(versions(), indent=2))
    return folder


def read(path: str) -> tuple[Path, Config, dict[str, Any]]:
    """Return the folder, config and options of a run; raises ValueError if it is not one."""
    folder = Path(path)
    try:
        given = json.loads((folder / "config.json").read_text())
        config, options = given["config"], dict(given["run"])
    except FileNotFoundError:
        raise ValueError(f"run: {path} is not a run folder (no config.json in it)") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"run: {path}/config.json cannot be read ({error})") from None
    return folder, from_json(json.dumps(config)), options


def write(path: Path, text: str | bytes) -> None:
    """Replace a file by `text`, all or nothing."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(text.encode() if isinstance(text, str) else text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Replace an .npz by named arrays, all or nothing."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        np.savez(file, **dict(arrays))  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def log(folder: Path, timestep: int, past: History) -> None:
    """Rewrite `metrics.npz` and add a line to `progress.jsonl`: means over seeds, newest last."""
    write_arrays(folder / "metrics.npz", past)
    line: dict[str, Any] = {"timestep": timestep, "step": float(past["step"][-1])}
    line["time"] = round(time.time(), 3)
    for name, value in past.items():
        if value.ndim == 2 and past[timesteps(name)][-1] == timestep:
            mean = float(value[:, -1].mean())
            line |= {name: mean} if math.isfinite(mean) else {}  # e.g. before an episode has ended
    with open(folder / "progress.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


def truncate_log(folder: Path, timestep: int) -> None:
    """Drop what a run that was killed had logged after its last checkpoint."""
    path = folder / "progress.jsonl"
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        try:
            kept = [x for x in lines if x.endswith("\n") and json.loads(x)["timestep"] <= timestep]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"run: {path} cannot be read ({error})") from None
        write(path, "".join(kept))


def save(folder: Path, step: int, tree: Any) -> None:
    """Write a checkpoint, then remove all but the last few."""
    place = folder / "checkpoints"
    checkpoint.save(place / f"{step:012d}.ckpt", tree, {"step": step})
    for old in checkpoints(folder)[:-KEPT]:
        old.unlink()


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    found = (folder / "checkpoints").glob("*.ckpt")
    return sorted(path for path in found if re.fullmatch(r"\d+", path.stem))


def versions() -> dict[str, str]:
    """Return what a run's numbers depend on besides its config."""
    names = ("memrl_jax", "jax", "jaxlib", "flax", "optax", "gymnax", "numpy")
    device = jax.devices()[0]
    return {
        **{name: metadata.version(name) for name in names},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "devices": f"{jax.device_count()} x {device.device_kind}",
    }
