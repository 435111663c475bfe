"""The command `memrl evaluate`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from memrl_jax import statistics
from memrl_jax.commands.arguments import parse
from memrl_jax.commands.shown import cell
from memrl_jax.rollout import Evaluation
from memrl_jax.run import saved
from memrl_jax.run.pool import Pool, pools, short, told


@dataclass(frozen=True)
class Evaluate:
    """Play greedy episodes with every seed of runs; runs of one config that have other seeds are
    one, and all are left as they are."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN ...")]
    """Folders of the runs."""
    episodes: int = 100
    """Episodes per seed, each in an environment of its own."""
    seed: int = 0
    """Number that the keys of the episodes come from."""
    environment: str | None = None
    """Another environment with the same spaces to play in, without training there; by default the
    run's own."""
    environment_args: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of that environment, as name=value, in place of the run's."""


def evaluate(arguments: list[str]) -> int:
    """Run `memrl evaluate`."""
    given = parse(Evaluate, arguments, "memrl evaluate")
    found = pools(given.runs)
    console = Console()
    where = given.environment, given.environment_args
    for pool in found:
        played = {x: saved.evaluate(x, given.episodes, given.seed, *where) for x in pool.runs}
        console.print(_evaluated(pool, played, given.episodes, _told(pool, *where)))
        unfinished = sum(int(np.sum(~x.done)) for x in played.values())
        if unfinished:
            console.print(
                f"{unfinished} episodes did not end within the horizon; they count as they are"
            )
    return 0


def _told(pool: Pool, environment: str | None, args: Mapping[str, Any]) -> str:
    """Tell of an environment in which a pool was not trained; '' if none is given."""
    if environment is None and not args:
        return ""
    words = [f"{name}={x}" for name, x in args.items()]
    return " ".join([" in", environment or pool.config.environment, *words])


def _evaluated(
    pool: Pool, played: Mapping[str, Evaluation], episodes: int, where: str = ""
) -> Table:
    """Tabulate returns and lengths of all seeds of a pool, and their IQM."""
    names = dict(zip(played, short([*played]), strict=True))
    title = f"{pool.name}: greedy episodes{where}"
    rows = Table("seed", "return", "length", title=escape(title))
    for path, x in played.items():
        for seed, values in enumerate(zip(x.total, x.length, strict=True)):
            label = f"{names[path]}, {seed}" if len(played) > 1 else str(seed)
            rows.add_row(escape(label), *(cell(value, np.mean) for value in values))
    both = zip(*((x.total, x.length) for x in played.values()), strict=True)
    means = [np.concatenate(x).mean(axis=1) for x in both]
    rows.add_row(f"IQM of {told([pool])}", *map(cell, means), style="bold")
    few = ", too narrow for so few" if episodes < 10 else ""
    over = f"mean and 95 % bootstrap interval over {episodes} episodes{few}"
    rows.caption = f"a seed: {over if episodes > 1 else '1 episode, no interval'}\n"
    rows.caption += f"IQM: {statistics.caption([pool.seeds])}"
    return rows
