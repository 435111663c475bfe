"""Reports: runs on one page that needs no network and no other file."""

from collections.abc import Callable, Sequence

from memrl_jax import __version__
from memrl_jax.report import contents, page
from memrl_jax.run.pool import pools, told

__all__ = ["report"]


def report(
    paths: Sequence[str], separate: bool = False, say: Callable[[str], None] = lambda line: None
) -> str:
    """Return a page of HTML about runs; those of one config are one, unless they are `separate`.

    A greedy episode of each is played for it. `say` gets a line before what takes long. Raises
    ValueError for a folder that is no run or cannot be read, and for a run without metrics.
    """
    found = pools(paths, separate)
    environments = ", ".join(dict.fromkeys(pool.config.environment for pool in found))
    names = ", ".join(pool.name for pool in found) if len(found) <= 3 else f"{len(found)} runs"
    parts = contents.overview, contents.settings, contents.evaluations, contents.curves
    say(f"drawing the curves of {told(found)}")
    sections = [part(found) for part in parts]
    for pool in found:
        say(f"playing an episode of {pool.name}")
        sections.append(contents.episode(pool))
    below = f"{told(found)}, by memrl_jax {__version__}"
    return page.document(f"{environments}: {names}", below, sections)
