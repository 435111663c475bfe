"""Functions compiled ahead of time, in threads of their own so that Ctrl-C gets through.

The main thread only waits: Python drops a KeyboardInterrupt that arrives while it collects garbage,
which it does all the time while jax traces.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import cached_property
from typing import Any

import jax

from memrl_jax.run import limits
from memrl_jax.run.limits import FreeMemory


class CompiledFunction:
    """A jitted function for arguments of known shapes, which is compiled once, when first needed.

    Calls wait for the result. `needs` begins error messages, as in "a step needs". Raises
    MemoryError if the function needs more than `room`: by a lower bound before compiling, by the
    compiler's plan after it.
    """

    def __init__(
        self, jitted: Any, shapes: tuple[Any, ...], needs: str, room: FreeMemory, devices: int
    ):
        self.jitted, self.shapes, self.needs = jitted, shapes, needs
        self.room, self.devices = room, devices

    @cached_property
    def traced(self) -> Any:
        """The traced function; raises MemoryError if its lower bound exceeds `room`."""
        traced = awaited(lambda: self.jitted.trace(*self.shapes))
        least = self.devices * limits.min_bytes(traced.jaxpr.jaxpr)
        self.room.hold(f"{self.needs} at least {limits.format_bytes(least)}", least)
        return traced

    @cached_property
    def compiling(self) -> Future[Any]:
        """The compiled function to come; several can be under way at once."""
        traced = self.traced
        return begun(lambda: traced.lower().compile())

    @cached_property
    def executable(self) -> Any:
        """The compiled function; raises MemoryError if its planned memory exceeds `room`."""
        executable = self.compiling.result()
        nbytes = self.devices * limits.planned_bytes(executable)
        self.room.hold(f"{self.needs} {limits.format_bytes(nbytes)}", nbytes)
        return executable

    @property
    def nbytes(self) -> int:
        """Bytes that all devices together hold while it runs, as the compiler plans."""
        return self.devices * limits.planned_bytes(self.executable)

    def __call__(self, *xs: Any) -> Any:
        """Call the compiled function and wait for what it returns."""
        executable = self.executable
        return awaited(lambda: jax.block_until_ready(executable(*xs)))


def awaited(f: Callable[[], Any]) -> Any:
    """Return `f()`, called in a thread of its own so that waiting for it can be interrupted.

    An interrupt does not stop `f`, which goes on in its daemon thread.
    """
    return begun(f).result()


def begun(f: Callable[[], Any]) -> Future[Any]:
    """Call `f` in a daemon thread; the future has what it returns or raises."""
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(f())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future
