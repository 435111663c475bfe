"""What one setting does, over everything else that varied in a sweep."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from memrl_jax.plot.base import BLUE, GREY, PLAIN, give_room, new_figure, note, save
from memrl_jax.statistics import bootstrap, caption, iqm, real

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINED = 12  # most values that are joined by a line


def effect(
    name: str,
    values: Sequence[Any],
    scores: ArrayLike,
    path: str | os.PathLike[str] | None = None,
    *,
    ylabel: str = "return",
    title: str | None = None,
) -> Figure:
    """Draw scores against the values of the setting `name`: each point, and the IQM of a value.

    `values` [points] and `scores` [points, seeds] are those of a sweep. Numbers stand on an axis,
    a logarithmic one where they are above 0 and span a factor of ten; if there are more than twelve
    there is no IQM of a value. Other values stand side by side. Writes a PNG of 1200 x 750 pixels
    to `path`, all of it or nothing. Raises ValueError on shapes that do not agree, a NaN or an
    infinite score and a `path` that is not a .png.
    """
    y = real("scores", scores)
    if y.ndim != 2 or len(y) != len(values) or not y.size or not np.all(np.isfinite(y)):
        raise ValueError(
            f"scores: {y.shape} are not finite numbers [points = {len(values)}, seeds]"
        )
    figure = new_figure(5.0, title)
    axes = figure.add_subplot()
    x = _places(axes, values)
    axes.plot(x, iqm(y, axis=1), "o", color=GREY, alpha=0.5, markersize=4)
    told = "dots: points"
    places = np.unique(x)
    if len(places) <= LINED:
        told += f"; line: IQM of a value, {_line(axes, places, x, y)}"
    give_room(axes)
    axes.set_xlabel(name, **PLAIN)
    axes.set_ylabel(ylabel, **PLAIN)
    axes.grid(color="#DDDDDD", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    note(axes, told, (1, 0), (0, -45), axes.transAxes, "right")
    return save(figure, path)


def _places(axes: Axes, values: Sequence[Any]) -> Any:
    """Return where values stand on the axis, and label it."""
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in values)
    if numbers:
        x = np.asarray(values, np.float64)
        if x.min() > 0 and x.max() >= 10 * x.min():
            axes.set_xscale("log")
        return x
    names = list(dict.fromkeys(map(str, values)))
    axes.set_xticks(range(len(names)), names, **PLAIN)
    axes.set_xlim(-0.5, len(names) - 0.5)
    return np.asarray([names.index(str(value)) for value in values], np.float64)


def _line(axes: Axes, places: Any, x: Any, y: Any) -> str:
    """Draw the IQM over all points and seeds of each value, with its interval."""
    pooled = [y[x == place].ravel() for place in places]
    found = [bootstrap(scores) for scores in pooled]
    middle = [float(f.estimate) for f in found]
    errors = [[m - float(f.low) for m, f in zip(middle, found, strict=True)]]
    errors += [[float(f.high) - m for m, f in zip(middle, found, strict=True)]]
    axes.errorbar(places, middle, np.abs(errors), color=BLUE, marker="o", linewidth=1.8, capsize=4)
    return caption([len(scores) for scores in pooled])
