"""What the numbers of a run depend on besides its config: versions and devices."""

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from memrl_jax import __version__
from memrl_jax.run import files


def versions() -> dict[str, str]:
    """Return what a run's numbers depend on besides its config: software and devices."""
    names = ("jax", "jaxlib", "flax", "optax", "gymnax", "gymnasium", "numpy")
    device = jax.devices()[0]
    return {
        "memrl_jax": __version__,
        **{name: metadata.version(name) for name in names},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "devices": f"{jax.device_count()} x {device.device_kind}",
    }


def check(folder: Path) -> None:
    """Raise ValueError for a run whose major or minor version differs: its files may differ too."""
    if not (folder / "versions.json").exists():
        return  # whoever needs it raises
    then = str(written_with(folder).get("memrl_jax"))
    if then.rpartition(".")[0] != __version__.rpartition(".")[0]:
        said = f"was written by memrl_jax {then}, whose runs {__version__} does not read"
        raise ValueError(f"run: {folder} {said}")


def written_with(folder: Path) -> dict[str, Any]:
    """Return the versions that a run began with; raises ValueError if they cannot be read."""
    path = folder / "versions.json"
    try:
        return dict(files.parse(files.read(path)))
    except (OSError, ValueError, TypeError) as error:
        raise files.unreadable(path, error) from None


def changed(folder: Path) -> list[str]:
    """Return a text for each version that differs from when a run began; raises ValueError."""
    then = written_with(folder)
    return [f"{k} {then.get(k)!s} -> {x}" for k, x in versions().items() if then.get(k) != x]
