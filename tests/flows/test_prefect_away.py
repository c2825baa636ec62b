"""Prefect's server is killed while a run works: the run goes on, ends in time, and says what its work came to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from real_servers import Server
from tiny_project import REPOSITORY, Tiny

from components.processes import free_port
from flows.server import WITHOUT_SERVICES


@pytest.fixture(scope="module")
def server(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server that may be killed, and its API."""
    home = tmp_path_factory.mktemp("server")
    shutil.copy(prefect_database, home / "prefect.db")  # spares a minute of migrations
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-ui",
    ]
    environment = {"PREFECT_HOME": str(home), "PREFECT_API_URL": api, **WITHOUT_SERVICES}
    started = Server(command, f"{api}/health", home / "server.log", **environment)
    yield started, api
    started.kill()


def run(tiny: Tiny, api: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", "--no-promotion"],
        cwd=tiny.folder,
        env={**os.environ, "PREFECT_API_URL": api, "PYTHONPATH": str(REPOSITORY), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 150
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[0]
        time.sleep(0.1)


def test_a_server_that_comes_back_is_told_how_the_run_ended(tiny: Tiny, server: tuple[Server, str]) -> None:
    tiny.stages(a={"waits_for": "killed"}, b={"needs": ["a"]})
    server[0].start()
    process = run(tiny, server[1])
    wait_until(tiny.began, process)
    server[0].kill()
    (tiny.folder / "killed").touch()
    wait_until(lambda: tiny.began() == ["a", "b"], process)
    server[0].start()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    request = urllib.request.Request(f"{server[1]}/flow_runs/filter", b"{}", {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        (ended,) = json.loads(answer.read())
    assert ended["state"]["type"] == "COMPLETED"


@pytest.mark.parametrize("status", [0, 2])
def test_a_run_whose_server_stays_away_ends_as_its_work_did(
    tiny: Tiny, server: tuple[Server, str], status: int
) -> None:
    tiny.stages(a={"waits_for": "killed"}, b={"needs": ["a"], "prints": ["error: b is refused\n"], "status": status})
    if not server[0].is_running:
        server[0].start()
    process = run(tiny, server[1], PREFECT_CLIENT_MAX_RETRIES="1")
    wait_until(tiny.began, process)
    server[0].kill()
    (tiny.folder / "killed").touch()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == status, output
    assert tiny.began() == ["a", "b"]
    assert ("error: stage b: b is refused" in output) is bool(status)
    assert "warning: Prefect's server does not answer" in output and "Traceback" not in output


def test_a_run_whose_server_is_not_there_begins_nothing(tiny: Tiny) -> None:
    tiny.stages(a={})
    nobody = f"http://127.0.0.1:{free_port()}/api"
    process = run(tiny, nobody, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="1")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2, output
    assert "error: Prefect's server does not answer\n  where:      PREFECT_API_URL=" in output
    assert tiny.began() == []
