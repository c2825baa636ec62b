"""What tests of tracking read back from the store, and processes that record in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from components.tracking import StageRun
from components.tracking import store as tracking_store
from components.tracking.recorder import RecordedRun

ROOT = Path(__file__).resolve().parents[3]


def runs(query: str) -> Any:
    """All that the store knows, or those that MLflow's query finds."""
    return tracking_store.client().search_runs([tracking_store.experiment_id()], query)


def id_of(run: StageRun) -> str:
    assert isinstance(run, RecordedRun)
    return run.run_id


def run_of(run: StageRun) -> Any:
    """The run as it is in the store by now."""
    return tracking_store.client().get_run(id_of(run))


def python(code: str, *arguments: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    """Start a process that runs `code` in `folder` with params at hand."""
    start = (
        "import sys, time\nfrom pathlib import Path\nfrom components.config import load_params\n"
        f"params = load_params(Path({str(ROOT / 'params.yaml')!r}))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", start + code, *arguments],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
