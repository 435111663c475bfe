"""The command `memrl train`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import tyro
from flax import struct
from rich.console import Console

from memrl_jax import checks, imports
from memrl_jax.commands.arguments import fields_of, modules, parse
from memrl_jax.commands.shown import progress_bar, table
from memrl_jax.config import Config
from memrl_jax.preset_configs import presets
from memrl_jax.run import experiment, folder, loop, processes, saved
from memrl_jax.run.program import Run
from memrl_jax.run.taken import Taken

TRAIN_HELP = """usage: memrl train PRESET [OPTIONS]
       memrl train PRESET --from RUN --take PART,... [OPTIONS]
       memrl train --resume RUN [OPTIONS]

presets: {presets}

`memrl train PRESET --help` lists every setting with its default,
`memrl train --resume RUN --help` what may change on the way.
`--import MODULE` brings in presets and other parts of your own.
Training goes on when nothing reads its output any more, as after `| head -1`.
"""


class Trained(Config):
    """What is trained, and on what."""

    imports: Annotated[
        tuple[str, ...], tyro.conf.arg(name="import", metavar="MODULE"), tyro.conf.UseAppendAction
    ] = struct.field(pytree_node=False, default=())


@dataclass(frozen=True)
class Around(Run):
    """Everything around a training run that can be given."""

    taken: Annotated[Mapping[str, Any] | None, tyro.conf.Suppress, tyro.conf.Fixed] = None


@dataclass(frozen=True)
class Train:
    """Train a preset, with any of its settings changed."""

    config: Trained
    run: Around
    source: Annotated[str | None, tyro.conf.arg(name="from", metavar="RUN")] = None
    """Folder of a run to take parameters from, as it was last saved. Each new seed takes those of
    its seed of the same number, cyclically. config.json tells what was taken, and a copy is kept
    in the new run's folder, which needs the other no more."""
    take: tuple[str, ...] = ()
    """Parts to take: encoder, memory, head, or what else its agent has; several with commas. All
    else begins anew. --freeze keeps parts as they are."""


@dataclass(frozen=True)
class Resume:
    """Go on with a run from its last checkpoint, as if it had never stopped; only environments on
    the host begin new episodes."""

    resume: str
    """Folder of the run."""
    total_steps: int | None = None
    """Timesteps of the whole run, over all copies: more than it was begun with, say."""
    log_every: int | None = None
    """Timesteps between two points of the metrics, from here on."""
    evaluate_every: int | None = None
    """Timesteps between two greedy evaluations, from here on."""
    evaluate_episodes: int | None = None
    """Episodes in an evaluation, from here on."""
    checkpoint_every: int | None = None
    """Timesteps between two checkpoints, from here on."""
    target_return: float | None = None
    """Stop once an evaluation reaches this; inf is out of reach."""
    max_gigabytes: float | None = None
    """Refuse to go on when replay and state of all seeds would hold more than this."""
    track: tuple[str, ...] | None = None
    """Trackers to tell of the run, from its beginning on: tensorboard, wandb, mlflow, or one of
    your own; without a name, none."""


def train(arguments: list[str]) -> int:
    """Run `memrl train`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(TRAIN_HELP.format(presets=", ".join(presets)), end="")
        return 0
    if any(word.partition("=")[0] == "--resume" for word in arguments):
        for word in arguments:
            name = word.partition("=")[0].replace("-", "_")
            if name.startswith("__") and name not in ("__resume", "__help"):
                folder.check_changeable(name.removeprefix("__"))
        asked = dict(vars(parse(Resume, arguments, "memrl train")))
        path = asked.pop("resume")
        changes = {name: x for name, x in asked.items() if x is not None}
        return follow(lambda say, report: experiment.resume(path, say, report, changes))
    for module in modules(arguments):  # they may define the preset
        imports.load("imports", module)
    name = checks.known("preset", arguments[0], presets)
    default = Train(Trained(**fields_of(presets[name])), Around())
    given = parse(Train, arguments[1:], f"memrl train {name}", default)
    config = Config(**fields_of(given.config))
    environment = config.environment.replace(":", "-").replace("/", "-")
    run = replace(Run(**vars(given.run)), out=given.run.out or f"runs/{name}-{environment}")
    first = _first(given)
    return follow(lambda say, report: experiment.start(config, run, say, report, first))


def _first(given: Train) -> Taken | None:
    """Return the parameters to begin with; raises ValueError for one of two options alone."""
    if given.source is None and not given.take:
        return None
    if given.source is None:
        raise ValueError(f"from: {', '.join(given.take)} of which run? name its folder")
    return saved.take(given.source, given.take, given.run.seeds)


def follow(train: Callable[[loop.Say, loop.Report], loop.Result]) -> int:
    """Train with a progress bar, print how it ended, and return the exit code.

    Of several processes, only the first one says anything.
    """
    console = Console(quiet=not processes.leads())
    with progress_bar(console) as report:
        result = train(partial(console.print, markup=False), report)
    if "evaluation_return" in result.history:
        last = {k: result.history[f"evaluation_{k}"][:, -1] for k in ("return", "length")}
        console.print(table({result.folder.name: last}, "last evaluation"))
    if result.finished:
        said, code = f"finished: {result.folder}", 0
    else:
        said = f"interrupted and saved; go on with: memrl train --resume {result.folder}"
        code = 130
    if processes.leads():
        print(said)
    return code
