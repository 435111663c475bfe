"""The command line: `memrl train`, `memrl evaluate` and the other COMMANDS.

jax is imported only once a command needs it, so that help comes at once.
"""

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from memrl_jax import compiled, hosts
from memrl_jax.hosts import Place

COMMANDS = {  # name -> module of memrl_jax.commands, function
    "train": ("training", "train"),
    "sweep": ("sweeping", "sweep"),
    "evaluate": ("evaluating", "evaluate"),
    "watch": ("drawing", "watch"),
    "plot": ("drawing", "plot"),
    "report": ("drawing", "report"),
    "list": ("listing", "list_names"),
    "doctor": ("doctor", "doctor"),
    "completion": ("completing", "completion"),
}

# Python's collector goes through all that jax has made while it traces, which takes a tenth of a
# start. So many new objects at a time are its `gc.set_threshold` here, instead of some hundred.
COLLECT = 100_000, 50, 100

HELP = """usage: memrl COMMAND ...

Train agents that remember.

commands:
  train PRESET [OPTIONS]       train a preset, with any of its settings changed
  train --resume RUN           go on with a run that was interrupted
  sweep PRESET --vary ...      train at every combination of values of some settings
  evaluate RUN [RUN ...]       play greedy episodes with trained agents
  watch RUN [OPTIONS]          film greedy episodes and what the memory attends to
  plot RUN [RUN ...]           draw the learning curves of runs in one picture
  report RUN [RUN ...]         tell of runs on one page of HTML: settings, curves, episodes
  list                         name environments, memories, replays, agents, presets and trackers
  doctor                       tell versions, devices, memory, cache, and what is missing
  completion SHELL             print what completes these words in bash, zsh or fish

with train and sweep, in each of several processes that train together:
  --coordinator HOST:PORT      where process 0 listens, and the others find it
  --processes N --process I    how many there are, and which one this is, from 0
                               (SLURM tells all of it; --processes 1 trains alone)

with any command:
  --no-cache                   compile everything anew; by default compiled programs are kept in
                               ~/.cache/memrl_jax and the same run starts sooner the next time
  --gpu-memory SHARE           share of a GPU's memory to take at the start, by default jax's, 0.75;
                               0 takes it as it is needed

`memrl COMMAND --help` says more, `memrl train PRESET --help` lists every setting.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for a reported error, 130 after Ctrl-C.

    A command goes on if nothing reads its output any more (`| head -1`), and says so once on
    stderr. Characters that the terminal cannot show are escaped. Without `arguments`, those of the
    process are taken, and a failure ends it here by `leave`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        gc.set_threshold(*COLLECT)
    with contextlib.redirect_stdout(Output(sys.stdout)):
        try:
            code = _run(given, in_process=arguments is not None)
        finally:
            sys.stdout.flush()
    if code and arguments is None:
        leave(code)
    return code


def _run(given: list[str], in_process: bool) -> int:
    words = [word for word in given if word != "--no-cache"]
    cached = words == given
    here = None
    try:
        words = set_gpu_memory(words)
        if not words or words[0] in ("-h", "--help"):
            print(HELP, end="")
            return 0
        if words[0] in hosts.RESUMED:
            here, words = hosts.place(words, os.environ)
        if here and not in_process:
            hosts.supervised(here, words[0])
        code = _command(words[0], cached, here)(words[1:])
        if here:
            hosts.leave()
        return code
    except _failures() as error:
        said, code = " ".join(str(error).split()) or type(error).__name__, 2
        said = hosts.lost(here, words[0]) if here and hosts.is_lost(error) else said
    except KeyboardInterrupt:
        said, code = "interrupted", 130
    print(f"memrl: {said}", file=sys.stderr)
    return code


def _failures() -> tuple[type[Exception], ...]:
    """Return the exceptions that are reported in one line; jax's only if jax is imported."""
    kinds = (ValueError, FloatingPointError, OSError, MemoryError, OverflowError)
    jax = sys.modules.get("jax")
    return (*kinds, jax.errors.JaxRuntimeError) if jax else kinds


def leave(code: int) -> None:
    """End the process at once: a normal shutdown would crash while a compiler is at work."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _command(name: str, cached: bool, here: Place | None) -> Callable[[list[str]], int]:
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"command: {name!r} is unknown; {hint}(one of: {', '.join(COMMANDS)})")
    use_every_core()
    if cached:
        compiled.keep()
    else:
        compiled.forgo()
    if here:
        hosts.join(here)
    start_platforms()
    module, function = COMMANDS[name]
    return getattr(importlib.import_module(f"memrl_jax.commands.{module}"), function)


def set_gpu_memory(words: list[str]) -> list[str]:
    """Tell jax, before it starts, what `--gpu-memory` says; return the other words."""
    values, rest = hosts.options(words, ("--gpu-memory",))
    for name, value in values.items():
        try:
            share = float(value)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise ValueError(f"{name}: {value!r} is not a share from 0 to 1")
        if share:
            os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = value
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "true" if share else "false"
    return rest


def use_every_core() -> None:
    """Give jax one CPU device per core, unless the user has decided otherwise or it has started."""
    import jax

    undecided = jax.config.jax_num_cpu_devices == -1  # type: ignore[attr-defined]
    if undecided and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        # Only Linux tells which cores this process may use.
        allowed = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
        with contextlib.suppress(RuntimeError):  # it has started: keep its devices
            jax.config.update("jax_num_cpu_devices", len(allowed(0)))


def start_platforms() -> None:
    """Start the platforms that the user chose, if any; raises ValueError if one cannot be used."""
    import jax

    chosen = jax.config.jax_platforms  # type: ignore[attr-defined]
    if chosen:
        try:
            jax.devices()
        except RuntimeError as error:
            raise ValueError(f"JAX_PLATFORMS: {chosen!r} cannot be used ({error})") from None


class Output:
    """Standard output that survives the end of its reader, and escapes what its encoding lacks."""

    def __init__(self, stream: Any) -> None:
        """Write to `stream`."""
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        """Pass on everything else to the stream."""
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write `text`, with escapes for what the encoding lacks."""
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        shown = text.encode(encoding, "backslashreplace").decode(encoding)
        self._try(lambda: self.stream.write(shown))
        return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        self._try(self.stream.flush)

    def _try(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except BrokenPipeError:
            # Discard what is in the buffer, and all that follows.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            with contextlib.suppress(OSError):
                print("memrl: nothing reads the output any more; going on", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
