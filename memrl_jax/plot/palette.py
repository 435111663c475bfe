"""The colours of a film: a GIF has 256, and colour bars want to be told apart in all frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from memrl_jax.plot.base import Array

if TYPE_CHECKING:
    from PIL.Image import Image

COLORS, SHADES, GREYS = 256, 150, 16  # all there are; those that colour maps share; of text


def palette(frames: Sequence[Array], maps: Sequence[str]) -> Image:
    """Return an image whose palette suits frames [H, W, 3] of bytes and colour maps, by name.

    Colour maps get the same shades each, evenly over their range; what is left goes to the colours
    of the frames.
    """
    from matplotlib import colormaps
    from PIL import Image

    shades = [colormaps[name](np.linspace(0, 1, SHADES // len(maps)))[:, :3] for name in maps]
    greys = np.repeat(np.linspace(0, 1, GREYS)[:, None], 3, axis=1)
    colors = np.rint(255 * np.concatenate([greys, *shades])).astype(np.uint8)
    pixels = Image.fromarray(np.concatenate([frame[::2] for frame in frames]))
    rest = pixels.quantize(COLORS - len(colors), Image.Quantize.MAXCOVERAGE)
    image = Image.new("P", (1, 1))
    image.putpalette([*colors.ravel().tolist(), *(rest.getpalette() or [])][: 3 * COLORS])
    return image
