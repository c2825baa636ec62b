"""The notebook that reads a run back, executed as Jupyter does it: after a run, and where only the figures are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from readme import ROOT

NOTEBOOK = ROOT / "docs" / "notebooks" / "read-a-run.ipynb"
FIGURES = ("evaluation/summary.json", "evaluation/plots/training.json")


def executed(project: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[Any]]:
    """All that it says of a project, and its pictures."""
    folder = project / "docs" / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("JUPYTER_PATH", str(Path(sys.prefix) / "share" / "jupyter"))  # the kernel of this environment
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    told = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return "\n".join(told), [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]


def test_it_is_committed_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_where_only_the_figures_of_the_last_commit_are_it_says_what_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone with an empty cache, and the remote that comes with it."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    said, pictures = executed(clone, monkeypatch)
    summary = json.loads(subprocess.check_output(
        [sys.executable, "-c", "import dvc.api; print(dvc.api.read('artifacts/evaluation/summary.json'))"], cwd=clone
    ))  # fmt: skip
    assert f"{summary['gold']:.3f}" in said and f"{summary['difference']['gold']:.3f}" in said
    assert len(pictures) == 1
    for absent in ("cycle 1: its answers", "the answers are not here", "MLflow has no run here", "not in this MLflow"):
        assert absent in said
