"""Run notebooks from top to bottom and store them with their pictures, in fewer colours.

    python -m benchmarks.notebooks [NAME ...]

Without names, all of them. Afterwards look at what is in the pictures: the text speaks of it.
"""

import sys
import tempfile
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
COLOURS = 256


def run(notebook: Any) -> None:
    """Execute a notebook in place, in an empty folder; what the compiler says is left out."""
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=None, resources=resources, record_timing=False)
        client.execute()
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [x for x in cell.outputs if x.get("name") != "stderr"]
            for output in cell.outputs:
                shrink(output.get("data", {}))


def shrink(data: dict[str, str]) -> None:
    """Replace a picture by one of a palette, a third as large."""
    if "image/png" in data:
        picture = Image.open(BytesIO(b64decode(data["image/png"]))).convert("RGB")
        small = BytesIO()
        picture.quantize(COLOURS, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
        data["image/png"] = b64encode(small.getvalue()).decode()


def main() -> None:
    for path in [NOTEBOOKS / f"{x}.ipynb" for x in sys.argv[1:]] or sorted(NOTEBOOKS.glob("*")):
        notebook = nbformat.read(path, as_version=4)
        run(notebook)
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
