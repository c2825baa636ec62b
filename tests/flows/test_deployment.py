"""The shipped deployment on a real server with a real worker: an event runs the pipeline, and so does its schedule."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tiny_project import REPOSITORY, Tiny

from components import supervise
from components.processes import free_port
from flows.workspace import RUNS

PREFECT = [sys.executable, "-m", "prefect"]


@contextmanager
def background(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """A process that goes on for the block, and ends with it and with this test process, with all it started."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", supervise.__file__, str(os.getpid()), *command],
            cwd=REPOSITORY,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.mark.timeout(400)
def test_an_event_runs_the_pipeline_in_a_workspace(tiny: Tiny, prefect_database: Path, tmp_path: Path) -> None:
    tiny.stages(a={"needs": ["data/rows"]}, b={"needs": ["a"]})
    tiny.commit()
    port = free_port()
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(prefect_database, home / "prefect.db")  # spares a minute of migrations
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "true",
        "PROXIMAL_REPOSITORY": str(tiny.folder),
        "TINY_LOG": str(tiny.folder / "log.jsonl"),
    }
    api = environment["PREFECT_API_URL"]
    server = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    worker = [*PREFECT, "worker", "start", "--pool", "rlhf", "--name", "test"]
    with background(server, environment, home / "server.log"):
        _wait_until(lambda: _answers(f"{api}/health"), "the server", home / "server.log")
        _prefect("automation", "create", "--from-file", "infra/automations.yaml", environment=environment)
        (automation,) = (found for found in _post(f"{api}/automations/filter", {}) if "silent" in found["name"])
        assert automation["enabled"]
        assert [action["type"] for action in automation["actions"]] == ["change-flow-run-state"]
        _prefect("work-pool", "create", "rlhf", "--type", "process", environment=environment)
        deploy = ("deploy", "--prefect-file", "infra/prefect.yaml", "--name", "rlhf")
        _prefect("--no-prompt", *deploy, "--param", "promotion=false", environment=environment)
        deployment = _post(f"{api}/deployments/filter", {})[0]
        assert [schedule["schedule"]["cron"] for schedule in deployment["schedules"]] == ["0 3 * * *"]
        assert deployment["parameters"] == {
            "repository": str(tiny.folder),
            "revision": "HEAD",
            "promotion": False,
        }
        with background(worker, environment, home / "worker.log"):
            event = {
                "id": str(uuid.uuid4()),
                "event": "proximal.comparisons.new",
                "occurred": datetime.now(UTC).isoformat(),
                "resource": {"prefect.resource.id": "proximal.data"},
            }
            _post(f"{api}/events", [event])
            wanted = {"deployments": {"id": {"any_": [deployment["id"]]}}}
            wanted |= {"flow_runs": {"state": {"type": {"not_any_": ["SCHEDULED", "PENDING", "RUNNING"]}}}}

            def finished() -> list[dict[str, Any]]:
                return list(_post(f"{api}/flow_runs/filter", wanted))

            _wait_until(finished, "the flow run", home / "worker.log")
            (run,) = finished()

            # The nightly runs are there already; one that is due in seconds starts by itself.
            nightly = _scheduled(api, deployment)
            assert {datetime.fromisoformat(found["expected_start_time"]).hour for found in nightly} == {3}
            schedules = f"{api}/deployments/{deployment['id']}/schedules"
            _send("DELETE", f"{schedules}/{deployment['schedules'][0]['id']}")  # three runs are planned ahead, no more
            soon = {"interval": 20, "anchor_date": datetime.now(UTC).isoformat()}
            _post(schedules, [{"schedule": soon, "active": True}])
            _wait_until(lambda: len(finished()) > 1, "the scheduled run", home / "server.log")
            scheduled = next(found for found in finished() if found["id"] != run["id"])
    assert scheduled["auto_scheduled"]
    assert scheduled["state"]["type"] == "COMPLETED", scheduled["state"]["message"]
    assert run["state"]["type"] == "COMPLETED", run["state"]["message"]
    assert tiny.began() == ["a", "b"]
    assert {entry["parent_run"] for entry in tiny.log()} != {None}
    assert list((tiny.folder / RUNS).iterdir()) == []
    assert not (tiny.folder / "a.out").exists()


def _scheduled(api: str, deployment: Any) -> list[dict[str, Any]]:
    wanted = {"deployments": {"id": {"any_": [deployment["id"]]}}}
    wanted |= {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    return list(_post(f"{api}/flow_runs/filter", wanted))


def _prefect(*arguments: str, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [*PREFECT, *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _post(url: str, body: Any) -> Any:
    return _send("POST", url, body)


def _send(method: str, url: str, body: Any = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"content-type": "application/json"}, method=method)
    for left in range(20, -1, -1):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                content = answer.read()
            return json.loads(content) if content else None
        except urllib.error.HTTPError as fault:
            if fault.code != 503 or not left:  # SQLite is busy with another request: the server asks to come again
                raise
            time.sleep(1)
    raise AssertionError


def _wait_until(condition: Any, what: str, log: Path) -> None:
    deadline = time.monotonic() + 150
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come:\n{log.read_text()[-2000:]}"
        time.sleep(0.3)
