"""What a person sees at the end of a run."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from components.interface.fitting import reader
from components.interface.run_tables import evaluation_table
from components.place import Place


def show_result(repository: Path | None, evaluation: dict[str, Any] | None) -> None:
    """The end of a run: SFT against the candidate, where the report and the model are, and how to see more.

    Args:
        repository: where these are; None when the run was in a clone, which is gone.
    """
    if evaluation:
        print_whole(evaluation_table(evaluation))
    console = Console()
    for label, path in (("report", Place().evaluation / "report.html"), ("model", Place().selection / "policy")):
        if repository is not None and (repository / path).exists():
            console.print(f"{label + ':':<8}{path}", soft_wrap=True)
    console.print(f"{'runs:':<8}`make ui` opens MLflow")
    if repository is not None and lock_has_changed(repository):
        console.print(
            f"{'lock:':<8}dvc.lock now holds this machine's results: with it committed, `dvc metrics diff` and "
            "`dvc checkout` go by them",
            soft_wrap=True,
        )


def lock_has_changed(repository: Path) -> bool:
    """Whether dvc.lock is another than the commit's."""
    command = ["git", "status", "--porcelain", "--", "dvc.lock"]
    asked = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    return asked.returncode == 0 and bool(asked.stdout.strip())


def print_whole(table: RenderableType) -> None:
    """Print a table in the form that fits the terminal; whole where there is none."""
    reader().print(table)
