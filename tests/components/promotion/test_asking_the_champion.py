"""The champion is asked as README says: by its Python, and over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from promotion_workspace import params_named, put_candidate

from components.place import Place
from components.processes import free_port
from components.stages import perform
from tests.readme import README, python_blocks


@pytest.fixture
def root(workspace: Path, models: Path, shared_store: Path) -> Path:
    """The root of a repository whose champion is there in mlflow.db, and needs nothing else of it."""
    put_candidate(models, 1, gold=0.75)
    perform("promotion", params_named("policy"), Place())
    return shared_store


def environment() -> dict[str, str]:
    """As in an activated environment; MLflow finds mlflow.db in the folder without being told."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
    return own | {"PATH": f"{Path(sys.executable).parent}:{own['PATH']}"}


def test_the_python_of_readme_answers(root: Path) -> None:
    (block,) = python_blocks(README.read_text(encoding="utf-8"))
    lines = block.strip().splitlines()
    assert lines[-1].startswith("policy.predict(")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*lines[:-1], f"print({lines[-1]})"])],
        cwd=root,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("['", '["'))


def test_it_is_served_over_http(root: Path, tmp_path: Path) -> None:
    port = free_port()
    serve = ["mlflow", "models", "serve", "-m", "models:/policy@champion", "--env-manager", "local"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*serve, "--port", str(port)],
            cwd=root,
            env=environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    question = json.dumps({"inputs": ["my printer does not start ."]}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", data=question, headers={"Content-Type": "application/json"}
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/ping", server, tmp_path / "log")
        with urllib.request.urlopen(request, timeout=60) as response:
            (answer,) = json.load(response)["predictions"]
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    assert isinstance(answer, str) and answer


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise AssertionError(log.read_text())
