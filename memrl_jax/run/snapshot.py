"""What a run is resumed from: its checkpoints, and the metrics that belong to them.

A checkpoint of several processes is a file `TIMESTEP.PROCESS.part` of each, with the rows that it
held, and then `TIMESTEP.ckpt`, which has no leaves of its own but the checksums of these. Rows are
put together when read, so any number of processes can go on.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax.run import checkpoint, folder, history, processes
from memrl_jax.run.history import History

KEPT = 2  # checkpoints of a run


class About(NamedTuple):
    """Metadata of a checkpoint."""

    timestep: int
    settings: dict[str, Any]  # of the run that it belongs to
    point: int | None  # timestep of the last point of the metrics before it
    metrics: str  # hash of the metrics up to there
    parts: list[Any]  # [rows, checksum] of every process that wrote one; [] if the file is whole


def save(place: Path, timestep: int, tree: Any, settings: Mapping[str, Any], past: History) -> None:
    """Write a checkpoint of states [R, ...], then remove all but the last few.

    Of several processes, each gives the rows that it holds, in their order.
    """
    several = jax.process_count() > 1
    parts = _save_part(_path(place, timestep), tree) if several else []
    if processes.leads():
        store(place, timestep, () if several else tree, settings, past, parts)
        remove_old(place)


def store(
    place: Path,
    timestep: int,
    tree: Any,
    settings: Mapping[str, Any],
    past: History,
    parts: Sequence[Any] = (),
) -> None:
    """Write a checkpoint of states [R, ...] from one process, with all that is not in parts."""
    said = About(timestep, dict(settings), _last(past), history.digest(past), [*parts])
    checkpoint.save(_path(place, timestep), tree, said._asdict())


def _path(place: Path, timestep: int) -> Path:
    return place / f"checkpoints/{timestep:012d}.ckpt"


def _save_part(path: Path, tree: Any) -> list[Any]:
    """Write the rows of this process; return the rows and checksums of all, once they are saved."""
    own = _part(path, jax.process_index())
    checkpoint.save(own, tree)
    checksum = np.frombuffer(checkpoint.checksum(own), np.uint8)
    every = processes.gathered(checksum), processes.gathered(_rows(tree))
    return [[int(n), x.tobytes().hex()] for x, n in zip(*every, strict=True)]


def _part(path: Path, process: int) -> Path:
    return path.with_suffix(f".{process}.part")


def _rows(tree: Any) -> int:
    return len(jax.tree.leaves(tree)[0])


def remove_old(place: Path) -> None:
    """Remove all checkpoints but the last few, and parts before these."""
    saved = checkpoints(place)
    for path in saved[:-KEPT]:
        path.unlink()
    for part in (place / "checkpoints").glob("*.part"):
        if saved and part.name.partition(".")[0] < saved[-KEPT:][0].stem:
            part.unlink()


def load(place: Path, like: Any) -> tuple[Any, About]:
    """Return the last checkpoint and its metadata.

    Raises ValueError if there is none or it cannot be read; the message says if the one before can.
    """
    saved = checkpoints(place)
    if not saved:
        raise ValueError(f"run: {place} has no checkpoint")
    try:
        return _load(place, saved[-1], like)
    except ValueError as error:
        raise ValueError(f"{error}{_advice(place, saved, like)}") from None


def _load(place: Path, path: Path, like: Any) -> tuple[Any, About]:
    said = _about(path)
    _, config, options = folder.read(str(place))
    for name, now in folder.settings(config, options, folder.varied(place)).items():
        if said.settings.get(name, now) != now:
            then = said.settings[name]
            raise ValueError(f"{path}: {name} is {then!r} in the file, {now!r} in config.json")
    return _whole(path, like, said), said


def _whole(path: Path, like: Any, said: About) -> Any:
    """Read the states [R, ...] of a checkpoint."""
    if not said.parts:
        return checkpoint.load(path, like)
    if sum(rows for rows, _ in said.parts) != _rows(like):
        rows = " + ".join(str(rows) for rows, _ in said.parts)
        raise ValueError(f"{path}: has {rows} rows, {_rows(like)} expected")
    parts = []
    for process, (rows, checksum) in enumerate(said.parts):
        part = _part(path, process)
        if checkpoint.checksum(part).hex() != checksum:
            raise ValueError(f"{part}: is not of the checkpoint {path.name}")
        own = jax.eval_shape(lambda x, n=rows: jax.tree.map(lambda x: x[:n], x), like)
        parts.append(checkpoint.load(part, own))
    return jax.tree.map(_joined, *parts)


def _joined(*xs: Any) -> Any:
    return np.concatenate(xs) if isinstance(xs[0], np.ndarray) else jnp.concatenate(xs)


def _about(path: Path) -> About:
    given = {"parts": []} | checkpoint.about(path)  # files of one process did not always say so
    match given:
        case {
            "timestep": int(),
            "settings": {},
            "point": int() | None,
            "metrics": str(),
            "parts": [*parts],
        } if all(map(_is_part, parts)):
            said = About(*(given[field] for field in About._fields))
        case _:
            raise ValueError(f"{path}: does not say which run it is of")
    if said.timestep != int(path.stem):
        raise ValueError(f"{path}: is of timestep {said.timestep}")
    return said


def _is_part(given: Any) -> bool:
    match given:
        case [int(), str()]:
            return True
    return False


def _advice(place: Path, saved: list[Path], like: Any) -> str:
    """Say how to resume from the checkpoint before the last, if that can be read."""
    for path in saved[-2:-1]:
        with suppress(ValueError):
            said = _load(place, path, like)[1]
            before = f"the one before, of timestep {said.timestep}"
            return f"; remove it to go on from {before}, which is whole"
    return ""


def checkpoints(place: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    found = (place / "checkpoints").glob("*.ckpt")
    return sorted(path for path in found if re.fullmatch(r"\d+", path.stem))


def measured(place: Path, said: About) -> History:
    """Return the metrics up to a checkpoint; raises ValueError if it was saved with others."""
    path = place / "metrics.npz"
    past = history.until(history.read(path), said.timestep)
    if _last(past) != said.point:
        raise ValueError(
            f"metrics: {path} has its last point before timestep {said.timestep} at {_last(past)}, "
            f"and the checkpoint was saved after one at {said.point}"
        )
    if history.digest(past) != said.metrics:
        raise ValueError(f"metrics: {path} is not what was measured up to timestep {said.timestep}")
    return past


def _last(past: History) -> int | None:
    return int(past["timestep"][-1]) if "timestep" in past else None
