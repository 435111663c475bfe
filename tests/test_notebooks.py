"""Every notebook runs from top to bottom, shows its pictures and leaves nothing behind."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
# What is written in a notebook, and what runs instead: the same with fewer updates.
SHORT = {
    "quickstart": {"total_steps=30_000": "total_steps=3_000"},
    "memories": {
        "total_steps=8_000": "total_steps=2_000",
        "length=200": "length=20",
        "reshape(3, 20, 10)": "reshape(3, 2, 10)",
        "arange(10, 201, 10)": "arange(10, 21, 10)",
    },
    "external_memory": {
        "steps = 1_000": "steps = 100",
        "epochs=30": "epochs=2",
        "total_steps=1_024_000": "total_steps=3_072",
    },
}


def test_there_are_notebooks():
    assert "quickstart" in [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_valid_and_stored_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
    """An error in a cell fails, and so does a warning, a missing picture or a file written."""
    source = path.read_text()
    for written, short in SHORT[path.stem].items():
        assert source.count(written) == 1
        source = source.replace(written, short)
    notebook = nbformat.reads(source, as_version=4)
    # Elsewhere than in the repository: notebooks need the installed package only.
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [x for cell in notebook.cells if cell.cell_type == "code" for x in cell.outputs]
    errors = "".join(x.text for x in outputs if x.get("name") == "stderr")
    assert "Warning" not in errors
    assert any("image/png" in x.get("data", {}) for x in outputs)
    assert not list(tmp_path.iterdir())
