"""The notebook runs from top to bottom on lenses of the demo, and what it stores is its own."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from . import pages

NOTEBOOK = pages.ROOT / "docs" / "notebooks" / "reading.ipynb"
LIMIT_S = 300
"""Only a kernel that hangs takes so long for one cell, or to start."""


@pytest.fixture
def folder(tmp_path: Path, demo_lenses: Path, demo_cache: Path) -> Path:
    """As `make demo` leaves it, with fewer heads."""
    (tmp_path / ".demo").mkdir()
    (tmp_path / "docs" / "notebooks").mkdir(parents=True)
    (tmp_path / ".demo" / "lenses").symlink_to(demo_lenses)
    (tmp_path / ".demo" / "cache").symlink_to(demo_cache)
    return tmp_path / "docs" / "notebooks"


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.slow
def test_it_runs(folder: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=LIMIT_S,
        startup_timeout=LIMIT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    shown = outputs(notebook)
    assert not [output for output in shown if output.output_type == "error" or output.get("name") == "stderr"]
    said = "".join(output.get("text", "") for output in shown)
    assert "layers (0, 3) heads (1, 4)" in said
    results = "".join(output.get("data", {}).get("text/plain", "") for output in shown)
    for name in ("PageData: 1 prompt, 2 heads", "PageData: 2 prompts", "Evaluation: 2 lenses", "Ablations: "):
        assert f"<{name}" in results
    assert [output for output in shown if "image/png" in output.get("data", {})]


def test_its_stored_outputs_are_of_a_whole_run_and_name_no_place() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for output in outputs(notebook):
        assert output.get("name") != "stderr" and output.output_type != "error"
        assert not re.search(r"(^|\s)(/\w|[A-Z]:\\)", output.get("text", ""))
