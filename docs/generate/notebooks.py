"""A page for every notebook: its text, code, and what it stored when it was run whole."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def pages() -> dict[str, str | bytes]:
    """Return the pages, their pictures, and a list of all."""
    found = {x.stem: json.loads(x.read_text())["cells"] for x in sorted(NOTEBOOKS.glob("*.ipynb"))}
    rows = "".join(
        f"- [{_title(cells)}]({name}.md): {name}.ipynb\n" for name, cells in found.items()
    )
    about = "Run them, change them: they are in the folder `notebooks` of the project."
    made: dict[str, str | bytes] = {"notebooks/index.md": f"# Notebooks\n\n{about}\n\n{rows}"}
    for name, cells in found.items():
        pictures = dict(_pictures(name, cells))
        text = "\n\n".join(_cell(name, number, cell) for number, cell in enumerate(cells))
        made |= {f"notebooks/{name}.md": text, **pictures}
    return made


def _title(cells: Any) -> str:
    return "".join(cells[0]["source"]).splitlines()[0].removeprefix("# ")


def _cell(name: str, number: int, cell: Any) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        return source
    shown = [_output(name, number, i, x) for i, x in enumerate(cell["outputs"])]
    return "\n\n".join([f"```python\n{source}\n```", *filter(None, shown)])


def _output(name: str, number: int, index: int, output: Any) -> str:
    """Return what was printed, or the picture."""
    if "image/png" in output.get("data", {}):
        return f"![Picture of cell {number}]({name}/{number}-{index}.png)"
    text = "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""


def _pictures(name: str, cells: Any) -> Iterator[tuple[str, bytes]]:
    for number, cell in enumerate(cells):
        for index, output in enumerate(cell.get("outputs", [])):
            if picture := output.get("data", {}).get("image/png"):
                yield f"notebooks/{name}/{number}-{index}.png", base64.b64decode(picture)
