"""The schedule of a population: who copied whom after each round, and how settings moved."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from memrl_jax.plot.base import (
    BLUE,
    GREY,
    PLAIN,
    VERMILLION,
    Array,
    colorbar,
    integer_ticks,
    new_figure,
    note,
    save,
)
from memrl_jax.statistics import real

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def schedule(
    ends: ArrayLike,
    scores: ArrayLike,
    sources: ArrayLike,
    varied: Mapping[str, ArrayLike],
    path: str | os.PathLike[str] | None = None,
    *,
    xlabel: str = "timesteps",
    title: str | None = None,
) -> Figure:
    """Draw a population, round by round: a row a member, coloured by its scores, arrows to copies.

    Below, a panel a setting has its values; blue is the way to the member that is best in the end,
    through those whose states it goes on from. Rounds end at timesteps `ends` [rounds] with
    `scores` [rounds, members]; after each but the last, members went on from those at `sources`
    [rounds - 1, members], themselves if they copied nobody. Settings of `varied` are [rounds,
    members] each, on logarithmic axes where they are above 0 and span a factor of ten. Writes a
    PNG, 1200 pixels wide, to `path`, all of it or nothing. Raises ValueError on shapes that do not
    agree, a NaN or an infinite number and a `path` that is not a .png.
    """
    x, y = real("ends", ends), real("scores", scores)
    source = np.asarray(sources, int).reshape(-1, y.shape[-1] if y.ndim else 0)
    values = {name: real(name, found) for name, found in varied.items()}
    _check(x, y, source, values)
    way = _way(y[-1], source)
    borders = np.concatenate([[0.0], x])
    figure = new_figure(2.6 + 0.14 * y.shape[1] + 1.7 * len(values), title)
    heights = [1.0 + 0.1 * y.shape[1], *[1.2] * len(values)]
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)
    members, *others = panels.flat
    _members(members, borders, y, source, way)
    for axes, (name, found) in zip(others, values.items(), strict=True):
        _setting(axes, name, borders, found, way)
    last = panels.flat[-1]
    last.set_xlabel(xlabel, **PLAIN)
    integer_ticks(last.xaxis, 10)
    told = "arrows: who goes on from whose state; blue: the way to the best member"
    note(last, told, (1, 0), (0, -45), last.transAxes, "right")
    return save(figure, path)


def _way(last: Array, sources: Array) -> list[int]:
    """Return, of each round, the member whose state became that of the best in the end."""
    way = [int(np.argmax(last))]
    for source in sources[::-1]:
        way.insert(0, int(source[way[0]]))
    return way


def _check(x: Array, y: Array, source: Array, values: Mapping[str, Array]) -> None:
    rounds = len(x) if x.ndim == 1 else 0
    if y.ndim != 2 or not y.size or len(y) != rounds or len(source) != rounds - 1:
        told = f"scores: {y.shape}, sources: {source.shape}, ends: {x.shape}"
        raise ValueError(f"{told} are not [rounds, members], [rounds - 1, members], [rounds]")
    for name, found in {"ends": x, "scores": y, **values}.items():
        if not np.all(np.isfinite(found)):
            raise ValueError(f"{name}: not all numbers are finite")
    for name, found in values.items():
        if found.shape != y.shape:
            raise ValueError(f"{name}: {found.shape} is not the shape of the scores, {y.shape}")


def _members(axes: Axes, borders: Array, scores: Array, sources: Array, way: Sequence[int]) -> None:
    """Draw a row a member, and an arrow wherever one goes on from the state of another."""
    count = scores.shape[1]
    rows = np.arange(count + 1) - 0.5
    shades: dict[str, Any] = {"cmap": "cividis", "alpha": 0.5, "edgecolors": "white"}
    mesh = axes.pcolormesh(borders, rows, scores.T, linewidth=1, **shades)
    colorbar(mesh, label="return")
    for start, end, source in zip(borders, borders[1:], sources, strict=False):
        _copies(axes, end, 0.3 * (end - start), source)
    axes.plot(*_steps(borders, np.asarray(way, float)), color=BLUE, linewidth=2.5)
    axes.set(ylabel="member", ylim=(count - 0.5, -0.5))
    integer_ticks(axes.yaxis, 8)
    axes.spines[:].set_visible(False)


def _copies(axes: Axes, end: float, width: float, source: Array) -> None:
    """Draw the copies at the end of a round, side by side: a dot at the source, an arrow to it."""
    members = np.flatnonzero(source != np.arange(len(source)))
    style: dict[str, Any] = {"arrowstyle": "-|>", "color": VERMILLION, "linewidth": 1.4}
    places = end + width * (np.arange(1, len(members) + 1) / (len(members) + 1) - 0.5)
    for x, member in zip(places.tolist(), members.tolist(), strict=True):
        copied, own = (x, float(source[member])), (x, float(member))
        axes.annotate("", own, copied, arrowprops={**style, "shrinkA": 0, "shrinkB": 0})
        axes.plot(*copied, ".", color=VERMILLION)


def _setting(axes: Axes, name: str, borders: Array, values: Array, way: Sequence[int]) -> None:
    """Draw the values of a setting, those on the way to the best member above all others."""
    if values.min() > 0 and values.max() >= 10 * values.min():
        axes.set_yscale("log")
    for member in values.T:
        axes.plot(*_steps(borders, member), color=GREY, alpha=0.5, linewidth=0.9)
    best = values[np.arange(len(way)), way]
    axes.plot(*_steps(borders, best), color=BLUE, linewidth=2.5)
    axes.set_ylabel(name, **PLAIN)
    axes.grid(color="#DDDDDD", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def _steps(borders: Array, values: Array) -> tuple[Array, Array]:
    """Return the corners of a line that has each value from one border to the next."""
    return np.repeat(borders, 2)[1:-1], np.repeat(values, 2)
