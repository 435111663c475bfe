"""Pictures: learning curves over seeds, and one episode step by step.

Figures are made without pyplot, so no backend, display or global state is touched.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memrl_jax.statistics import bootstrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]

# Okabe & Ito (2008), told apart with any colour vision; their yellow is too pale on white.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
COLORS = (BLUE, VERMILLION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#333333")
STYLES = [(color, dashes) for dashes in ("-", "-.", ":") for color in COLORS]
GREY = "#666666"
WIDTH, DPI = 8.0, 150  # inches, pixels per inch
FRAMES = 12  # most images shown of one episode


def curves(
    series: Mapping[str, tuple[ArrayLike, ArrayLike]],
    path: str | os.PathLike[str] | None = None,
    *,
    xlabel: str = "environment steps",
    ylabel: str = "return",
    title: str | None = None,
    level: float = 0.95,
    reference: Mapping[str, float] | None = None,
) -> Figure:
    """Draw the IQM over seeds and its bootstrap interval along training, a line per label.

    A series is (steps [points], values [seeds, points]). NaN marks a point where a seed had
    no finished episode: its previous value is carried forward, and the line starts where
    every seed has one. `reference` maps labels to heights of dashed lines. Writes a PNG of
    1200 x 750 pixels to `path`, all of it or nothing. Raises ValueError on shapes that do not
    agree, a seed without a value, an infinite value and a `path` that is not a .png.
    """
    if not 1 <= len(series) <= len(STYLES):
        raise ValueError(f"series: {len(series)} labels are not 1 to {len(STYLES)}")
    figure = _figure(5.0, title)
    axes = figure.add_subplot()
    for (label, (steps, values)), style in zip(series.items(), STYLES, strict=False):
        _curve(axes, label, *_started(label, steps, values), level, style)
    for label, height in (reference or {}).items():
        axes.axhline(height, color=GREY, linewidth=1.2, linestyle="--", zorder=1)
        _beside(axes, label, height, axes.get_yaxis_transform())
    _legend(axes)
    _decorate(axes, xlabel, ylabel, f"IQM and {100 * level:g} % bootstrap interval over seeds")
    return _finished(figure, path)


def episode(
    observations: ArrayLike,
    actions: ArrayLike,
    rewards: ArrayLike,
    path: str | os.PathLike[str] | None = None,
    *,
    q: ArrayLike | None = None,
    title: str | None = None,
) -> Figure:
    """Draw what was seen, the Q values, the action taken and its reward, step by step.

    `observations` [T, D] become a heat map, [T, H, W, C] a strip of at most 12 frames (grey,
    RGB, or else the colour of the strongest channel); `actions` [T] are integers; `rewards`
    [T] stand below the action that earned them; `q` is [T, A]. Writes a PNG, 1200 pixels
    wide, to `path`, all of it or nothing. Raises ValueError on shapes that do not agree, an
    action outside [0, A) and a `path` that is not a .png.
    """
    seen, taken, earned = np.asarray(observations), np.asarray(actions), np.asarray(rewards)
    values = None if q is None else np.asarray(q)
    _check_episode(seen, taken, earned, values)
    count = int(taken.max()) + 1 if values is None else values.shape[1]
    images = seen.ndim == 4
    panels = {
        "observation": (_strip_height(seen) if images else _rows_height(seen.shape[1])),
        "Q value": _rows_height(count),
        "action": _rows_height(count),
        "reward": 0.9,
    }
    if values is None:
        del panels["Q value"]
    figure = _figure(sum(panels.values()) + 0.2 * len(panels) + 0.6, title)
    column = figure.subplots(
        len(panels), sharex=True, gridspec_kw={"height_ratios": list(panels.values())}
    )
    axes = dict(zip(panels, column, strict=True))
    (_strip if images else _heat)(axes["observation"], seen)
    if values is not None:
        _heat(axes["Q value"], values, "viridis")
        _mark(axes["Q value"], taken)
    _roll(axes["action"], taken, count)
    _bars(axes["reward"], earned)
    _share_time(axes, len(taken))
    return _finished(figure, path)


def _figure(height: float, title: str | None) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    if title is not None:
        figure.suptitle(title, fontsize=13, fontweight="bold")
    return figure


def _finished(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    if path is None:
        return figure
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"path: {str(path)!r} does not end in .png")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(temporary, format="png", dpi=DPI)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return figure


def _started(label: str, steps: ArrayLike, values: ArrayLike) -> tuple[Array, Array]:
    """Carry each seed's values over its NaNs and drop the points before all seeds have one."""
    x, y = np.asarray(steps), np.asarray(values, np.float64)
    if x.ndim != 1 or y.ndim != 2 or y.shape[1] != len(x) or y.size == 0:
        raise ValueError(
            f"series {label!r}: steps {x.shape} and values {y.shape} are not [points] and "
            "[seeds, points]"
        )
    known = ~np.isnan(y)
    if not known.any(axis=1).all():
        raise ValueError(f"series {label!r}: seed {known.any(axis=1).argmin()} is NaN throughout")
    latest = np.maximum.accumulate(np.where(known, np.arange(len(x)), 0), axis=1)
    start = known.argmax(axis=1).max()
    return x[start:], np.take_along_axis(y, latest, axis=1)[:, start:]


