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

from memrl_jax.statistics import bootstrap, carry_forward

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
        axes.axhline(height, color=GREY, linewidth=1.2, linestyle="--", zorder=1.9)
        _note(axes, label, (1, height), (5, 0), axes.get_yaxis_transform(), "left")
    _decorate(axes, xlabel, ylabel)
    _note(axes, f"IQM and {100 * level:g} % interval", (1, 0), (0, -27), axes.transAxes, "right")
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
    """Draw what was seen, the action taken, its reward and the Q values, step by step.

    `observations` [T, D] become a heat map, [T, H, W, C] a strip of at most 12 frames (grey,
    RGB, or else the colour of the strongest channel); `actions` [T] are integers; `rewards`
    [T] stand below the action that earned them; `q` is [T, A], with a dot on the action
    taken. Writes a PNG, 1200 pixels wide, to `path`, all of it or nothing. Raises ValueError
    on shapes that do not agree, an action outside [0, A) and a `path` that is not a .png.
    """
    seen, taken, earned = np.asarray(observations), np.asarray(actions), np.asarray(rewards)
    values = None if q is None else np.asarray(q)
    choices = np.arange(_count_actions(seen, taken, earned, values))
    images = seen.ndim == 4
    rows = min(0.4 + 0.15 * len(choices), 2.0)
    heights = [1.0 if images else min(max(0.4 + 0.15 * seen.shape[1], 0.95), 2.4), rows, 0.9]
    heights += [] if values is None else [rows]
    figure = _figure(sum(heights) + 1.0, title)
    top, *panels = figure.subplots(len(heights), sharex=True, height_ratios=heights)
    (_strip if images else _heat)(top, seen)
    _cells(panels[0], taken[:, None] == choices, "action", cmap="Blues", vmin=0, vmax=1.3)
    _bars(panels[1], earned)
    if values is not None:
        _scale(_cells(panels[2], values, "Q value", cmap="viridis"))
        panels[2].plot(taken, "ko", markersize=min(6, 500 / len(taken)), markeredgecolor="white")
    _integers(panels[-1].xaxis, 12)
    panels[-1].set(xlabel="step of the episode", xlim=(-0.5, len(taken) - 0.5))
    figure.align_ylabels()
    return _finished(figure, path)


def _figure(height: float, title: str | None) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout=layout, facecolor="white")
    if title is not None:
        figure.suptitle(title, fontsize=13, fontweight="bold")
    return figure


