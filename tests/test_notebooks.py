"""Every notebook runs from top to bottom, shows its pictures and leaves nothing behind."""

import ast
import re
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
    "bandits": {"updates = 213": "updates = 20", "machines = 2_000": "machines = 10"},
    "game_with_partial_view": {"total_steps=96_000": "total_steps=4_480"},
    "language": {
        "COUNT = 10_000": "COUNT = 200",
        "total_steps=199_680": "total_steps=20_480",
        "updates=8": "updates=1",
        "asked = 2_000": "asked = 200",
    },
    "own_agent": {"total_steps=99_328": "total_steps=26_624"},
    "own_environment": {"total_steps=99_840": "total_steps=10_240"},
    "recommender": {"total_steps=299_008": "total_steps=20_480", "users = 1_000": "users = 10"},
    "robot": {"total_steps=800_768": "total_steps=40_960"},
    "sweep": {
        "total_steps=59_904": "total_steps=10_240",
        r"\"gru\", \"lru\", \"mingru\"]": r"\"gru\"]",
    },
}


def test_there_are_notebooks():
    assert "quickstart" in [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_as_it_ran_from_top_to_bottom(path):
    """Pictures are there, nothing was complained of, and no folder of a machine is told."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [x for cell in code for x in cell.outputs]
    assert not [x for x in outputs if x.output_type == "error" or x.get("name") == "stderr"]
    assert any("image/png" in x.get("data", {}) for x in outputs)
    assert path.stat().st_size < 300_000
    assert not re.search(r"/(home|root|tmp|work|Users)/", path.read_text())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_first_installs_what_is_missing(path):
    notebook = nbformat.read(path, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert 'find_spec("memrl_jax") is None' in first.source
    assert "%pip install" in first.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_uses_public_names_only(path):
    """What it imports of the library is there, and has no leading underscore."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    python = re.sub(r"^(\s*)%.*$", r"\1pass", "\n".join(cells), flags=re.MULTILINE)
    for node in ast.walk(ast.parse(python)):
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_") or node.attr in ("_replace", "_asdict")
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("memrl_jax"):
            for name in node.names:
                assert not re.search(r"(^|\.)_", f"{node.module}.{name.name}")
                exec(ast.unparse(node), {})  # it is there


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
