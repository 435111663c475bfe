"""How much memory is left, and how much a program needs: a lower bound, or the compiler's plan."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from memrl_jax import tree

if sys.platform != "win32":
    import resource

# Primitives whose outputs are surely held in memory: loops carry them, and products are not fused.
HELD = ("scan", "while", "dot_general", "conv_general_dilated")


class FreeMemory(NamedTuple):
    """Bytes of memory that are left, and a phrase that says where."""

    nbytes: float
    where: str

    def hold(self, needs: str, nbytes: int) -> None:
        """Raise MemoryError if `nbytes` are more than is left; `needs` says what needs them."""
        if nbytes > self.nbytes:
            raise MemoryError(
                f"not enough memory: {needs}, but {format_bytes(self.nbytes)} {self.where}"
            )


def room(devices: int) -> FreeMemory:
    """Return what the first devices of this process have left; on CPU they share what it has."""
    used = jax.local_devices()[:devices]
    if used[0].platform == "cpu":
        return min(_process())
    stats = [device.memory_stats() or {} for device in used]
    left = sum(x.get("bytes_limit", math.inf) - x.get("bytes_in_use", 0) for x in stats)
    return FreeMemory(left, f"are left on {devices} x {used[0].device_kind}")


def _process() -> Iterator[FreeMemory]:
    """Yield what each limit on this process leaves; only Linux reports all of them."""
    yield FreeMemory(math.inf, "are left")
    about = dict(line.split(":") for line in _read("/proc/meminfo").splitlines())
    if about:
        free = sum(int(about[name].split()[0]) for name in ("MemAvailable", "SwapFree"))
        yield FreeMemory(1024 * free, "are available on this machine")
    if sys.platform != "win32":
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            taken = int((_read("/proc/self/statm") or "0").split()[0]) * resource.getpagesize()
            yield FreeMemory(limit - taken, "are left of this process's limit (ulimit -v)")
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers in ("", "memory"):
            yield from _group(controllers, group)


def _group(controllers: str, group: str) -> Iterator[FreeMemory]:
    """Yield what a control group and its parents leave; `controllers` is empty in version 2."""
    top = Path("/sys/fs/cgroup") / controllers
    limit, usage = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes")
        if controllers
        else ("memory.max", "memory.current")
    )
    own = top / group.lstrip("/")
    for place in (own, *own.parents):
        most, taken = _read(place / limit).strip(), _read(place / usage).strip()
        if place.is_relative_to(top) and most.isdigit() and taken.isdigit():
            about = dict(line.split() for line in _read(place / "memory.stat").splitlines())
            cached = int(about.get("total_inactive_file", about.get("inactive_file", 0)))
            left = int(most) - int(taken) + cached
            yield FreeMemory(left, "are left of the control group's limit")


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def min_bytes(jaxpr: Any) -> int:
    """Return a lower bound of the bytes that a traced program holds at one time, once compiled."""
    most = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name in HELD:
            most = max(most, tree.nbytes([x.aval for x in equation.outvars]))
        most = max([most, *map(min_bytes, _inside(equation.params))])
    return most


def _inside(parameters: dict[str, Any]) -> Iterator[Any]:
    for value in parameters.values():
        for x in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(x, "jaxpr", x)
            if hasattr(inner, "eqns"):
                yield inner


def planned_bytes(executable: Any) -> int:
    """Return the bytes per device that the compiler plans for; 0 if it does not report them."""
    plan = executable.memory_analysis()
    if plan is None:
        return 0
    return int(
        plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        - plan.alias_size_in_bytes
        + plan.temp_size_in_bytes
    )


def format_bytes(nbytes: float) -> str:
    """Format a number of bytes, e.g. 1.5 GB."""
    power = min(3, int(math.log(max(nbytes, 1), 1000)))
    return f"{max(nbytes, 0) / 1000**power:,.3g} {('B', 'kB', 'MB', 'GB')[power]}"
