"""The entry of every stage, started as a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from launched import ROOT, descendants


@pytest.fixture
def start(world: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `python -m components.launch ...` in the world; whatever is left of it at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def launch(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "components.launch", *arguments],
            env={"PROXIMAL_STATUS_FILE": str(tmp_path / "status"), **os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield launch
    for process in started:
        for each in [*descendants(process), process]:
            each.kill()
        process.wait()
