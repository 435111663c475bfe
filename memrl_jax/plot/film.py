"""Episodes as animations: observations, and beside them what the memory addresses."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from memrl_jax.plot import seen
from memrl_jax.plot.base import Array, replacing
from memrl_jax.plot.episode import ACTIONS
from memrl_jax.plot.palette import palette
from memrl_jax.plot.seen import Show
from memrl_jax.plot.stage import spans, stage
from memrl_jax.statistics import finite

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from memrl_jax.rollout import Episode

DPI = 100  # pixels per inch: pictures are 800 pixels wide
SECONDS = 30  # about how long an episode takes, within the limits on its steps below
SLOWEST, QUICKEST, END = 400, 50, 1500  # milliseconds per step, at most, at least, and for the last
SAMPLED = 4  # most episodes, and frames of each, from which the palette is made


def film(
    episodes: Sequence[Episode],
    path: str | os.PathLike[str],
    *,
    report: Callable[[int], None] = lambda frames: None,
) -> None:
    """Write episodes of `rollout.player` to a GIF, a frame for every step.

    On the left is the observation, a panel for each of its parts: an image, the bars of a vector
    (cells, if it has more than 40 elements), or a whole number, drawn one-hot. On the right, up to
    the present step: to which past steps the memory attended, where it wrote and read, and the
    action values, if the record has `q`, with a dot on the action taken. All episodes share their
    scales and colours. The title has step, reward and return. `report` is called with the number of
    frames drawn. Writes all of it or nothing. Raises ValueError without episodes or steps, for
    parts of an episode that do not agree or are not finite, and for a `path` that is not a .gif.
    """
    episodes = list(episodes)
    if not episodes:
        raise ValueError("episodes: there are none")
    for number, episode in enumerate(episodes):
        _check(f"episodes: {number}", episode)
    if len({frozenset(episode.record) for episode in episodes}) > 1:
        raise ValueError("episodes: their records do not have the same names")
    with replacing(path, ".gif") as temporary:
        durations = [x for episode in episodes for x in _durations(len(episode.action))]
        first, *rest = _frames(episodes, report)
        options: dict[str, Any] = {"append_images": rest, "duration": durations, "loop": 0}
        first.save(temporary, format="GIF", save_all=True, **options)


def _check(field: str, episode: Episode) -> None:
    """Raise ValueError if a part of an episode cannot be drawn."""
    action, steps = np.asarray(episode.action), np.size(episode.action)
    if action.ndim != 1 or not steps or action.dtype.kind not in "iu":
        raise ValueError(f"{field}, action: {action.dtype} {action.shape} is not integers [T]")
    parts = {"reward": episode.reward, **episode.record, **seen.parts(episode.observation)}
    for name, x in parts.items():
        if len(np.atleast_1d(x)) != steps:
            raise ValueError(f"{field}, {name}: shape {np.shape(x)} is not [T = {steps}, ...]")
    finite(f"{field}, reward", episode.reward)
    count = ACTIONS
    if "q" in episode.record:
        q = finite(f"{field}, q", episode.record["q"])
        if q.ndim != 2:
            raise ValueError(f"{field}, q: shape {q.shape} is not [T, A]")
        count = q.shape[1]
    if action.min() < 0 or action.max() >= count:
        raise ValueError(f"{field}, action: {action.min()} to {action.max()} not in [0, {count})")


def _durations(steps: int) -> list[int]:
    each = int(np.clip(1000 * SECONDS / steps, QUICKEST, SLOWEST))
    return [each] * (steps - 1) + [END]


def _spread(count: int) -> list[int]:
    """Return at most `SAMPLED` evenly spaced indices below `count`, including the last."""
    return sorted({*np.linspace(count - 1, 0, min(count, SAMPLED)).astype(int).tolist()})


def _frames(episodes: Sequence[Episode], report: Callable[[int], None]) -> Iterator[Image]:
    from PIL import Image

    ranges, done = spans(episodes), 0

    def staged(number: int) -> tuple[set[str], Callable[[int], Array]]:
        name = f"episode {number}, " if len(episodes) > 1 else ""
        figure, shows = stage(episodes[number], name, ranges)
        return _maps(figure), drawing(figure, shows)

    sampled = {number: staged(number) for number in _spread(len(episodes))}
    steps = {number: _spread(len(episodes[number].action)) for number in sampled}
    frames = [draw(t) for number, (_, draw) in sampled.items() for t in steps[number]]
    colors = palette(frames, sorted(set.union(*(maps for maps, _ in sampled.values()))))
    for number, episode in enumerate(episodes):
        _, draw = sampled.pop(number) if number in sampled else staged(number)
        for t in range(len(episode.action)):
            frame = Image.fromarray(draw(t))
            done += 1
            report(done)
            yield frame.quantize(palette=colors, dither=Image.Dither.NONE)


def _maps(figure: Figure) -> set[str]:
    """Return the names of the colour maps of a figure."""
    from matplotlib.collections import QuadMesh

    meshes: list[Any] = figure.findobj(QuadMesh)
    return {mesh.get_cmap().name for mesh in meshes}


def drawing(figure: Figure, shows: Sequence[Show]) -> Callable[[int], Array]:
    """Draw the static parts once; return a function that draws step t, [height, width, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for show in shows:
        for artist in show(0):
            artist.set_animated(True)
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    still = canvas.copy_from_bbox(figure.bbox)

    def draw(t: int) -> Array:
        canvas.restore_region(still)
        for show in shows:
            for artist in show(t):
                figure.draw_artist(artist)
        return np.array(canvas.buffer_rgba())[..., :3]

    return draw
