"""The figure of one episode: its observation, and the agent's record up to the present step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from memrl_jax.plot import seen
from memrl_jax.plot.addresses import by_head, by_hop
from memrl_jax.plot.base import Array, cells, colorbar, integer_ticks, new_figure
from memrl_jax.plot.seen import Show, Span
from memrl_jax.statistics import finite

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from memrl_jax.rollout import Episode

DRAWN = ("attention", "write", "read", "q")  # entries of a record
Spans = Mapping[str, Span]  # name of what is drawn -> its range


def spans(episodes: Sequence[Episode]) -> Spans:
    """Return the ranges of everything that is drawn, over all episodes."""
    out: dict[str, Span] = {}
    for episode in episodes:
        record = {k: finite(k, x) for k, x in episode.record.items() if k in DRAWN}
        views = {f"seen {k}": x for k, x in seen.parts(episode.observation).items()}
        for name, x in {"action": episode.action, **record, **views}.items():
            low, high = out.get(name, (np.inf, -np.inf))
            out[name] = min(low, float(np.min(x))), max(high, float(np.max(x)))
    return out


def stage(episode: Episode, name: str, ranges: Spans) -> tuple[Figure, list[Show]]:
    """Return the figure of an episode and functions that update its parts to a step."""
    heads, views = _heads(episode, ranges), seen.parts(episode.observation)
    actions = episode.record["q"].shape[1] if "q" in ranges else int(ranges["action"][1]) + 1
    heights = [1.8 if label.startswith("attention") else 1.3 for label in heads]
    heights += [min(0.5 + 0.2 * actions, 1.6)]
    beside = [seen.height(part, ranges[f"seen {key}"]) for key, part in views.items()]
    figure = new_figure(max(sum(heights), sum(beside), 2.2) + 1.2, " ")
    columns = figure.add_gridspec(1, 2, width_ratios=[1, 1.6])
    left = columns[0].subgridspec(len(beside), 1, height_ratios=beside)
    right = columns[1].subgridspec(len(heights), 1, height_ratios=heights)
    *panels, values = right.subplots(sharex=True, squeeze=False)[:, 0]
    shows = [_title(figure, episode, name)]
    for axes, (key, part) in zip(left.subplots(squeeze=False)[:, 0], views.items(), strict=True):
        shows.append(seen.panel(axes, key, part, ranges[f"seen {key}"]))
    for axes, (label, (table, colors)) in zip(panels, heads.items(), strict=True):
        rows = "past step" if label.startswith("attention") else "slot"
        shows.append(_so_far(axes, table, rows, **colors))
        axes.set_title(label, loc="left", fontsize=10)
    shows += _acted(values, episode, actions, ranges)
    figure.align_ylabels([*panels, values])
    return figure, shows


def _heads(episode: Episode, ranges: Spans) -> dict[str, tuple[Array, Any]]:
    """Return attention, write and read weights, with colours on the scales of all episodes."""
    tops = {kind: ranges[kind][1] for kind in DRAWN if kind in ranges}
    record = episode.record
    heads = by_hop(record, top=tops.get("attention")) | by_head(record, "write", tops.get("write"))
    return heads | by_head(record, "read", tops.get("read"))


def _title(figure: Figure, episode: Episode, name: str) -> Show:
    text = figure.suptitle(" ", x=0.01, ha="left", fontsize=12, fontweight="bold")
    total = np.cumsum(episode.reward, dtype=np.float64)
    last = len(episode.action) - 1

    def show(t: int) -> list[Artist]:
        step = f"{name}step {t} / {last}"
        text.set_text(f"{step}    reward {episode.reward[t]:.4g}    return {total[t]:.4g}")
        return [text]

    return show


def _acted(axes: Axes, episode: Episode, actions: int, ranges: Spans) -> list[Show]:
    """Draw the actions taken, over the Q values if the record has them."""
    integer_ticks(axes.xaxis, 8)
    axes.set(xlabel="step", xlim=(-0.5, len(episode.action) - 0.5))
    if "q" not in ranges:
        axes.set_title("action taken", loc="left", fontsize=10)
        taken = episode.action[:, None] == np.arange(actions)
        return [_so_far(axes, taken, "action", cmap="Blues", vmin=0, vmax=1.3)]
    axes.set_title("action values, and the action taken", loc="left", fontsize=10)
    low, high = ranges["q"]
    q = np.asarray(episode.record["q"])
    values = _so_far(axes, q, "action", cmap="viridis", vmin=low, vmax=high)
    return [values, _taken(axes, episode.action)]


def _so_far(axes: Axes, table: Array, label: str, **colors: Any) -> Show:
    """Draw the columns of a table [T, rows] up to a step."""
    mesh = cells(axes, table, label, **colors)
    colorbar(mesh)
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
