"""Test that the notebook of the manual runs as a user would run it, and that it is short."""

import os
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebook.ipynb"
MAX_LINES = 15


def test_the_notebook_trains_a_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All cells run, except the installation, which has taken place."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    install, *cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert install.source.startswith("%pip install")
    assert not any(cell.outputs or cell.execution_count for cell in (install, *cells))
    lines = [line for cell in (install, *cells) for line in cell.source.splitlines() if line.strip()]
    assert len(lines) <= MAX_LINES
    notebook.cells.remove(install)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (shown,) = [output.data["text/plain"] for output in cells[-1].outputs if output.output_type == "execute_result"]
    assert float(shown) > 70 and (tmp_path / "student" / "student.safetensors").exists()
