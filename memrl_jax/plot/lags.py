"""How outputs depend on past inputs and on the memory, over time and lag."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from memrl_jax.plot.base import (
    BLUE,
    VERMILLION,
    Array,
    cells,
    colorbar,
    integer_ticks,
    new_figure,
    save,
)
from memrl_jax.statistics import real

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DECADES = 4  # shown below the largest value; what is smaller has the darkest colour


def sensitivity(
    gradient: ArrayLike,
    path: str | os.PathLike[str] | None = None,
    *,
    memory_span: float | None = None,
    title: str | None = None,
) -> Figure:
    """Draw gradient norms [T, K] of outputs with respect to earlier inputs, and the mean over t.

    `gradient` and `memory_span` are those of `diagnose.sensitivity` and `diagnose.memory_span`; a
    line marks the memory span. Colours are logarithmic over four decades. Writes a PNG of
    1200 x 750 pixels to `path`, all of it or nothing. Raises ValueError for a table that is not
    [T, K] with K <= T, for a value that is NaN, infinite or negative where k <= t, for a memory
    span that is none of the lags (NaN stands for no memory span) and for a `path` that is not a
    .png.
    """
    lags = "lag k of the input (steps)"
    size = "norm of d output[t] / d input[t - k]"
    return _lags(
        "gradient", real("gradient", gradient), path, lags, size, memory_span, title, beyond=1
    )


def erasure(
    distance: ArrayLike,
    path: str | os.PathLike[str] | None = None,
    *,
    memory_span: float | None = None,
    title: str | None = None,
) -> Figure:
    """Draw how far each output moves when the memory is erased k steps before it, [T, K].

    `distance` and `memory_span` are those of `diagnose.erasure` and `diagnose.memory_span`.
    Otherwise as `sensitivity`.
    """
    lags = "lag k of the erasure (steps)"
    size = "distance of output[t] from the intact one"
    # Before the first step there is nothing to erase: the longest lag is always 0.
    return _lags(
        "distance", real("distance", distance), path, lags, size, memory_span, title, beyond=2
    )


def _lags(
    field: str,
    table: Array,
    path: str | os.PathLike[str] | None,
    lags: str,
    size: str,
    memory_span: float | None,
    title: str | None,
    beyond: int,
) -> Figure:
    """Draw a table whose longest lag that can be above 0 is K - `beyond`."""
    table = _checked(field, table)
    figure = new_figure(5.0, title)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    _map(left, table, lags, size)
    _mean(right, table)
    if memory_span is not None:
        _mark([left, right], table.shape[1], float(memory_span), beyond)
    return save(figure, path)


def _checked(field: str, table: Array) -> Array:
    """Return the table with NaN where k > t and nowhere else."""
    if table.ndim != 2 or not 1 <= table.shape[1] <= len(table):
        raise ValueError(f"{field}: shape {table.shape} is not [T, K] with K <= T")
    t, k = np.indices(table.shape)
    wrong = (k <= t) & ~((table >= 0) & (table < np.inf))
    if wrong.any():
        t, k = np.argwhere(wrong)[0]
        raise ValueError(f"{field}: {table[t, k]} at t = {t}, k = {k} is not a finite size")
    return np.where(k <= t, table, np.nan)


def _map(axes: Axes, table: Array, lags: str, size: str) -> None:
    from matplotlib.colors import LogNorm

    top = np.nanmax(table) or 1.0
    floor = top / 10**DECADES
    colors = {"cmap": "viridis", "norm": LogNorm(floor, top)}
    colorbar(cells(axes, np.maximum(table, floor), lags, **colors), extend="min")
    integer_ticks(axes.xaxis, 8)
    axes.set(xlabel="step t of the output")
    axes.set_title(size, loc="left", fontsize=10)


def _mean(axes: Axes, table: Array) -> None:
    mean = np.nanmean(table, axis=0)
    top = mean.max() or 1.0
    axes.set(xscale="log", xlim=(top / 10**DECADES, 2 * top), xlabel="mean over t")
    axes.plot(mean, np.arange(len(mean)), color=BLUE, linewidth=1.8)
    axes.grid(color="#DDDDDD", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def _mark(panels: list[Axes], lags: int, memory_span: float, beyond: int) -> None:
    """Draw the memory span through the panels and write it beside the last one."""
    if np.isnan(memory_span):
        text = "no memory"
    elif 0 <= memory_span < lags:
        least = "at least " if memory_span == lags - beyond else ""
        text = f"memory span {least}{memory_span:g} steps"
    else:
        raise ValueError(f"memory_span: {memory_span:g} is not in [0, {lags})")
    style: dict[str, Any] = {"color": VERMILLION, "linewidth": 1.4, "linestyle": "--"}
    for axes in panels:
        axes.axhline(memory_span, **style)
    panels[-1].set_title(text, fontsize=10, color=VERMILLION)
