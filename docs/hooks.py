"""What mkdocs calls as it builds the site: adds generated pages, and turns TeX into MathML."""

import html
import re
from typing import Any

from generate import agents, api, drawings, environments, memories, notebooks, results
from latex2mathml.converter import convert
from mkdocs.structure.files import File

SECTIONS = {
    "Memories": memories,
    "Agents": agents,
    "Environments": environments,
    "Results": results,
    "Notebooks": notebooks,
    "API": api,
}
TEX = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)
DRAWING = re.compile(r"<!-- drawing: (\w+) -->")
_generated: dict[str, str | bytes] = {}


def on_config(config: Any) -> Any:
    """Generate all pages, and enter them in the navigation."""
    _generated.clear()
    for entry in config.nav:
        ((title, pages),) = entry.items()
        if title in SECTIONS:
            made = SECTIONS[title].pages()
            _generated.update(made)
            pages.extend(x for x in made if x.endswith(".md") and x not in pages)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages and pictures to the files of the site."""
    for path, content in _generated.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put drawings in the place of their names."""
    return DRAWING.sub(lambda match: drawings.DRAWINGS[match[1]](), markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Turn equations into MathML, which browsers draw without a script."""
    return TEX.sub(lambda match: _mathml(match[1], match[2]), content)


def _mathml(tag: str, text: str) -> str:
    tex = html.unescape(text).strip()[2:-2].strip()  # without \( \) or \[ \]
    return convert(tex, display="block" if tag == "div" else "inline")
