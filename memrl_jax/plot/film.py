"""Episodes as moving pictures, with what the memory addresses beside what is seen."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from memrl_jax.plot.addresses import by_head, by_hop
from memrl_jax.plot.base import BLUE, GREY, Array, blank, cells, integers, replacing, scale
from memrl_jax.plot.episode import rgb

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from memrl_jax.rollout import Episode

DPI = 100  # pixels per inch: pictures are 800 pixels wide
SECONDS = 30  # an episode takes about this long, where its steps then are not too slow or quick
SLOWEST, QUICKEST, END = 400, 50, 1500  # milliseconds of a step, and of the last one

Show = Callable[[int], Sequence["Artist"]]  # a step -> what shows it, up to date


def film(
    episodes: Sequence[Episode],
    path: str | os.PathLike[str],
    *,
    report: Callable[[int], None] = lambda frames: None,
) -> None:
    """Write episodes as `rollout.player` gives them to a GIF, a frame for every step.

    On the left is what is seen, an image or the bars of a vector; on the right, so far, to which
    past steps the memory attended, where it wrote and read, and the action values, with a dot on
    the action taken. The title has step, reward and return. `report` is told the number of frames
    drawn. Writes all of it or nothing. Raises ValueError without episodes and for a `path` that is
    not a .gif.
    """
    if not episodes:
        raise ValueError("episodes: there are none")
    with replacing(path, ".gif") as temporary:
        durations = [x for episode in episodes for x in _durations(len(episode.action))]
        first, *rest = _frames(episodes, report)
        options: dict[str, Any] = {"append_images": rest, "duration": durations, "loop": 0}
        first.save(temporary, format="GIF", save_all=True, **options)


def _durations(steps: int) -> list[int]:
    each = int(np.clip(1000 * SECONDS / steps, QUICKEST, SLOWEST))
    return [each] * (steps - 1) + [END]


def _frames(episodes: Sequence[Episode], report: Callable[[int], None]) -> Iterator[Image]:
    from PIL import Image

    done = 0
    for number, episode in enumerate(episodes):
        figure, shows = _stage(episode, f"episode {number}, " if len(episodes) > 1 else "")
        draw = _drawing(figure, [artist for show in shows for artist in show(0)])
        for t in range(len(episode.action)):
            pixels = draw([artist for show in shows for artist in show(t)])
            done += 1
            report(done)
            yield Image.fromarray(pixels).quantize(128, dither=Image.Dither.NONE)


def _drawing(figure: Figure, moving: Sequence[Artist]) -> Callable[[Sequence[Artist]], Array]:
    """Draw once what does not move; return what draws the rest, ten times as fast."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for artist in moving:
        artist.set_animated(True)
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    still = canvas.copy_from_bbox(figure.bbox)

    def draw(artists: Sequence[Artist]) -> Array:
        canvas.restore_region(still)
        for artist in artists:
            figure.draw_artist(artist)
        return np.array(canvas.buffer_rgba())[..., :3]

    return draw


def _stage(episode: Episode, name: str) -> tuple[Figure, list[Show]]:
    """Return a figure of an episode and what draws its parts."""
    heads = {**by_hop(episode.record), **by_head(episode.record, "write")}
    heads |= by_head(episode.record, "read")
    heights = [1.8 if label.startswith("attention") else 1.3 for label in heads]
    heights += [min(0.5 + 0.2 * episode.q.shape[1], 1.6)]
    figure = blank(max(sum(heights), 2.2) + 1.2, " ")
    columns = figure.add_gridspec(1, 2, width_ratios=[1, 1.6])
    right = columns[1].subgridspec(len(heights), 1, height_ratios=heights)
    *panels, values = right.subplots(sharex=True, squeeze=False)[:, 0]
    shows = [_title(figure, episode, name), _seen(figure.add_subplot(columns[0]), episode)]
    for axes, (label, (table, colors)) in zip(panels, heads.items(), strict=True):
        rows = "past step" if label.startswith("attention") else "slot"
        shows.append(_so_far(axes, table, rows, **colors))
        axes.set_title(label, loc="left", fontsize=10)
    shows += [_so_far(values, episode.q, "action", cmap="viridis"), _taken(values, episode.action)]
    values.set_title("action values, and the action taken", loc="left", fontsize=10)
    integers(values.xaxis, 8)
    values.set(xlabel="step", xlim=(-0.5, len(episode.action) - 0.5))
    figure.align_ylabels([*panels, values])
    return figure, shows


def _title(figure: Figure, episode: Episode, name: str) -> Show:
    text = figure.suptitle(" ", x=0.01, ha="left", fontsize=12, fontweight="bold")
    total = np.cumsum(episode.reward, dtype=np.float64)
    last = len(episode.action) - 1

    def show(t: int) -> list[Artist]:
        step = f"{name}step {t} / {last}"
        text.set_text(f"{step}    reward {episode.reward[t]:.4g}    return {total[t]:.4g}")
        return [text]

    return show


def _seen(axes: Axes, episode: Episode) -> Show:
    """Draw observations as images where that is what they are, else as bars."""
    import jax

    leaves = [np.asarray(x) for x in jax.tree.leaves(episode.observation)]
    axes.set_title("observation", loc="left", fontsize=10)
    if len(leaves) == 1 and leaves[0].ndim == 4:
        colors = rgb(leaves[0])
        image = axes.imshow(colors[0], interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color("#BBBBBB")

        def show(t: int) -> list[Artist]:
            image.set_data(colors[t])
            return [image]

        return show
    values = np.concatenate([x.reshape(len(x), -1).astype(np.float64) for x in leaves], axis=1)
    return _bars(axes, values)


def _bars(axes: Axes, values: Array) -> Show:
    low, high = min(0.0, values.min()), max(0.0, values.max())
    room = 0.05 * (high - low or 1.0)
    bars = axes.bar(np.arange(values.shape[1]), values[0], 0.85, color=BLUE)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set(xlabel="element", ylim=(low - room, high + room))
    axes.spines[["top", "right"]].set_visible(False)
    integers(axes.xaxis, 8)

    def show(t: int) -> Sequence[Artist]:
        for bar, value in zip(bars, values[t], strict=True):
            bar.set_height(value)
        return list(bars)

    return show


def _so_far(axes: Axes, table: Array, label: str, **colors: Any) -> Show:
    """Draw the columns of [T, rows] up to a step."""
    mesh = cells(axes, table, label, **colors)
    scale(mesh)
    mesh.autoscale_None()  # colours are those of the whole episode
    time = np.arange(len(table))[:, None]

    def show(t: int) -> list[Artist]:
        mesh.set_array(np.where(time <= t, table, np.nan).T)
        return [mesh, *axes.spines.values()]

    return show


def _taken(axes: Axes, actions: Array) -> Show:
    style: dict[str, Any] = {"markersize": min(6, 400 / len(actions)), "markeredgecolor": "white"}
    (dots,) = axes.plot([], [], "ko", **style)

    def show(t: int) -> list[Artist]:
        dots.set_data(np.arange(t + 1), actions[: t + 1])
        return [dots]

    return show
