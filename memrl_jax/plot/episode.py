"""One episode, step by step."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from memrl_jax.plot.base import (
    GREEN,
    GREY,
    VERMILLION,
    Array,
    cells,
    colorbar,
    integer_ticks,
    new_figure,
    note,
    save,
)
from memrl_jax.statistics import finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FRAMES = 12  # most images shown of one episode
ACTIONS = 1000  # most that are drawn apart where there are no Q values


def episode(
    observations: ArrayLike,
    actions: ArrayLike,
    rewards: ArrayLike,
    path: str | os.PathLike[str] | None = None,
    *,
    q: ArrayLike | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the observation, the action taken, its reward and the Q values, step by step.

    `observations` [T, D] become a heat map, [T, H, W, C] a strip of at most 12 frames (grey,
    RGB, or else the colour of the strongest channel); `actions` [T] are integers; `rewards`
    [T] stand below the action that earned them; `q` is [T, A], with a dot on the action
    taken. Writes a PNG, 1200 pixels wide, to `path`, all of it or nothing. Raises ValueError
    on shapes that do not agree, values that are not finite, an action outside [0, A), with A = 1000
    where there is no `q`, and a `path` that is not a .png.
    """
    seen, taken = np.asarray(observations), np.asarray(actions)
    earned, values = finite("rewards", rewards), None if q is None else finite("q", q)
    choices = np.arange(_count_actions(seen, taken, earned, values))
    images = seen.ndim == 4
    rows = min(0.4 + 0.15 * len(choices), 2.0)
    heights = [1.0 if images else min(max(0.4 + 0.15 * seen.shape[1], 0.95), 2.4), rows, 0.9]
    heights += [] if values is None else [rows]
    figure = new_figure(sum(heights) + 1.0, title)
    top, *panels = figure.subplots(len(heights), sharex=True, height_ratios=heights)
    (_strip if images else _heat)(top, seen)
    cells(panels[0], taken[:, None] == choices, "action", cmap="Blues", vmin=0, vmax=1.3)
    _bars(panels[1], earned)
    if values is not None:
        colorbar(cells(panels[2], values, "Q value", cmap="viridis"))
        panels[2].plot(taken, "ko", markersize=min(6, 500 / len(taken)), markeredgecolor="white")
    integer_ticks(panels[-1].xaxis, 12)
    panels[-1].set(xlabel="step of the episode", xlim=(-0.5, len(taken) - 0.5))
    figure.align_ylabels()
    return save(figure, path)


def _count_actions(seen: Array, taken: Array, earned: Array, q: Array | None) -> int:
    finite("observations", seen)
    if seen.ndim not in (2, 4) or seen.size == 0:
        raise ValueError(f"observations: shape {seen.shape} is not [T, D] or [T, H, W, C]")
    for field, array in (("actions", taken), ("rewards", earned)):
        if array.shape != seen.shape[:1]:
            raise ValueError(f"{field}: shape {array.shape} is not [T] with T = {len(seen)}")
    if q is not None and (q.ndim != 2 or len(q) != len(seen)):
        raise ValueError(f"q: shape {q.shape} is not [T, A] with T = {len(seen)}")
    if not np.issubdtype(taken.dtype, np.integer):
        raise ValueError(f"actions: {taken.dtype} is not an integer type")
    count = ACTIONS if q is None else q.shape[1]
    if taken.min() < 0 or taken.max() >= count:
        raise ValueError(f"actions: {taken.min()} to {taken.max()} are not in [0, {count})")
    return int(taken.max()) + 1 if q is None else count


def _heat(axes: Axes, values: Array) -> None:
    limit = float(np.abs(values).max()) or 1.0
    cmap, low = ("RdBu_r", -limit) if values.min() < 0 else ("Greys", 0.0)  # zero is white
    colorbar(cells(axes, values, "observation", cmap=cmap, vmin=low, vmax=limit))


def _strip(axes: Axes, images: Array) -> None:
    """Place evenly spaced frames, first and last included, in equal slots along time."""
    count = min(len(images), FRAMES)
    slot = len(images) / count
    colors = rgb(images)
    for i, step in enumerate(np.linspace(0, len(images) - 1, count).round().astype(int)):
        place = (i * slot - 0.5 + 0.03 * slot, 0, 0.94 * slot, 0.85)
        frame = axes.inset_axes(place, transform=axes.transData, xticks=[], yticks=[])
        frame.imshow(colors[step], interpolation="nearest")
        frame.set_title(str(step), fontsize=8, pad=2)
    axes.set(ylabel="observation", yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def rgb(images: Array, span: tuple[float, float] | None = None) -> Array:
    """Return colours [T, H, W, 3] in [0, 1] of images [T, H, W, C], scaled by `span`."""
    from matplotlib import colormaps

    low, high = span or (images.min(), images.max())
    low, high = min(0, low), 1 if high <= 1 else 255 if images.dtype == np.uint8 else high
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
    note(axes, f"sum\n{rewards.sum():.4g}", (1, 0.5), (5, 0), axes.transAxes, "left")
