"""Pictures of the states of POPGym's tasks: everything, also what an agent does not see."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from memrl_jax.environments.popgym.control import Motion
from memrl_jax.environments.popgym.render import Board, boards
from memrl_jax.plot.base import BLUE, GREY, PLAIN, VERMILLION, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def state(
    state: Any, path: str | os.PathLike[str] | None = None, *, title: str | None = None
) -> Figure:
    """Draw a state of one of POPGym's tasks: cards and boards as cells, control as it moves.

    Writes a PNG to `path`, all of it or nothing. Raises TypeError for a state of anything else, and
    ValueError for a `path` that is not a .png.
    """
    shown = boards(state)
    moves = isinstance(state, Motion)
    heights = [3.5] if moves else [0.45 * len(board.cells) + 0.5 for board in shown]
    figure = new_figure(sum(heights) + 0.6, title)
    axes = figure.subplots(len(heights), height_ratios=heights, squeeze=False)[:, 0]
    if moves:
        (_pendulum if len(state.physics) == 2 else _cart)(axes[0], np.asarray(state.physics))
    else:
        for one, board in zip(axes, shown, strict=True):
            _cells(one, board)
    return save(figure, path)


def _cells(axes: Axes, board: Board) -> None:
    """Draw the cells of a board with what is in them."""
    rows, columns = board.cells.shape
    for (i, j), cell in np.ndenumerate(board.cells):
        axes.text(j, i, str(cell), ha="center", va="center", fontsize=10, **PLAIN)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), xticks=[], yticks=[])
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#DDDDDD")
    axes.tick_params(which="minor", length=0)
    axes.set_title(board.title, fontsize=10, loc="left", **PLAIN)


def _cart(axes: Axes, physics: np.ndarray) -> None:
    """Draw a cart and its pole, and how fast both move."""
    x, speed, angle, rate = physics
    tip = x + np.sin(angle), np.cos(angle)
    axes.plot([x - 0.25, x + 0.25], [0, 0], color=BLUE, linewidth=10, solid_capstyle="butt")
    axes.plot([x, tip[0]], [0, tip[1]], color=VERMILLION, linewidth=4)
    axes.axvline(-2.4, color=GREY, linestyle="--")
    axes.axvline(2.4, color=GREY, linestyle="--")
    axes.set(xlim=(-3, 3), ylim=(-0.2, 1.3), xlabel="position in m", ylabel="height in m")
    axes.set_title(f"{speed:+.2f} m/s; pole {rate:+.2f} rad/s", fontsize=10, loc="left")
    axes.set_aspect("equal")


def _pendulum(axes: Axes, physics: np.ndarray) -> None:
    """Draw a pendulum, upright at an angle of 0, and how fast it turns."""
    angle, rate = physics
    axes.plot([0, -np.sin(angle)], [0, np.cos(angle)], color=VERMILLION, linewidth=4)
    axes.plot(0, 0, "o", color=GREY)
    axes.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), xlabel="m", ylabel="m")
    axes.set_title(f"{rate:+.2f} rad/s", fontsize=10, loc="left")
    axes.set_aspect("equal")
