"""Prefect as a service on loopback, for tests: a server, a pool, a deployment of the flow, workers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from served import send
from tiny_project import REPOSITORY

from components import supervise
from components.processes import free_port

PREFECT = [sys.executable, "-m", "prefect"]


class Service:
    """A server that answers at `api`.

    Args:
        home: of Prefect; its processes are found by it.
        environment: what all of its processes have.
    """

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home, self.environment = home, environment
        self.api = environment["PREFECT_API_URL"]

    def deploy(self, **parameters: Any) -> str:
        """Deploy the flow to a pool of its own; gives the deployment's id."""
        folder = {"prefect.deployments.steps.set_working_directory": {"directory": str(REPOSITORY)}}
        described = {
            "name": "test",
            "pull": [folder],
            "deployments": [
                {
                    "name": "test",
                    "entrypoint": "flows.rlhf.rlhf",
                    "parameters": parameters,
                    "work_pool": {"name": "test"},
                }
            ],
        }
        file = self.home / "prefect.yaml"
        YAML(typ="safe").dump(described, file)
        self.prefect("work-pool", "create", "test", "--type", "process")
        self.prefect("--no-prompt", "deploy", "--prefect-file", str(file), "--all")
        (found,) = self.send("POST", "/deployments/filter", {})
        return str(found["id"])

    def prefect(self, *arguments: str) -> None:
        """A command of Prefect's."""
        command = [*PREFECT, *arguments]
        done = subprocess.run(command, cwd=REPOSITORY, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """A request to the API; gives what it answers."""
        return send(method, self.api + path, body)

    def state(self, run: str) -> dict[str, Any]:
        """The state of a flow run."""
        state: dict[str, Any] = self.send("GET", f"/flow_runs/{run}")["state"]
        return state

    def worker(self) -> subprocess.Popen[bytes]:
        """Start a worker."""
        command = [*PREFECT, "worker", "start", "--pool", "test"]
        with (self.home / "worker.log").open("ab") as output:
            return subprocess.Popen(command, cwd=REPOSITORY, env=self.environment, stdout=output, stderr=output)


@contextmanager
def served(database: Path, home: Path, **more: str) -> Iterator[Service]:
    """A server until the end of the block, with a copy of a database: making one takes long."""
    home.mkdir()
    shutil.copy(database, home / "prefect.db")
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "true",
        "PYTHONPATH": str(REPOSITORY),
        **more,
    }
    command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    with (home / "server.log").open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-P", supervise.__file__, str(os.getpid()), *command],
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: _answers(f"{environment['PREFECT_API_URL']}/health"), home / "server.log")
        yield Service(home, environment)
    finally:
        server.terminate()
        server.wait()


def wait_until(condition: Callable[[], Any], log: Path, seconds: float = 300.0) -> Any:
    """The first true value of the condition."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)
    return value


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
