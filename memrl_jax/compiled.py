"""Compiled programs kept on disk, so that the same run starts sooner the next time."""

import contextlib
import os
import stat
import sys
from pathlib import Path

MOST = 1_000_000_000  # bytes that are kept; a run's programs take about 1 MB
WORTH = 0.1  # seconds from which a compilation is kept


def keep() -> None:
    """Let jax keep compiled programs in the user's cache folder, and find them there again.

    That is `memrl_jax` in XDG_CACHE_HOME or ~/.cache, unless the user has given jax a folder of
    their own. If it cannot be used, that is said on stderr, and everything is compiled anew.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    try:
        place = folder()
        # What is in it will be run: nobody else may write to it.
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(f"{place} is not writable")
        shrink(place, MOST)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        print(f"memrl: compiled programs are not kept ({error})", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH)


def forgo() -> None:
    """Let jax compile everything anew, whatever it may find."""
    import jax

    jax.config.update("jax_enable_compilation_cache", False)


def folder() -> Path:
    """Return where `keep` puts compiled programs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memrl_jax"


def shrink(place: Path, most: int) -> None:
    """Remove the files of a folder that were not used for longest, until it has `most` bytes.

    Others may be at work in it: what is gone already is passed over.
    """
    found = []
    for path in place.iterdir():
        with contextlib.suppress(FileNotFoundError):
            about = path.stat()
            if stat.S_ISREG(about.st_mode):
                found.append((max(about.st_atime, about.st_mtime), about.st_size, path))
    excess = sum(size for _, size, _ in found) - most
    for _, size, path in sorted(found):
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        excess -= size