def _curve(
    axes: Axes, label: str, steps: Array, values: Array, level: float, style: tuple[str, str]
) -> None:
    color, dashes = style
    seeds = len(values)
    middle, low, high = bootstrap(values, level=level)
    name = f"{label} ({seeds} seed{'s' if seeds > 1 else ''})"
    marker = "." if len(steps) <= 30 else ""  # few points: show where they were measured
    axes.fill_between(steps, low, high, color=color, alpha=0.18, linewidth=0)
    axes.plot(steps, middle, color=color, linestyle=dashes, linewidth=2, marker=marker, label=name)


def _legend(axes: Axes) -> None:
    """Put the legend above the axes, where it covers no line, in as many columns as fit."""
    handles, names = axes.get_legend_handles_labels()
    columns = max(1, min(len(names), 105 // (max(map(len, names)) + 8)))  # letters in a row
    axes.legend(
        handles,
        names,
        loc="lower left",
        bbox_to_anchor=(0, 1.01),
        ncols=columns,
        frameon=False,
        fontsize=10,
        borderaxespad=0,
    )


def _decorate(axes: Axes, xlabel: str, ylabel: str, note: str) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.set_xlabel(xlabel, fontsize=11)
    axes.set_ylabel(ylabel, fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(x=0.01)
    axes.grid(color="#DDDDDD", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.annotate(
        note,
        xy=(1, 0),
        xytext=(0, -26),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=8,
        color=GREY,
    )


def _beside(axes: Axes, text: str, height: float, transform: Any) -> None:
    """Write `text` to the right of the axes, at `height` of the transform."""
    axes.annotate(
        text,
        xy=(1, height),
        xytext=(5, 0),
        xycoords=transform,
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=GREY,
        annotation_clip=False,
    )


def _check_episode(seen: Array, taken: Array, earned: Array, q: Array | None) -> None:
    if seen.ndim not in (2, 4) or seen.size == 0:
        raise ValueError(f"observations: shape {seen.shape} is not [T, D] or [T, H, W, C]")
    steps = len(seen)
    for field, array in (("actions", taken), ("rewards", earned)):
        if array.shape != (steps,):
            raise ValueError(f"{field}: shape {array.shape} is not [T] with T = {steps}")
    if q is not None and (q.ndim != 2 or len(q) != steps):
        raise ValueError(f"q: shape {q.shape} is not [T, A] with T = {steps}")
    if not np.issubdtype(taken.dtype, np.integer):
        raise ValueError(f"actions: {taken.dtype} is not an integer type")
    if taken.min() < 0 or (q is not None and taken.max() >= q.shape[1]):
        count = "A" if q is None else q.shape[1]
        raise ValueError(f"actions: {taken.min()} to {taken.max()} are not in [0, {count})")


def _rows_height(rows: int) -> float:
    return min(0.3 + 0.16 * rows, 2.4)


def _strip_height(images: Array) -> float:
    _, height, width, _ = images.shape
    slot = 0.85 * WIDTH / min(len(images), FRAMES)
    return min(slot * height / width, 2.0) + 0.25


def _cells(axes: Axes, values: Array, **colors: Any) -> Any:
    """Draw values [T, rows] with time to the right and row 0 on top."""
    from matplotlib.ticker import MaxNLocator

    steps, rows = values.shape
    gap = 0.5 if steps <= 80 and rows <= 40 else 0
    x, y = np.arange(steps + 1) - 0.5, np.arange(rows + 1) - 0.5
    mesh = axes.pcolormesh(x, y, values.T, edgecolors="white", linewidth=gap, **colors)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=min(rows, 8), integer=True))
    return mesh


def _heat(axes: Axes, values: Array, cmap: str | None = None) -> None:
    """A heat map [T, rows]; by default white is zero, blue is below it."""
    limit = np.abs(values).max()
    ...
