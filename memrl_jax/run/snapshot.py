"""What a run is resumed from: its checkpoints, and the metrics that belong to them."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from memrl_jax.run import checkpoint, folder, history
from memrl_jax.run.history import History

KEPT = 2  # checkpoints of a run


class About(NamedTuple):
    """Metadata of a checkpoint."""

    timestep: int
    settings: dict[str, Any]  # of the run that it belongs to
    point: int | None  # timestep of the last point of the metrics before it
    metrics: str  # hash of the metrics up to there


def save(place: Path, timestep: int, tree: Any, settings: Mapping[str, Any], past: History) -> None:
    """Write a checkpoint, then remove all but the last few."""
    said = About(timestep, dict(settings), _last(past), history.digest(past))
    checkpoint.save(place / f"checkpoints/{timestep:012d}.ckpt", tree, said._asdict())
    remove_old(place)


def remove_old(place: Path) -> None:
    """Remove all checkpoints but the last few."""
    for old in checkpoints(place)[:-KEPT]:
        old.unlink()


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
    return checkpoint.load(path, like), said


def _about(path: Path) -> About:
    match checkpoint.about(path):
        case {"timestep": int(), "settings": {}, "point": int() | None, "metrics": str()} as given:
            said = About(*(given[field] for field in About._fields))
        case _:
            raise ValueError(f"{path}: does not say which run it is of")
    if said.timestep != int(path.stem):
        raise ValueError(f"{path}: is of timestep {said.timestep}")
    return said


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
