"""Pieces of HTML: a page that is whole by itself, for phones and for desks, light and dark."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Literal

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #57606a; --line: #d8dee4;
  --page: #fff; --card: #f6f8fa; --accent: #0062a3; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ec; --soft: #9aa4ae; --line: #343b43;
  --page: #14171a; --card: #1d2126; --accent: #6cb6ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; background: var(--page);
  color: var(--text); font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: 1rem;
  border-top: 1px solid var(--line); overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere; }
p { margin: .5rem 0; max-width: 45rem; overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: .9rem; }
.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0;
  border-bottom: 1px solid var(--line); }
td { max-width: 28rem; overflow-wrap: break-word; }
th { font-weight: 600; white-space: nowrap; }
figure { margin: 1rem 0; }
figure .wide { margin: 0 0 .4rem; border: 1px solid var(--line); border-radius: .5rem;
  background: #fff; }
img { display: block; width: 100%; min-width: 38rem; height: auto; }
details { margin: .75rem 0; padding: .6rem .9rem; border: 1px solid var(--line);
  border-radius: .5rem; background: var(--card); }
summary { cursor: pointer; color: var(--accent); font-weight: 600; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
"""
# Whatever the page may come to hold, a browser then asks nobody for anything.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, below: str, sections: Iterable[str]) -> str:
    """Return a whole page, with a line of text below its title."""
    name = escape(title)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{name}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{name}</h1>
<p class="soft">{escape(below)}</p>
</header>
<main>
{"".join(sections)}</main>
</body>
</html>
"""


def section(title: str, *parts: str) -> str:
    """Return a part of the page, with a heading."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{''.join(parts)}</section>\n"


def heading(text: str) -> str:
    """Return a heading within a section."""
    return f"<h3>{escape(text)}</h3>\n"


def paragraph(text: str) -> str:
    """Return a paragraph of plain text."""
    return f"<p>{escape(text)}</p>\n"


def folded(title: str, *parts: str) -> str:
    """Return what is shown only once its title is clicked."""
    return f"<details>\n<summary>{escape(title)}</summary>\n{''.join(parts)}</details>\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """Return a table, which scrolls by itself where it is wider than the screen.

    The first cell of every row names it; the caption stands below.
    """
    below = f'<p class="soft">{escape(caption)}</p>\n' if caption else ""
    top = "".join(f'<th scope="col">{escape(x)}</th>' for x in head)
    lines = "".join(f"<tr>{_row(row)}</tr>\n" for row in rows)
    body = f"<thead><tr>{top}</tr></thead>\n<tbody>\n{lines}</tbody>"
    return f"{_wide('table')}\n<table>\n{body}\n</table>\n</div>\n{below}"


def _row(cells: Sequence[str]) -> str:
    first, *others = map(escape, cells)
    return f'<th scope="row">{first}</th>' + "".join(f"<td>{x}</td>" for x in others)


def picture(data: bytes, kind: Literal["png", "gif"], alt: str) -> str:
    """Return a picture, held in the page itself; `alt` says what is to be seen."""
    text = base64.b64encode(data).decode()
    image = f'<img src="data:image/{kind};base64,{text}" alt="{escape(alt)}">'
    return f"<figure>\n{_wide('picture')}\n{image}\n</div>\n</figure>\n"


def _wide(what: str) -> str:
    """Begin a box that scrolls sideways, also by keys."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{what}">'
