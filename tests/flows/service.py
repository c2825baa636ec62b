"""Prefect as a service on loopback, for tests: a server that may be killed, a pool, a deployment, workers."""

from __future__ import annotations

import json
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

from real_servers import Server
from ruamel.yaml import YAML
from tiny_project import REPOSITORY

from components.processes import free_port

PREFECT = [sys.executable, "-m", "prefect"]
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


class Service:
    """A server that answers at `api`.

    Args:
        home: of Prefect; its processes are found by it.
        environment: what all of its processes have.
    """

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home, self.environment = home, environment
        self.api = environment["PREFECT_API_URL"]

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """A request to the API; gives what it answers."""
        return send(method, f"{self.api}/{path}", body)

    def post(self, path: str, body: Any) -> Any:
        return self.send("POST", path, body)

    def deployments(self) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in self.post("deployments/filter", {})}

    def state(self, run: str) -> dict[str, Any]:
        """The state of a flow run."""
        return dict(self.send("GET", f"flow_runs/{run}")["state"])

    def runs(self, *states: str) -> list[dict[str, Any]]:
        """The flow runs in one of these types of state, the first expected first."""
        wanted = {"flow_runs": {"state": {"type": {"any_": list(states)}}}, "sort": "EXPECTED_START_TIME_ASC"}
        return list(self.post("flow_runs/filter", wanted))


class Bare(Service):
    """A Prefect server alone.

    Args:
        server: which may be killed, and started again.
    """

    def __init__(self, home: Path, environment: dict[str, str], server: Server) -> None:
        super().__init__(home, environment)
        self.server = server

    def deploy(self, **parameters: Any) -> str:
        """Deploy the flow to a pool of its own, set as the shipped one; gives the deployment's id."""
        folder = {"prefect.deployments.steps.set_working_directory": {"directory": str(REPOSITORY)}}
        shipped = YAML(typ="safe").load(REPOSITORY / "infra" / "prefect.yaml")["definitions"]["pool"]
        described = {
            "name": "test",
            "pull": [folder],
            "deployments": [
                {
                    "name": "test",
                    "entrypoint": "flows.rlhf.rlhf",
                    "parameters": parameters,
                    "work_pool": {"name": "test", "job_variables": shipped["job_variables"]},
                }
            ],
        }
        file = self.home / "prefect.yaml"
        YAML(typ="safe").dump(described, file)
        self.prefect("work-pool", "create", "test", "--type", "process")
        self.prefect("--no-prompt", "deploy", "--prefect-file", str(file), "--all")
        return str(self.deployments()["test"]["id"])

    def start_run(self, deployment: str) -> str:
        """Ask for a run of a deployment; gives its id."""
        return str(self.post(f"deployments/{deployment}/create_flow_run", {})["id"])

    def prefect(self, *arguments: str) -> None:
        """A command of Prefect's."""
        command = [*PREFECT, *arguments]
        done = subprocess.run(command, cwd=REPOSITORY, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def worker(self) -> subprocess.Popen[bytes]:
        """Start a worker."""
        command = [*PREFECT, "worker", "start", "--pool", "test"]
        with (self.home / "worker.log").open("ab") as output:
            return subprocess.Popen(command, cwd=REPOSITORY, env=self.environment, stdout=output, stderr=output)


@contextmanager
def served(database: Path, home: Path, **more: str) -> Iterator[Bare]:
    """A server until the end of the block."""
    environment = environment_of(database, home) | more
    api = environment["PREFECT_API_URL"]
    command = [
        *PREFECT,
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        port_of(api),
        "--no-ui",
    ]
    server = Server(command, f"{api}/health", home / "server.log", **environment)
    server.start()
    try:
        yield Bare(home, environment, server)
    finally:
        server.kill()


def environment_of(database: Path, home: Path) -> dict[str, str]:
    """Of all processes of a service, whose home is made with a copy of a database: making one takes long."""
    home.mkdir()
    shutil.copy(database, home / "prefect.db")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "true",
        "PYTHONPATH": str(REPOSITORY),
    }


def port_of(address: str) -> str:
    return address.removesuffix("/api").rpartition(":")[2]


def send(method: str, url: str, body: Any = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"content-type": "application/json"}, method=method)
    for left in range(20, -1, -1):
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                content = answer.read()
            return json.loads(content) if content else None
        except urllib.error.HTTPError as fault:
            if fault.code != 503 or not left:  # SQLite is busy with another request: the server asks to come again
                raise
            time.sleep(1)
    raise AssertionError


def wait_until(condition: Callable[[], Any], log: Path, seconds: float = 600.0) -> Any:
    """The first true value of the condition."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)
    return value
