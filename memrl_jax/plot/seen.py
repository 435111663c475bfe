"""What an agent sees: a panel for every part of its observation, one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from memrl_jax.plot.base import BLUE, GREY, PLAIN, Array, colorbar, integer_ticks
from memrl_jax.plot.episode import rgb
from memrl_jax.statistics import real

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

Show = Callable[[int], Sequence["Artist"]]  # a step -> the artists, updated to it
Span = tuple[float, float]  # smallest and largest value over all episodes
ROW = 40  # most numbers side by side: up to so many as bars, more as rows of cells
CHOICES = 1000  # whole numbers below this are drawn one-hot


def parts(observation: Any) -> dict[str, Array]:
    """Return the parts of observations [T, ...] by name.

    They are images [T, H, W, C], whole numbers [T] or vectors [T, D]. Raises ValueError for what
    is not a finite number.
    """
    import jax

    leaves, _ = jax.tree_util.tree_flatten_with_path(observation)
    return {
        name: _part(name, np.asarray(leaf))
        for name, leaf in ((_name(path), leaf) for path, leaf in leaves)
    }


def _name(path: Sequence[Any]) -> str:
    """Return the path of a part in the observation: keys, fields and indices."""
    words = [str(getattr(x, "key", getattr(x, "name", getattr(x, "idx", x)))) for x in path]
    return ".".join(words) or "observation"


def _part(name: str, x: Array) -> Array:
    if x.ndim == 0 or x.size == 0:
        raise ValueError(f"{name}: shape {x.shape} is not [T, ...]")
    real(name, x[:1])
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise ValueError(f"{name}: not all of it is finite")
    if x.ndim in (3, 4):
        return x if x.ndim == 4 else x[..., None]
    return x if x.ndim == 1 and x.dtype.kind in "iu" else x.reshape(len(x), -1)


def height(part: Array, span: Span) -> float:
    """Return the height in inches of the panel of a part [T, ...]."""
    if part.ndim == 4:
        return 2.8
    count = vectors(part, span).shape[1]
    return 1.6 if count <= ROW else 0.8 + 0.15 * -(-count // ROW)


def panel(axes: Axes, name: str, part: Array, span: Span) -> Show:
    """Draw a part [T, ...] of observations, on one scale, `span`, for all steps and episodes."""
    axes.set_title(name, loc="left", fontsize=10, **PLAIN)
    if part.ndim == 4:
        return _image(axes, part, span)
    values = vectors(part, span)
    low, high = span if values.shape == part.shape else (0.0, 1.0)
    draw = _bars if values.shape[1] <= ROW else _cells
    return draw(axes, values, min(low, 0.0), max(high, 0.0))


def vectors(part: Array, span: Span) -> Array:
    """Return [T, D]: vectors as they are, whole numbers one-hot, up to the largest."""
    if part.ndim == 1 and span[0] >= 0 and span[1] < CHOICES:
        return part[:, None] == np.arange(int(span[1]) + 1)
    return part.reshape(len(part), -1)


def _image(axes: Axes, images: Array, span: Span) -> Show:
    image = axes.imshow(rgb(images[:1], span)[0], interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("#BBBBBB")

    def show(t: int) -> list[Artist]:
        image.set_data(rgb(images[t : t + 1], span)[0])
        return [image]

    return show


def _bars(axes: Axes, values: Array, low: float, high: float) -> Show:
    room = 0.05 * (high - low or 1.0)
    bars = axes.bar(np.arange(values.shape[1]), values[0], 0.85, color=BLUE)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set(xlabel="element", ylim=(low - room, high + room))
    axes.spines[["top", "right"]].set_visible(False)
    integer_ticks(axes.xaxis, 8)

    def show(t: int) -> Sequence[Artist]:
        for bar, value in zip(bars, values[t], strict=True):
            bar.set_height(value)
        return list(bars)

    return show


def _cells(axes: Axes, values: Array, low: float, high: float) -> Show:
    """Draw numbers as rows of cells, the first on top; zero is white."""
    steps, count = values.shape
    rows = -(-count // ROW)
    table = np.full((steps, rows * ROW), np.nan)
    table[:, :count] = values
    table = table.reshape(steps, rows, ROW)
    limit = max(-low, high) or 1.0
    cmap, least = ("RdBu_r", -limit) if low < 0 else ("Greys", 0.0)
    mesh = axes.pcolormesh(table[0], cmap=cmap, vmin=least, vmax=limit)
    axes.set(xlabel="element", ylim=(rows, 0), yticks=np.arange(rows) + 0.5)
    axes.set_yticklabels([f"+ {ROW * i}" for i in range(rows)], fontsize=7)
    axes.set_xticks(np.arange(0, ROW, 10) + 0.5, [str(i) for i in range(0, ROW, 10)])
    axes.spines[:].set_color("#BBBBBB")
    colorbar(mesh)

    def show(t: int) -> list[Artist]:
        mesh.set_array(table[t])
        return [mesh, *axes.spines.values()]

    return show
