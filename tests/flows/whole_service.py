"""A project as a service on loopback, for tests: all that `proximal serve-all` starts and registers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from service import ENDED, Service, environment_of, port_of, send
from tiny_project import REPOSITORY, Tiny

from components import supervise
from components.processes import free_port

PATIENCE_S = 600.0  # on machines that are busy


class Whole(Service):
    """What `proximal serve-all` has started for a project."""

    def __init__(self, home: Path, environment: dict[str, str], tiny: Tiny, mlflow: str, log: Path) -> None:
        super().__init__(home, environment)
        self.tiny, self.mlflow, self.log = tiny, mlflow, log
        command = [sys.executable, "-m", "flows.cli", "serve-all"]
        ports = ["--prefect-port", port_of(self.api), "--mlflow-port", port_of(mlflow)]
        own = {name: value for name, value in environment.items() if name != "PREFECT_API_URL"}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", supervise.__file__, str(os.getpid()), *command, *ports],
                cwd=tiny.folder,
                env=own,
                stdout=output,
                stderr=output,
            )

    def proximal(self, *arguments: str) -> str:
        """What a command in the project prints."""
        command = [sys.executable, "-m", "flows.cli", *arguments]
        done = subprocess.run(
            command, cwd=self.tiny.folder, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def announce(self) -> None:
        """Say that there are new comparisons, as anybody may."""
        event = {
            "id": str(uuid.uuid4()),
            "event": "proximal.comparisons.new",
            "occurred": datetime.now(UTC).isoformat(),
            "resource": {"prefect.resource.id": "proximal.data"},
        }
        self.post("events", [event])

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

    def end(self, number: signal.Signals) -> tuple[int, float, list[psutil.Process]]:
        """Send it a signal; its exit status, how long it took in seconds, and what is left of its processes."""
        (service,) = psutil.Process(self.process.pid).children()
        below = service.children(recursive=True)
        assert len(below) >= 6  # two servers and a worker, each under a supervisor
        began = time.monotonic()
        service.send_signal(number)
        status = self.process.wait()
        return status, time.monotonic() - began, [process for process in below if process.is_running()]


@contextmanager
def wholly_served(tiny: Tiny, database: Path, home: Path) -> Iterator[Whole]:
    """A project with servers, a worker, and everything registered, until the end of the block."""
    for name in ("prefect.yaml", "automations.yaml", "notifications.yaml"):
        shutil.copy(REPOSITORY / "infra" / name, tiny.folder / "infra")
    tiny.commit()
    environment = environment_of(database, home) | {"TINY_LOG": str(tiny.folder / "log.jsonl")}
    environment = {name: value for name, value in environment.items() if not name.startswith("MLFLOW_")}
    own = Whole(home, environment, tiny, f"http://127.0.0.1:{free_port()}", home / "serve-all.log")
    try:
        own.wait(lambda: "Ctrl-C ends all of these" in own.log.read_text(), "the service")
        yield own
    finally:
        own.process.terminate()
        own.process.wait()
