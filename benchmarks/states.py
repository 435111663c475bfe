"""Every state that the folder of a run has between two operations on files."""

import itertools
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.trials import SMALL, Figures, Tree, content, same, train


def states(place: Path, whole: Path, every: int = 1) -> Figures:
    """Resume from every state that the folder was in during a run, and during a resume of it."""
    begun = recorded(place / "begun", lambda out: train(out, SMALL))
    measured = [x for x in begun if "run/metrics.npz" in x]
    restore(measured[len(measured) // 2], place / "resumed")
    resumed = recorded(place / "resumed", lambda out: train(out, SMALL))
    cut = [x for seen in (begun, resumed) for pair in itertools.pairwise(seen) for x in torn(*pair)]
    seen = [*begun, *resumed, *cut][::every]
    ends: Counter[str] = Counter()
    for state in seen:
        again = place / "again"
        restore(state, again)
        ends[_gone_on(again, whole)] += 1
        shutil.rmtree(again)
    return Figures(f"{len(seen)} states between operations on files", ("same bits",), ends)


def _gone_on(root: Path, whole: Path) -> str:
    try:
        finished = train(root / "run", SMALL)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if [x.name for x in root.iterdir()] != ["run"]:
        return "something left beside the run"
    return "same bits" if finished and same(root / "run", whole) else "other bits"


def recorded(root: Path, train: Callable[[Path], Any]) -> list[Tree]:
    """Return what `root` holds before and after every operation on files of a run in it."""
    root.mkdir(exist_ok=True)
    seen = [content(root)]

    def note() -> None:
        if (now := content(root)) != seen[-1]:
            seen.append(now)

    def noting(operation: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any, **options: Any) -> Any:
            note()
            try:
                return operation(*given, **options)
            finally:
                note()

        return noted

    names = ("mkdir", "rename", "replace", "unlink", "fsync", "ftruncate", "pwrite")
    before = {name: getattr(os, name) for name in names}
    for name in names:
        setattr(os, name, noting(before[name]))
    try:
        train(root / "run")
    finally:
        for name in names:
            setattr(os, name, before[name])
    return seen


def torn(before: Tree, after: Tree) -> list[Tree]:
    """Return versions of `after` in which a file that has grown since `before` is cut short."""
    out = []
    for name, data in after.items():
        old = before.get(name) or b""
        renamed = data in before.values()
        if data is not None and not renamed and len(data) > len(old) and data.startswith(old):
            out += [after | {name: data[:end]} for end in {(len(old) + len(data)) // 2, len(old)}]
    return out


def restore(state: Tree, root: Path) -> None:
    root.mkdir()
    for name, data in state.items():
        if data is None:
            (root / name).mkdir(parents=True)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
