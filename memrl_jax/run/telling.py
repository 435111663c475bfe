"""Telling trackers of a run: each works in a thread of its own, and is waited for only at the end.

A tracker that raises or hangs is named in one line, and the run goes on. `trackers/NAME.json` in
the run's folder says which points a tracker has had: on resume it is told what it missed, and
nothing twice.
"""

import json
import math
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from memrl_jax.config import Config, flat, plain
from memrl_jax.run import files, history
from memrl_jax.run.ahead import begun
from memrl_jax.run.history import History
from memrl_jax.run.program import Run
from memrl_jax.run.trackers import TRACKERS, Curves, Told

PATIENCE = 60.0  # seconds after which a tracker hangs; as long it is waited for at the end

Say = Callable[[str], None]
Tell = Callable[[History], None]


class Point(NamedTuple):
    """What a tracker is told at once."""

    timestep: int
    step: int  # environment steps, rounded: a mean over seeds
    values: History  # metric -> [S]


class Had(NamedTuple):
    """What is kept of a tracker: how it knows the run, and the last point that it was told."""

    id: str
    timestep: int


@contextmanager
def telling(config: Config, run: Run, place: Path, past: History, say: Say) -> Iterator[Tell]:
    """Start the trackers of a run in `place`; yield `tell(past)`, which passes on new points.

    Those of `past` are told first. `say` gets a line for each tracker that fails.
    """
    feeds = _feeds(place.absolute().name, config, run, place, say)

    def tell(past: History) -> None:
        for feed in feeds:
            feed.send(past)

    try:
        tell(past)
        yield tell
    finally:
        _end(feeds)


def tell_all(
    name: str, config: Config, run: Run, place: Path, past: History, say: Say
) -> Sequence[str]:
    """Tell the trackers of a run, which they know as `name`, all its points; return who failed."""
    feeds = _feeds(name, config, run, place, say)
    for feed in feeds:
        feed.send(past)
    _end(feeds)
    return [feed.name for feed in feeds if feed.failed]


def _feeds(name: str, config: Config, run: Run, place: Path, say: Say) -> list["Feed"]:
    options = {option: plain(option, x) for option, x in vars(run).items()}
    told = Told(name, "", place, flat(config) | options)
    return [Feed(tracker, told, say) for tracker in run.track]


def _end(feeds: Sequence["Feed"]) -> None:
    """Wait for all together, as long as for one."""
    deadline = time.monotonic() + PATIENCE
    for feed in feeds:
        feed.points.put(None)
    for feed in feeds:
        feed.end(deadline)


class Feed:
    """The points on their way to one tracker, and the thread that hands them over."""

    def __init__(self, name: str, told: Told, say: Say) -> None:
        """Start the tracker `name` of the run `told`."""
        self.name, self.say = name, say
        self.points: SimpleQueue[Point | None] = SimpleQueue()  # None ends it
        self.sent = 0  # timestep of the last point that was put there
        self.since: float | None = time.monotonic()  # when the tracker began what it does now
        self.failed = False
        self.work = begun(lambda: self._work(told))

    def send(self, past: History) -> None:
        """Queue the points that are new in `past`."""
        self._listen()
        if not self.failed:
            for point in _points(past, self.sent):
                self.points.put(point)
                self.sent = point.timestep

    def end(self, deadline: float) -> None:
        """Wait for the tracker, unless it hangs."""
        self._listen()
        if not self.failed:
            with suppress(TimeoutError):
                self.work.exception(max(0.0, deadline - time.monotonic()))
            self._listen(at_the_end=True)

    def _listen(self, at_the_end: bool = False) -> None:
        """Say so, once, if the tracker has raised or does not answer."""
        since = self.since
        if self.failed:
            return
        error = self.work.exception() if self.work.done() else None
        hangs = since is not None and time.monotonic() - since > PATIENCE
        if error is not None:
            self._fail(f"raised {type(error).__name__}: {error}")
        elif not self.work.done() and (hangs or at_the_end):
            self._fail(f"has not answered for {PATIENCE:g} s")

    def _fail(self, how: str) -> None:
        self.failed = True
        line = f"track: {self.name} {how}; the run goes on, a resume tells it the rest"
        self.say(" ".join(line.split()))

    def _work(self, told: Told) -> None:
        """Be the thread: start the tracker and hand over all points that it has not had."""
        folder = told.folder / "trackers" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.with_name(f"{self.name}.json")
        had = _had(path)
        tracker = TRACKERS[self.name](told._replace(id=had.id, folder=folder))
        while point := self._next():
            if point.timestep > had.timestep:
                tracker.log(point.step, curves(point.values))
                had = had._replace(timestep=point.timestep)
                _keep(path, had)
        tracker.close()

    def _next(self) -> Point | None:
        self.since = None
        point = self.points.get()
        self.since = time.monotonic()
        return point


def curves(values: Mapping[str, np.ndarray]) -> Curves:
    """Return the mean over seeds and every seed's own values of metrics [S], where finite."""
    (seeds,) = {len(x) for x in values.values()}
    each = {f"seed_{i}": {name: float(x[i]) for name, x in values.items()} for i in range(seeds)}
    mean = {name: float(x.mean()) for name, x in values.items()}
    return {
        curve: {name: x for name, x in own.items() if math.isfinite(x)}
        for curve, own in {"mean": mean, **each}.items()
    }


def _points(past: History, after: int) -> Iterator[Point]:
    if past:
        times = past["timestep"]
        for i in range(int(np.searchsorted(times, after, side="right")), len(times)):
            step = round(float(past["step"][i]))
            yield Point(int(times[i]), step, history.at(past, int(times[i])))


def _had(path: Path) -> Had:
    """Return what is kept of a tracker, at first a new id."""
    if not path.exists():
        _keep(path, Had(secrets.token_hex(8), 0))
    try:
        return Had(**files.parse(files.read(path)))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({files.reason(error)})") from None


def _keep(path: Path, had: Had) -> None:
    with files.replacing(path) as file:
        file.write(json.dumps(had._asdict()).encode())
