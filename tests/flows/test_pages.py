"""`proximal ui --prefect`: the flow runs that this project keeps, on this machine alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
from tiny_project import REPOSITORY, Tiny

from components.processes import free_port


def start(tiny: Tiny, home: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PREFECT_API_URL", "PREFECT_HOME")}
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "ui", "--prefect", *arguments],
        cwd=tiny.folder,
        env={**kept, "PREFECT_HOME": str(home), "PYTHONPATH": str(REPOSITORY), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_pages_show_the_projects_own_history(tiny: Tiny, prefect_database: Path, tmp_path: Path) -> None:
    tiny.stages(a={})
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(prefect_database, home / "prefect.db")
    with sqlite3.connect(home / "prefect.db") as database:
        (count,) = database.execute("select count(*) from flow_run").fetchone()
    port = free_port()
    process = start(tiny, home, "--port", str(port))
    try:
        page = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while not _answers(f"{page}/api/health"):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
            time.sleep(0.2)
        with urllib.request.urlopen(page, timeout=60) as answer:
            assert "<title>Prefect" in answer.read().decode()
        with urllib.request.urlopen(f"{page}/ui-settings", timeout=60) as answer:
            assert json.load(answer)["api_url"] == f"{page}/api"
        request = urllib.request.Request(f"{page}/api/flow_runs/count", b"{}", {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer) == count
        listening = {found.laddr.ip for found in psutil.net_connections("tcp") if found.laddr.port == port}
        assert "127.0.0.1" in listening and not {"0.0.0.0", "::"} & listening
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert output.startswith(f"Prefect: http://127.0.0.1:{port} (Ctrl-C ends it)\n")


def test_a_server_that_the_user_names_has_its_own_pages(tiny: Tiny, tmp_path: Path) -> None:
    tiny.stages(a={})
    process = start(tiny, tmp_path, PREFECT_API_URL="http://prefect.example:4200/api")
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (
        0,
        "Prefect: http://prefect.example:4200 (PREFECT_API_URL names that server)\n",
    )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
