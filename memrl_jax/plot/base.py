"""What all pictures share: colours, the figure, its file and the pieces of its axes.

Figures are made without pyplot, so no backend, display or global state is touched.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from memrl_jax.run import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]

# Okabe & Ito (2008), distinguishable with any colour vision; their yellow is too pale on white.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
COLORS = (BLUE, VERMILLION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#333333")
DASHES = ("-", "--", "-.", ":")
STYLES = [(COLORS[i % len(COLORS)], DASHES[i % len(DASHES)]) for i in range(28)]  # all differ
GREY = "#666666"
WIDTH, DPI = 8.0, 150  # inches, pixels per inch
PLAIN: dict[str, Any] = {"parse_math": False}  # for users' texts: dollar signs are literal


def new_figure(height: float, title: str | None) -> Figure:
    """Return a figure without axes."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout=layout, facecolor="white")
    if title is not None:
        figure.suptitle(wrap(title, 66), fontsize=13, fontweight="bold", **PLAIN)
    return figure


def wrap(text: str, width: int) -> str:
    """Wrap a text into lines of at most `width` letters."""
    return text if len(text) <= width else textwrap.fill(text, width)


def save(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    """Return the figure, written to a .png, all of it or nothing, unless `path` is None."""
    if path is not None:
        with replacing(path, ".png") as temporary:
            figure.savefig(temporary, format="png", dpi=DPI)
    return figure


@contextmanager
def replacing(path: str | os.PathLike[str], suffix: str) -> Iterator[Path]:
    """Yield a temporary file, which becomes `path` in the end unless an exception is raised."""
    if Path(path).suffix != suffix:
        raise ValueError(f"path: {str(path)!r} does not end in {suffix}")
    temporary = files.temporary(Path(path))
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def integer_ticks(axis: Any, most: int) -> None:
    """Put ticks on an axis at whole numbers, with at most `most` intervals between them."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axis.set_major_formatter(EngFormatter(sep=""))  # 200k
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def give_room(axes: Axes) -> None:
    """Extend the y axis to 0 where small differences would otherwise look large."""
    low, high = axes.dataLim.intervaly
    if high - low < 0.1 * max(abs(low), abs(high)):
        axes.update_datalim([(axes.dataLim.x0, 0.0)])
        axes.autoscale_view()


def note(axes: Axes, text: str, at: Any, offset: Any, coordinates: Any, align: Any) -> None:
    """Write small grey text, inside or outside the axes."""
    style: dict[str, Any] = {"ha": align, "va": "center", "fontsize": 9, "color": GREY, **PLAIN}
    axes.annotate(text, at, offset, coordinates, "offset points", annotation_clip=False, **style)


def cells(axes: Axes, values: Array, label: str, **colors: Any) -> Any:
    """Draw values [T, rows] as cells, time to the right and row 0 on top."""
    steps, rows = values.shape
    gap = 0.5 if steps <= 80 and rows <= 40 else 0
    x, y = np.arange(steps + 1) - 0.5, np.arange(rows + 1) - 0.5
    mesh = axes.pcolormesh(x, y, values.T, edgecolors="white", linewidth=gap, **colors)
    integer_ticks(axes.yaxis, 7)
    axes.set(ylabel=label, ylim=(rows - 0.5, -0.5))
    axes.spines[:].set_color("#BBBBBB")
    return mesh


def colorbar(mesh: Any, **options: Any) -> None:
    """Add a colour bar to the right of a mesh."""
    beside = mesh.axes.inset_axes((1.01, 0, 0.012, 1))
    mesh.figure.colorbar(mesh, cax=beside, **options).outline.set_visible(False)
    beside.tick_params(labelsize=8)
