"""The 256 colours of a GIF, chosen so that colour bars look right in all frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from memrl_jax.plot.base import Array

if TYPE_CHECKING:
    from PIL.Image import Image

COLORS, SHADES, GREYS = 256, 120, 16  # in all; shared among colour maps; for text
FREQUENT = 4000  # the most frequent colours of frames, which are considered


def palette(frames: Sequence[Array], maps: Sequence[str]) -> Image:
    """Return an image whose palette suits frames [H, W, 3] of bytes and colour maps, by name.

    Colour maps get equally many shades, spaced evenly over their range. Then the colour of the
    frames that is farthest from the whole palette is added, again and again.
    """
    from matplotlib import colormaps
    from PIL import Image

    shades = [colormaps[name](np.linspace(0, 1, SHADES // len(maps)))[:, :3] for name in maps]
    greys = np.repeat(np.linspace(0, 1, GREYS)[:, None], 3, axis=1)
    colors = [*np.rint(255 * np.concatenate([greys, *shades])).astype(np.int32)]
    found = _frequent(frames)
    distance = np.min([_distance(found, color) for color in colors], axis=0)
    while len(colors) < COLORS and distance.max() > 0:
        colors.append(found[distance.argmax()])
        distance = np.minimum(distance, _distance(found, colors[-1]))
    image = Image.new("P", (1, 1))
    image.putpalette(np.ravel(colors).tolist())
    return image


def _distance(colors: Array, color: Array) -> Array:
    return np.square(colors - color).sum(axis=1)


def _frequent(frames: Sequence[Array]) -> Array:
    """Return the most frequent colours [n, 3] of the frames."""
    pixels = np.concatenate([frame.reshape(-1, 3) for frame in frames]).astype(np.int32)
    packed = pixels @ np.array([1 << 16, 1 << 8, 1], np.int32)
    colors, times = np.unique(packed, return_counts=True)
    most = colors[np.argsort(-times, kind="stable")[:FREQUENT]]
    return np.stack([most >> 16, (most >> 8) & 255, most & 255], axis=1)
