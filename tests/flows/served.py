"""A tiny project that is served on this machine: servers on free ports, a worker, everything registered."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from tiny_project import REPOSITORY, Tiny

from components import supervise
from components.processes import free_port

PATIENCE_S = 600.0  # on machines that are busy
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


@dataclass(frozen=True)
class Served:
    """What `proximal serve-all` has started."""

    tiny: Tiny
    environment: dict[str, str]
    api: str
    mlflow: str
    log: Path
    process: subprocess.Popen[bytes]

    def proximal(self, *arguments: str) -> str:
        """What a command in the project prints."""
        command = [sys.executable, "-m", "flows.cli", *arguments]
        done = subprocess.run(
            command, cwd=self.tiny.folder, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def post(self, path: str, body: Any) -> Any:
        """What Prefect's API answers."""
        return send("POST", f"{self.api}/{path}", body)

    def deployments(self) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in self.post("deployments/filter", {})}

    def announce(self) -> None:
        """Say that there are new comparisons, as anybody may."""
        event = {
            "id": str(uuid.uuid4()),
            "event": "proximal.comparisons.new",
            "occurred": datetime.now(UTC).isoformat(),
            "resource": {"prefect.resource.id": "proximal.data"},
        }
        self.post("events", [event])

    def runs(self, *states: str) -> list[dict[str, Any]]:
        """The flow runs in one of these types of state, the first expected first."""
        wanted = {"flow_runs": {"state": {"type": {"any_": list(states)}}}, "sort": "EXPECTED_START_TIME_ASC"}
        return list(self.post("flow_runs/filter", wanted))

    def ended_run(self, number: int) -> dict[str, Any]:
        """The state of the flow run of this number, from 1, once it has ended."""
        self.wait(lambda: len(self.runs(*ENDED)) >= number, f"flow run {number}")
        return dict(max(self.runs(*ENDED), key=lambda run: run["end_time"]))

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Until something holds, for which the log is shown if it never does."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            logs = "\n".join(file.read_text()[-2000:] for file in (self.tiny.folder / ".work/logs").glob("*.log"))
            assert time.monotonic() < deadline, f"{what} did not come:\n{self.log.read_text()}\n{logs}"
            assert self.process.poll() is None, f"{what} did not come:\n{self.log.read_text()}\n{logs}"
            time.sleep(0.2)

    def pipelines(self) -> int:
        """How many runs of pipelines MLflow's server has."""
        found = send("POST", f"{self.mlflow}/api/2.0/mlflow/experiments/search", {"max_results": 10})
        ids = [each["experiment_id"] for each in found.get("experiments", [])]
        body = {"experiment_ids": ids, "filter": "tags.stage = 'pipeline'", "max_results": 100}
        return len(send("POST", f"{self.mlflow}/api/2.0/mlflow/runs/search", body).get("runs", []))


@contextmanager
def served(tiny: Tiny, database: Path, home: Path) -> Iterator[Served]:
    """Serve it for the block."""
    for name in ("prefect.yaml", "automations.yaml", "notifications.yaml"):
        shutil.copy(REPOSITORY / "infra" / name, tiny.folder / "infra")
    tiny.commit()
    home.mkdir()
    shutil.copy(database, home / "prefect.db")  # spares a minute of migrations
    prefect, mlflow = free_port(), free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    environment |= {
        "PREFECT_HOME": str(home),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PYTHONPATH": str(REPOSITORY),
        "TINY_LOG": str(tiny.folder / "log.jsonl"),
    }
    log = home / "serve-all.log"
    command = [sys.executable, "-m", "flows.cli", "serve-all"]
    ports = ["--prefect-port", str(prefect), "--mlflow-port", str(mlflow)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", supervise.__file__, str(os.getpid()), *command, *ports],
            cwd=tiny.folder,
            env=environment,
            stdout=output,
            stderr=output,
        )
    api = f"http://127.0.0.1:{prefect}/api"
    own = Served(tiny, environment | {"PREFECT_API_URL": api}, api, f"http://127.0.0.1:{mlflow}", log, process)
    try:
        own.wait(lambda: "Ctrl-C ends all of these" in log.read_text(), "the service")
        yield own
    finally:
        process.terminate()
        process.wait()


def end(own: Served, number: signal.Signals) -> tuple[int, float, list[psutil.Process]]:
    """Send the service a signal; its exit status, how long it took in seconds, and what is left of its processes."""
    (service,) = psutil.Process(own.process.pid).children()
    below = service.children(recursive=True)
    assert len(below) >= 6  # two servers and a worker, each under a supervisor
    began = time.monotonic()
    service.send_signal(number)
    status = own.process.wait()
    return status, time.monotonic() - began, [process for process in below if process.is_running()]


def send(method: str, url: str, body: Any = None) -> Any:
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
