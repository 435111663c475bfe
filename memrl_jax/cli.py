"""The command line: `memrl train | evaluate | watch | plot | list`.

jax is imported only once a command needs it, so that help comes at once.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Sequence

HELP = """usage: memrl COMMAND ...

Train agents that remember.

commands:
  train PRESET [OPTIONS]       train a preset, with any of its settings changed
  train --resume RUN           go on with a run that was interrupted
  evaluate RUN [RUN ...]       play greedy episodes with trained agents
  watch RUN [OPTIONS]          film greedy episodes and what the memory attends to
  plot RUN [RUN ...]           draw the learning curves of runs in one picture
  list                         name environments, memories, replays, agents and presets

`memrl COMMAND --help` says more, `memrl train PRESET --help` lists every setting.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for bad input, 130 after Ctrl-C.

    Without `arguments` this is the program itself: then a failure ends it here.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    try:
        return _command(given[0])(given[1:])
    except _failures() as error:
        said, code = str(error).partition("\n")[0] or type(error).__name__, 2
    except KeyboardInterrupt:
        said, code = "interrupted", 130
    print(f"memrl: {said}", file=sys.stderr)
    if arguments is None:
        _leave(code)
    return code


def _failures() -> tuple[type[Exception], ...]:
    """Return what is answered by one line; jax has raised nothing if it is not imported."""
    kinds = (ValueError, FloatingPointError, OSError, MemoryError, OverflowError)
    jax = sys.modules.get("jax")
    return (*kinds, jax.errors.JaxRuntimeError) if jax else kinds


def _leave(code: int) -> None:
    """End at once: an interpreter that shuts down under a compiler at work would crash."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _command(name: str) -> Callable[[list[str]], int]:
    names = ("train", "evaluate", "watch", "plot", "list")
    if name not in names:
        import difflib

        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"command: {name!r} is unknown; {hint}(one of: {', '.join(names)})")
    use_every_core()
    from memrl_jax import commands

    return getattr(commands, name if name != "list" else "list_names")


def use_every_core() -> None:
    """Give jax one CPU device per core, unless the user has decided otherwise."""
    import jax

    undecided = jax.config.jax_num_cpu_devices == -1  # type: ignore[attr-defined]
    if undecided and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        # Only Linux tells which cores are ours.
        allowed = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
        jax.config.update("jax_num_cpu_devices", len(allowed(0)))


if __name__ == "__main__":
    sys.exit(main())
