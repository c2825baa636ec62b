"""Prefect's local server, for those who run none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
from tiny_project import Tiny


def test_a_run_without_a_prefect_server_brings_its_own(tiny: Tiny, prefect_database: Path, tmp_path: Path) -> None:
    tiny.stages(a={})
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(prefect_database, home / "prefect.db")  # spares a minute of migrations
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    environment |= {"PREFECT_HOME": str(home)}
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", "--no-promotion"],
        cwd=tiny.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    # It must still answer while Prefect sends its last records at exit, or that retries for more than a minute.
    assert time.monotonic() - begin < 60
    assert "Error" not in done.stderr
    assert tiny.began() == ["a"]
    assert _processes_of(home) == []


def _processes_of(home: Path) -> list[list[str]]:
    found = []
    for process in psutil.process_iter(["environ", "cmdline"]):
        if (process.info["environ"] or {}).get("PREFECT_HOME") == str(home):
            found.append(process.info["cmdline"])
    return found
