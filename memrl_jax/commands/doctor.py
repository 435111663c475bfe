"""The command `memrl doctor`: what this machine has, and what is optional and missing."""

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import jax

import memrl_jax
from memrl_jax import compiled
from memrl_jax.commands.arguments import parse
from memrl_jax.run import limits

NEEDED = "jax", "jaxlib", "flax", "optax", "gymnax", "numpy", "tyro", "rich", "matplotlib"
# Extras of this package: the module that each brings, and what that is for.
EXTRAS = {
    "gymnasium": ("gymnasium", "environments that step on the host"),
    "tensorboard": ("tensorboardX", "--track tensorboard"),
    "wandb": ("wandb", "--track wandb"),
    "mlflow": ("mlflow", "--track mlflow"),
    "search": ("optuna", "searches of settings"),
    "notebook": ("jupyterlab", "the notebooks"),
}
SUITES = "brax", "craftax", "jumanji", "xminigrid"


@dataclass(frozen=True)
class Doctor:
    """Tell versions, devices, cores, memory, the cache of compiled programs and what is missing."""


def doctor(arguments: list[str]) -> int:
    """Run `memrl doctor`."""
    parse(Doctor, arguments, "memrl doctor")
    for title, rows in {
        "versions": versions(),
        "machine": machine(),
        "optional": optional(),
    }.items():
        print("\n".join([title, *_aligned(dict(rows))]))
    return 0


def versions() -> Iterator[tuple[str, str]]:
    """Yield names and versions of what always has to be there."""
    yield "memrl_jax", f"{memrl_jax.__version__} in {Path(memrl_jax.__file__).parent}"
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for name in NEEDED:
        yield name, metadata.version(name)


def machine() -> Iterator[tuple[str, str]]:
    """Yield devices, cores, memory and the cache of compiled programs."""
    devices = jax.devices()
    yield "devices", f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "cores", f"{allowed} of {os.cpu_count()} may be used"
    room = limits.room(len(devices))
    yield "memory", f"{limits.format_bytes(room.nbytes)} {room.where}"
    yield "cache", _cache()


def optional() -> Iterator[tuple[str, str]]:
    """Yield what is optional: its version, or how to install it and what it is for."""
    for extra, (module, use) in EXTRAS.items():
        missing = f'missing: pip install "memrl_jax[{extra}]", for {use}'
        yield extra, metadata.version(module) if find_spec(module) else missing
    for suite in SUITES:
        missing = f"missing: pip install {suite}, for environments {suite}:..."
        yield suite, metadata.version(suite) if find_spec(suite) else missing


def _cache() -> str:
    """Tell where compiled programs are kept, and how much of what is allowed they take."""
    if not jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
        return "not used"
    place = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if place is None:
        return "none: compiled programs are not kept"
    sizes = [x.stat().st_size for x in Path(place).glob("*") if x.is_file()]
    taken, most = limits.format_bytes(sum(sizes)), limits.format_bytes(compiled.MOST)
    allowed = f" of at most {most}" if Path(place) == compiled.folder() else ""
    return f"{taken}{allowed} in {len(sizes)} files in {place}"


def _aligned(rows: Mapping[str, str]) -> Iterator[str]:
    width = max(map(len, rows))
    return (f"  {name:<{width}}  {said}" for name, said in rows.items())
