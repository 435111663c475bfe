"""Drawings in SVG, in the colours of the page."""

from collections.abc import Callable, Iterable

CELL = 92, 24  # width and height of a cell
NAMES = "observation", "action", "reward", "discount", "start", "last"


def _svg(width: int, height: int, label: str, parts: Iterable[str]) -> str:
    inside = "".join(parts)
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
    return f'<div class="drawing">{head}{inside}</svg></div>\n'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{text}</text>'


def _box(x: float, y: float, width: float, height: float, kind: str = "box") -> str:
    shape = f'x="{x}" y="{y}" width="{width}" height="{height}" rx="4"'
    return f'<rect {shape} class="{kind}"/>'


def _line(x: float, y: float, to_x: float, to_y: float, kind: str = "line") -> str:
    return f'<path d="M{x} {y} L{to_x} {to_y}" class="{kind}"/>'


def _arrow(x: float, y: float, to_x: float) -> str:
    head = f"M{to_x - 5} {y - 4} L{to_x} {y} L{to_x - 5} {y + 4}"
    return _line(x, y, to_x, y) + f'<path d="{head}" class="line"/>'


def segment() -> str:
    """Draw five actions and the six timesteps around them; an episode ends in between."""
    columns = [
        ("o₀", "0", "0", "1", "yes", ""),
        ("o₁", "a₀", "r₁", "1", "", ""),
        ("o₂", "a₁", "r₂", "0", "", "yes"),
        ("o₀", "0", "0", "1", "yes", ""),
        ("o₁", "a₃", "r₁", "1", "", ""),
        ("o₂", "a₄", "r₂", "1", "", ""),
    ]
    wide, high = CELL
    left, top = 92, 52
    parts = [
        _text(left - 10, top + 17 + i * high, name, anchor="end") for i, name in enumerate(NAMES)
    ]
    for t, column in enumerate(columns):
        x = left + t * wide
        parts += [_text(x + 36, 16, f"timestep {t}", "small")]
        for i, value in enumerate(column):
            marked = value == "yes" or (NAMES[i] == "discount" and value == "0")
            parts += [_box(x, top + i * high, 72, high - 4, "strong" if marked else "box")]
            parts += [_text(x + 36, top + 15 + i * high, value)]
        if t < 5:
            name = "ignored" if t == 2 else f"a{'₀₁₂₃₄'[t]}"
            parts += [_text(x + 82, 38, name, "small" if t == 2 else "")]
            parts += [_arrow(x + 68, 44, x + 96)]
    parts += [_text(left + 1.5 * wide - 10, 216, "one episode", "small")]
    parts += [_text(left + 4.5 * wide - 10, 216, "the next one", "small")]
    parts += [
        _line(left, 202, left + 3 * wide - 20, 202),
        _line(left + 3 * wide, 202, left + 6 * wide - 20, 202),
    ]
    return _svg(left + 6 * wide, 224, "A segment: five actions and six timesteps", parts)


def windows() -> str:
    """Draw a ring of timesteps, its write head, and windows that may and may not be drawn."""
    wide, left, head = 36, 20, 7
    told = "replay of one environment: 16 timesteps, the oldest is overwritten first"
    parts = [_text(left, 18, told, "small", "start")]
    for t in range(16):
        x = left + t * wide
        age = 16 + t if t < head else t
        parts += [
            _box(x, 30, wide - 4, 26, "strong" if age in (4, 12, 20) else "box"),
            _text(x + 16, 48, str(age)),
        ]
    cut = left + head * wide - 2
    parts += [
        _line(cut, 24, cut, 110, "wrong"),
        _text(cut, 124, "write head: 22 is new, 7 is old", "small"),
    ]
    for start, y, kind in ((1, 70, "right"), (10, 70, "right"), (4, 92, "wrong")):
        parts += [_box(left + start * wide, y, 5 * wide - 4, 12, kind)]
    parts += [_text(left + 16 * wide, 124, "coloured: an episode starts", "small", "end")]
    return _svg(left + 16 * wide + 20, 134, "Windows of replay", parts)


def lanes() -> str:
    """Draw how points and seeds become the lanes of one compiled program."""
    points = ("1e-4", "3e-4", "1e-3")
    parts = [_text(70, 16, "learning_rate", "small"), _text(250, 16, "seeds 0 to 3", "small")]
    for i, rate in enumerate(points):
        y = 28 + i * 34
        parts += [_box(20, y, 100, 26), _text(70, y + 17, rate)]
        for seed in range(4):
            parts += [
                _box(150 + seed * 50, y, 44, 26, "strong"),
                _text(172 + seed * 50, y + 17, str(4 * i + seed)),
            ]
    parts += [_arrow(362, 75, 400), _text(500, 16, "one program, two devices", "small")]
    for device in range(2):
        y = 40 + device * 46
        parts += [
            _box(412, y, 200, 34, "off"),
            _text(512, y + 22, f"lanes {6 * device} to {6 * device + 5}"),
        ]
    return _svg(630, 136, "Points and seeds become lanes", parts)


DRAWINGS: dict[str, Callable[[], str]] = {"segment": segment, "windows": windows, "lanes": lanes}