def _finished(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    if path is None:
        return figure
    if Path(path).suffix != ".png":
        raise ValueError(f"path: {str(path)!r} does not end in .png")
    temporary = Path(path).with_name(f".{Path(path).name}.{os.getpid()}")
    try:
        figure.savefig(temporary, format="png", dpi=DPI)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return figure


def _started(label: str, steps: ArrayLike, values: ArrayLike) -> tuple[Array, Array]:
    """Carry values over NaNs and drop the points before all seeds have one."""
    x, y = np.asarray(steps), np.asarray(values, np.float64)
    if y.ndim != 2 or y.size == 0 or x.shape != y.shape[1:]:
        raise ValueError(f"{label!r}: steps {x.shape}, values {y.shape} are not [P], [seeds, P]")
    y = carry_forward(y)
    start = np.count_nonzero(np.isnan(y).any(axis=0))
    if start == len(x):
        raise ValueError(f"{label!r}: seed {np.isnan(y[:, -1]).argmax()} is NaN throughout")
    return x[start:], y[:, start:]


def _curve(axes: Axes, label: str, x: Array, y: Array, level: float, style: Any) -> None:
    color, dashes = style
    middle, low, high = bootstrap(y, level=level)
    name = f"{label} ({len(y)} seed{'s' if len(y) > 1 else ''})"
    marker = "." if len(x) <= 30 else ""  # few points: show where they were measured
    axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
    axes.plot(x, middle, color=color, linestyle=dashes, linewidth=1.8, marker=marker, label=name)


def _decorate(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set(xlabel=xlabel, ylabel=ylabel)
    _integers(axes.xaxis, 10)
    axes.margins(x=0.01)
    axes.grid(color="#DDDDDD", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    longest = max(map(len, axes.get_legend_handles_labels()[1]))
    columns = max(1, 85 // (longest + 8))  # above the axes fit rows of some 85 letters
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1.01)}
    axes.legend(**place, ncols=columns, handlelength=3, frameon=False)


def _integers(axis: Any, most: int) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axis.set_major_formatter(EngFormatter(sep=""))  # 200k
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def _note(axes: Axes, text: str, at: Any, offset: Any, coordinates: Any, align: Any) -> None:
    style: dict[str, Any] = {"ha": align, "va": "center", "fontsize": 9, "color": GREY}
    axes.annotate(text, at, offset, coordinates, "offset points", annotation_clip=False, **style)


def _count_actions(seen: Array, taken: Array, earned: Array, q: Array | None) -> int:
    if seen.ndim not in (2, 4) or seen.size == 0:
        raise ValueError(f"observations: shape {seen.shape} is not [T, D] or [T, H, W, C]")
    for field, array in (("actions", taken), ("rewards", earned)):
        if array.shape != seen.shape[:1]:
            raise ValueError(f"{field}: shape {array.shape} is not [T] with T = {len(seen)}")
    if q is not None and (q.ndim != 2 or len(q) != len(seen)):
        raise ValueError(f"q: shape {q.shape} is not [T, A] with T = {len(seen)}")
    if not np.issubdtype(taken.dtype, np.integer):
        raise ValueError(f"actions: {taken.dtype} is not an integer type")
    count = int(taken.max()) + 1 if q is None else q.shape[1]
    if taken.min() < 0 or taken.max() >= count:
        raise ValueError(f"actions: {taken.min()} to {taken.max()} are not in [0, {count})")
    return count


def _cells(axes: Axes, values: Array, label: str, **colors: Any) -> Any:
    """Draw values [T, rows] as cells, time to the right and row 0 on top."""
    steps, rows = values.shape
    gap = 0.5 if steps <= 80 and rows <= 40 else 0
    x, y = np.arange(steps + 1) - 0.5, np.arange(rows + 1) - 0.5
    mesh = axes.pcolormesh(x, y, values.T, edgecolors="white", linewidth=gap, **colors)
    _integers(axes.yaxis, 7)
    axes.set(ylabel=label, ylim=(rows - 0.5, -0.5))
    axes.spines[:].set_color("#BBBBBB")
    return mesh


def _scale(mesh: Any) -> None:
    beside = mesh.axes.inset_axes((1.01, 0, 0.012, 1))
    mesh.figure.colorbar(mesh, cax=beside).outline.set_visible(False)
    beside.tick_params(labelsize=8)


def _heat(axes: Axes, values: Array) -> None:
    limit = float(np.abs(values).max()) or 1.0
    cmap, low = ("RdBu_r", -limit) if values.min() < 0 else ("Greys", 0.0)  # zero is white
    _scale(_cells(axes, values, "observation", cmap=cmap, vmin=low, vmax=limit))


def _strip(axes: Axes, images: Array) -> None:
    """Place evenly spaced frames, first and last included, in equal slots along time."""
    count = min(len(images), FRAMES)
    slot = len(images) / count
    colors = _rgb(images)
    for i, step in enumerate(np.linspace(0, len(images) - 1, count).round().astype(int)):
        place = (i * slot - 0.5 + 0.03 * slot, 0, 0.94 * slot, 0.85)
        frame = axes.inset_axes(place, transform=axes.transData, xticks=[], yticks=[])
        frame.imshow(colors[step], interpolation="nearest")
        frame.set_title(str(step), fontsize=8, pad=2)
    axes.set(ylabel="observation", yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _rgb(images: Array) -> Array:
    """Colours [T, H, W, 3] in [0, 1] of images [T, H, W, C]."""
    from matplotlib import colormaps

    low, high = min(0, images.min()), images.max()
    high = 1 if high <= 1 else 255 if images.dtype == np.uint8 else high
    light = (images - low) / (high - low)
    if images.shape[-1] in (1, 3):
        return np.broadcast_to(light, (*images.shape[:-1], 3))
    palette = colormaps["turbo"](np.linspace(0.1, 0.9, images.shape[-1]))[:, :3]
    return np.where(light.max(-1, keepdims=True) > 0, palette[light.argmax(-1)], 1.0)


def _bars(axes: Axes, rewards: Array) -> None:
    colors = np.where(rewards < 0, VERMILLION, GREEN)
    width = 0.9 if len(rewards) <= 80 else 1.0
    axes.bar(np.arange(len(rewards)), rewards, width, color=colors, antialiased=False)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_ylabel("reward")
    axes.spines[["top", "right"]].set_visible(False)
    _note(axes, f"sum\n{rewards.sum():.4g}", (1, 0.5), (5, 0), axes.transAxes, "left")
