"""Where memories write and read, what they hold, and to which past steps they attend."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from memrl_jax.plot.base import PLAIN, Array, cells, colorbar, integer_ticks, new_figure, save
from memrl_jax.statistics import real

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAPS = {"write": "Oranges", "read": "Blues", "attention": "viridis"}
ACROSS = 3  # most hops side by side


def addresses(
    record: Mapping[str, ArrayLike],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """Draw the weights of every head over slots and time, and the memory at the end.

    `record` is that of one sequence from `diagnose.record` or a `rollout.player`: `write` and
    `read` [T, heads, slots], of which one may be missing, and optionally `memory`
    [T, slots, width]. Writes a PNG, 1200 pixels wide, to `path`, all of it or nothing. Raises
    ValueError without writes and reads, on shapes that do not agree, for a value that is NaN or
    infinite and for a `path` that is not a .png.
    """
    heads = {**by_head(record, "write"), **by_head(record, "read")}
    if not heads:
        raise ValueError(f"record: neither 'write' nor 'read' is in {sorted(record)}")
    rows: list[Any] = [[label, "memory"] if "memory" in record else [label] for label in heads]
    figure = new_figure(max(1.7 * len(heads), 3.0) + 0.6, title)
    panels = figure.subplot_mosaic(rows, width_ratios=[2.4, 1][: len(rows[0])])
    steps = _steps({label: weights for label, (weights, _) in heads.items()})
    for label, (weights, colors) in heads.items():
        colorbar(cells(panels[label], weights, f"{label}: slot", **colors))
        integer_ticks(panels[label].xaxis, 10)
        panels[label].set_xlim(-0.5, steps - 0.5)
        panels[label].tick_params(labelbottom=label == rows[-1][0])
    panels[rows[-1][0]].set_xlabel("step")
    if "memory" in record:
        _contents(panels["memory"], weighed("memory", record["memory"], "slots, width")[-1])
    figure.align_ylabels([panels[label] for label in heads])
    return save(figure, path)


def attention(
    attention: ArrayLike,
    path: str | os.PathLike[str] | None = None,
    *,
    starts: ArrayLike | None = None,
    title: str | None = None,
) -> Figure:
    """Draw to which past steps each step attends, a panel per hop.

    `attention` [T, hops, M] are weights of the last M inputs before each step, oldest first.
    `starts` [T] marks where episodes begin; weights on inputs from before the episode, or before
    step 0, are not drawn. Writes a PNG, 1200 pixels wide, to `path`, all of it or nothing. Raises
    ValueError on shapes that do not agree, for a value that is NaN or infinite and for a `path`
    that is not a .png.
    """
    hops = by_hop({"attention": attention}, starts)
    down, across = -(-len(hops) // ACROSS), min(len(hops), ACROSS)
    figure = new_figure(5.0 if across == 1 else 0.6 + (8.0 / across) * down, title)
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axes, (label, (table, colors)) in zip(panels.flat, hops.items(), strict=False):
        mesh = cells(axes, table.T, "step", **colors)
        mesh.set_linewidth(0)
        integer_ticks(axes.xaxis, 7)
        axes.set_title(label, loc="left", fontsize=10)
    for axes in panels.flat[len(hops) :]:
        axes.remove()
    for axes in panels.flat[: len(hops)]:
        axes.label_outer()
    figure.supxlabel("past step", fontsize=10)
    colorbar(mesh)
    return save(figure, path)


def hops(
    weights: ArrayLike,
    labels: Sequence[str],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """Draw the attention `weights` [hops, M] of one look-up over M things, named by `labels`.

    Writes a PNG, 1200 pixels wide, to `path`, all of it or nothing. Raises ValueError on shapes
    that do not agree, for a value that is NaN or infinite and for a `path` that is not a .png.
    """
    table = real("weights", weights)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"weights: shape {table.shape} is not [hops, M]")
    if not np.isfinite(table).all():
        raise ValueError("weights: not all of it is finite")
    if table.shape[1] != len(labels):
        raise ValueError(f"labels: {len(labels)} are not one for each of {table.shape[1]} weights")
    figure = new_figure(0.3 * len(labels) + 1.4, title)
    axes = figure.subplots()
    colors = {"cmap": MAPS["attention"], "vmin": 0.0, "vmax": max(table.max(), 1e-6)}
    colorbar(cells(axes, table, "", **colors))
    axes.set(xlabel="hop", xticks=range(len(table)))
    axes.set_yticks(range(len(labels)), labels, **PLAIN)
    return save(figure, path)


def by_head(
    record: Mapping[str, ArrayLike], kind: str, top: float | None = None
) -> dict[str, tuple[Array, Any]]:
    """Return the weights [T, slots] of each head of a `kind`, and their colours.

    The colour scale ends at `top`, or else at the largest weight.
    """
    if kind not in record:
        return {}
    weights = weighed(kind, record[kind], "heads, slots")
    colors = {"cmap": MAPS[kind], "vmin": 0.0, "vmax": top or weights.max() or 1.0}
    names = [kind] if weights.shape[1] == 1 else [f"{kind} {i}" for i in range(weights.shape[1])]
    return {name: (weights[:, i], colors) for i, name in enumerate(names)}


def by_hop(
    record: Mapping[str, ArrayLike], starts: ArrayLike | None = None, top: float | None = None
) -> dict[str, tuple[Array, Any]]:
    """Return each hop's weights [T, T] of past steps at each step, and their colours.

    The colour scale ends at `top`, or else at the largest weight.
    """
    if "attention" not in record:
        return {}
    weights = weighed("attention", record["attention"], "hops, M")
    begins = np.zeros(len(weights), bool) if starts is None else np.asarray(starts)
    if begins.shape != weights.shape[:1]:
        raise ValueError(f"starts: shape {begins.shape} is not [T] with T = {len(weights)}")
    colors = {"cmap": MAPS["attention"], "vmin": 0.0, "vmax": top or weights.max() or 1.0}
    hops = weights.shape[1]
    names = ["attention"] if hops == 1 else [f"attention, hop {i}" for i in range(hops)]
    return {name: (by_step(weights[:, i], begins), colors) for i, name in enumerate(names)}


def by_step(weights: Array, starts: Array) -> Array:
    """Turn weights [T, M] of the last M steps into [T, T] of all steps, NaN elsewhere."""
    steps, reach = weights.shape
    now, past = np.indices((steps, steps))
    begun = np.maximum.accumulate(np.where(starts, np.arange(steps), 0))[:, None]
    place = past - now + reach
    there = (place >= 0) & (past < now) & (past >= begun)
    return np.where(there, weights[now, np.clip(place, 0, reach - 1)], np.nan)


def weighed(field: str, values: ArrayLike, axes: str) -> Array:
    """Return `values` as an array [T, ...] of three axes, if all of them are finite numbers."""
    array = real(field, values)
    if array.ndim != 3 or array.size == 0:
        raise ValueError(f"{field}: shape {array.shape} is not [T, {axes}]")
    if not np.isfinite(array).all():
        t = int(np.argwhere(~np.isfinite(array))[0][0])
        raise ValueError(f"{field}: not all of step {t} is finite")
    return array


def _steps(tables: Mapping[str, Array]) -> int:
    counts = {len(table) for table in tables.values()}
    if len(counts) > 1:
        raise ValueError(f"record: steps {sorted(counts)} do not agree")
    return counts.pop()


def _contents(axes: Axes, memory: Array) -> None:
    limit = float(np.abs(memory).max()) or 1.0
    colorbar(cells(axes, memory.T, "slot", cmap="RdBu_r", vmin=-limit, vmax=limit))
    integer_ticks(axes.xaxis, 5)
    axes.set(xlabel="element")
    axes.set_title("memory at the end", loc="left", fontsize=10)
