"""Prefect's server is killed while a run works: the run goes on, ends in time, and says what its work came to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from service import ENDED, Bare, served, wait_until
from tiny_project import REPOSITORY, Tiny

from components.processes import free_port
from flows.rlhf import IDLE


@pytest.fixture(scope="module")
def service(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    """A server that may be killed."""
    with served(prefect_database, tmp_path_factory.mktemp("server") / "home") as started:
        yield started


def run(tiny: Tiny, api: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", "--no-promotion"],
        cwd=tiny.folder,
        env={**os.environ, "PREFECT_API_URL": api, "PYTHONPATH": str(REPOSITORY), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[0]
        time.sleep(0.1)


def test_a_server_that_comes_back_is_told_how_the_run_ended(tiny: Tiny, service: Bare) -> None:
    tiny.stages(a={"waits_for": "killed"}, b={"needs": ["a"]})
    process = run(tiny, service.api)
    wait_for(tiny.began, process)
    service.server.kill()
    (tiny.folder / "killed").touch()
    wait_for(lambda: tiny.began() == ["a", "b"], process)
    service.server.start()
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    (ended,) = service.runs(*ENDED)
    assert ended["state_type"] == "COMPLETED" and not service.runs("RUNNING")


def test_a_deployed_run_goes_on_and_its_worker_takes_the_next(tiny: Tiny, service: Bare) -> None:
    tiny.stages(a={"needs": ["data/rows"], "waits_for": str(tiny.folder / "killed")}, b={"needs": ["a"]})
    tiny.commit()
    if not service.server.is_running:
        service.server.start()
    service.environment["TINY_LOG"] = str(tiny.folder / "log.jsonl")
    deployment = service.deploy(repository=str(tiny.folder), revision="HEAD", promotion=False)
    worker, log = service.worker(), service.home / "worker.log"
    try:
        first = service.start_run(deployment)
        wait_until(lambda: tiny.began() == ["a"], log)
        service.server.kill()
        (tiny.folder / "killed").touch()
        wait_until(lambda: [entry["event"] for entry in tiny.log()].count("end") == 2, log)
        service.server.start()
        wait_until(lambda: service.state(first)["type"] != "RUNNING", log)
        assert service.state(first)["name"] == "Completed"
        second = service.start_run(deployment)
        wait_until(lambda: service.state(second)["type"] in ENDED, log)
        assert service.state(second)["name"] == IDLE and tiny.began() == ["a", "b"]
    finally:
        worker.kill()
        worker.wait()


@pytest.mark.parametrize("status", [0, 2])
def test_a_run_whose_server_stays_away_ends_as_its_work_did(tiny: Tiny, service: Bare, status: int) -> None:
    tiny.stages(a={"waits_for": "killed"}, b={"needs": ["a"], "prints": ["error: b is refused\n"], "status": status})
    if not service.server.is_running:
        service.server.start()
    process = run(tiny, service.api, PREFECT_CLIENT_MAX_RETRIES="1")
    wait_for(tiny.began, process)
    service.server.kill()
    (tiny.folder / "killed").touch()
    output, _ = process.communicate(timeout=600)
    assert process.returncode == status, output
    assert tiny.began() == ["a", "b"]
    assert ("error: stage b: b is refused" in output) is bool(status)
    assert "warning: Prefect's server does not answer" in output and "Traceback" not in output


def test_a_run_whose_server_is_not_there_begins_nothing(tiny: Tiny) -> None:
    tiny.stages(a={})
    nobody = f"http://127.0.0.1:{free_port()}/api"
    process = run(tiny, nobody, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="1")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 2, output
    assert "error: Prefect's server does not answer\n  where:      PREFECT_API_URL=" in output
    assert tiny.began() == []
