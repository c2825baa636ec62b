"""The champion is asked as README says: by its Python, and over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
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
from tests.readme import README, commands, python_blocks

PAGE = README.parent / "docs" / "how-to" / "talk.md"


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


def test_it_is_served_over_http_and_answers_as_chat_does(root: Path, tmp_path: Path) -> None:
    serve, ask = [line for line in commands(PAGE.read_text(encoding="utf-8")) if line.split()[0] in ("mlflow", "curl")]
    assert "models:/policy@champion --env-manager local" in serve and ":5000/invocations" in ask
    port = free_port()
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*shlex.split(serve), "--port", str(port)],
            cwd=root,
            env=environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/ping", server, tmp_path / "log")
        # Without training, the likeliest token is a prompt's last again: greedily nothing that can be read.
        sampled = ask.replace('"temperature": 0.0', '"temperature": 1.0')
        words = shlex.split(sampled.replace("127.0.0.1:5000", f"127.0.0.1:{port}"))
        told = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True).stdout
        (answer,) = json.loads(told)["predictions"]
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    asked = json.loads(words[-1])
    assert asked["params"] == {"temperature": 1.0}
    tokens = params_named("policy").language_model.max_response_tokens
    chat = [sys.executable, "-m", "flows.cli", "chat", "policy@champion", "--temperature", "1"]
    done = subprocess.run(
        [*chat, "--max-tokens", str(tokens)],
        input=asked["inputs"][0],
        cwd=README.parent,
        env=environment() | {"MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db", "PYTHONPATH": str(README.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert answer and done.stdout == f"{answer}\n"


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise AssertionError(log.read_text())
