"""Curves over seeds: along training, and over the length of a task."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from memrl_jax import checks, statistics
from memrl_jax.plot.base import (
    GREY,
    PLAIN,
    STYLES,
    Array,
    give_room,
    integer_ticks,
    new_figure,
    note,
    save,
    wrap,
)
from memrl_jax.statistics import bootstrap, carry_forward, iqm, real

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Lines = Mapping[str, tuple[Array, Array]]  # label -> x [P], y [seeds, P]
Named = Mapping[str, "Artist"]  # text in the legend -> its artist


def curves(
    series: Mapping[str, tuple[ArrayLike, ArrayLike]],
    path: str | os.PathLike[str] | None = None,
    *,
    xlabel: str = "environment steps",
    ylabel: str = "return",
    title: str | None = None,
    level: float = 0.95,
    reference: Mapping[str, float] | None = None,
    others: Sequence[tuple[ArrayLike, ArrayLike]] = (),
) -> Figure:
    """Draw the IQM over seeds and its bootstrap interval along training, a line per label.

    A series is (steps [points], values [seeds, points]). One seed has no interval, and the coverage
    of intervals over few seeds is written below. So that coinciding curves can be seen, the first
    is the widest and lowest; an axis whose curves hardly differ is extended to 0. NaN marks a point
    where a seed had no finished episode: its previous value is carried forward, and the line starts
    where every seed has one. `reference` maps labels to heights of dashed lines; `others` are
    series without a label, each a thin grey line of its IQM. Writes a PNG of 1200 x 750 pixels to
    `path`, all of it or nothing. Raises ValueError on shapes that do not agree, a seed without a
    value, an infinite value and a `path` that is not a .png.
    """
    lines = {label: _started(label, *pair) for label, pair in series.items()}
    figure = new_figure(5.0, title)
    axes = figure.add_subplot()
    for x, y in (_started("others", *pair) for pair in others):
        axes.plot(x, iqm(y), color=GREY, alpha=0.4, linewidth=0.8)
    named = _lines(axes, lines, level, reference or {})
    _decorate(axes, named, xlabel, ylabel)
    _name_heights(axes, reference or {})
    integer_ticks(axes.xaxis, 10)
    return save(figure, path)


def extrapolation(
    lengths: ArrayLike,
    success: Mapping[str, ArrayLike],
    path: str | os.PathLike[str] | None = None,
    *,
    trained: tuple[float, float] | None = None,
    chance: float | None = None,
    xlabel: str = "length of the task",
    ylabel: str = "success",
    title: str | None = None,
    level: float = 0.95,
) -> Figure:
    """Draw the IQM over seeds and its interval against the length of a task, a line per label.

    `lengths` [points] ascend on a logarithmic scale; values of `success` are [seeds, points], as
    `diagnose.extrapolation` gives them. Lengths between the two of `trained`, inclusive, are
    shaded, if these are given; a dashed line stands at `chance`. Writes a PNG of 1200 x 750 pixels
    to `path`, all of it or nothing. Raises ValueError on shapes that do not agree, lengths that do
    not ascend from above 0, a NaN or infinite value and a `path` that is not a .png.
    """
    x = real("lengths", lengths)
    if x.ndim != 1 or x.size == 0 or not np.all(np.diff([0, *x, np.inf]) > 0):
        raise ValueError(f"lengths: {x.tolist()} do not ascend from above 0")
    lines = {label: (x, _values(label, "lengths", x, y)) for label, y in success.items()}
    figure = new_figure(5.0, title)
    axes = figure.add_subplot(xscale="log")
    shade = {} if trained is None else {"trained lengths": _shade(axes, *trained)}
    heights = {} if chance is None else {"chance": chance}
    named = _lines(axes, lines, level, heights)
    _decorate(axes, {**shade, **named}, xlabel, ylabel)
    _name_heights(axes, heights)
    _measured(axes, x)
    return save(figure, path)


def _shade(axes: Axes, first: float, last: float) -> Artist:
    """Shade the lengths from the first to the last; a single one has no width, so a little more."""
    if not checks.above("trained", first, 0) <= checks.above("trained", last, 0):
        raise ValueError(f"trained: {first} to {last} do not ascend from above 0")
    return axes.axvspan(first / 1.06, last * 1.06, color="#E4E4E4", linewidth=0)


def _lines(axes: Axes, lines: Lines, level: float, reference: Mapping[str, float]) -> Named:
    if not 1 <= len(lines) <= len(STYLES):
        raise ValueError(f"series: {len(lines)} labels are not 1 to {len(STYLES)}")
    seeds = [len(y) for _, y in lines.values()]
    named = {}
    widths = np.linspace(min(1.0 + 0.8 * len(lines), 4.2), 1.8, len(lines))
    for (label, (x, y)), style, width in zip(lines.items(), STYLES, widths, strict=False):
        told = label if len({*seeds}) == 1 else f"{label} ({statistics.count(len(y))})"
        named[told] = _curve(axes, x, y, level, style, width)
    for label, height in reference.items():
        checks.within(f"reference: {label}", height, -np.inf, np.inf)
        axes.axhline(height, color=GREY, linewidth=1.2, linestyle="--", zorder=1.9)
    told = statistics.caption(seeds, level)
    told = told if max(seeds) == 1 else f"IQM and {told}"
    note(axes, told, (1, 0), (0, -45), axes.transAxes, "right")
    return named


def _name_heights(axes: Axes, heights: Mapping[str, float]) -> None:
    """Name heights beside the axes, each at least a line of text above the one below."""
    low, high = axes.get_ylim()
    point = (high - low) / 250  # the axes are some 250 points high
    last = -np.inf
    for label, height in sorted(heights.items(), key=lambda pair: pair[1]):
        last = max(height, last + 10 * point)
        up = (last - height) / point
        note(axes, label, (1, height), (5, up), axes.get_yaxis_transform(), "left")


def _values(label: str, field: str, x: Array, values: ArrayLike) -> Array:
    y = real(repr(label), values)
    if y.ndim != 2 or y.size == 0 or x.shape != y.shape[1:]:
        raise ValueError(f"{label!r}: {field} {x.shape}, values {y.shape} are not [P], [seeds, P]")
    return y


def _started(label: str, steps: ArrayLike, values: ArrayLike) -> tuple[Array, Array]:
    """Carry values forward over NaNs and drop the points before every seed has a value."""
    x = real(f"{label!r}: steps", steps)
    if not np.all(np.isfinite(x)):
        raise ValueError(f"{label!r}: steps are not all finite")
    y = carry_forward(_values(label, "steps", x, values))
    start = np.count_nonzero(np.isnan(y).any(axis=0))
    if start == len(x):
        raise ValueError(f"{label!r}: seed {np.isnan(y[:, -1]).argmax()} is NaN throughout")
    return x[start:], y[:, start:]


def _curve(axes: Axes, x: Array, y: Array, level: float, style: Any, width: float) -> Artist:
    color, dashes = style
    middle, low, high = bootstrap(y, level=level)
    marker = "." if len(x) <= 30 else ""  # few points: show where they were measured
    if len(y) > 1:
        axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
    (line,) = axes.plot(x, middle, dashes, color=color, linewidth=width, marker=marker)
    return line


def _decorate(axes: Axes, named: Named, xlabel: str, ylabel: str) -> None:
    axes.set_xlabel(xlabel, **PLAIN)
    axes.set_ylabel(ylabel, **PLAIN)
    axes.margins(x=0.01)
    give_room(axes)
    axes.grid(color="#DDDDDD", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(axes, named)


def _legend(axes: Axes, named: Named) -> None:
    """Put a legend above the axes; names may begin with "_", which matplotlib would hide."""
    columns = max(1, 85 // (max(map(len, named)) + 8))  # a row fits some 85 letters
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1.01)}
    numbers = [str(i) for i in range(len(named))]
    artists = [*named.values()]
    legend = axes.legend(artists, numbers, **place, ncols=columns, handlelength=4, frameon=False)
    for text, name in zip(legend.get_texts(), named, strict=True):
        text.set(text=wrap(name, 72), **PLAIN)


def _measured(axes: Axes, lengths: Array) -> None:
    """Put ticks of a logarithmic axis at the lengths, as many as have room for a label."""
    apart = 0.06 * np.log(lengths[-1] / lengths[0])
    shown = [lengths[0]]
    for length in lengths[1:]:
        if np.log(length / shown[-1]) > apart:
            shown.append(length)
    axes.set_xticks(shown, [f"{length:g}" for length in shown])
    axes.set_xticks([], minor=True)
