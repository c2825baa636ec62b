"""Servers as a team has them, on loopback, for one test: Debian's PostgreSQL and MLflow on it; they can be killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from components import supervise
from components.processes import free_port

_PATIENCE_S = 600  # on machines that are busy


class Server:
    """A server that this process starts, kills and starts again at its address; it does not outlive this process."""

    def __init__(self, command: Sequence[str], health: str, log: Path, **environment: str) -> None:
        self._command, self._health, self._log = command, health, log
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Start it and return when it answers."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", supervise.__file__, str(os.getpid()), *self._command],
                env=self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + _PATIENCE_S
        while not answers(self._health):
            assert self._process.poll() is None and time.monotonic() < deadline, self._log.read_text()[-2000:]
            time.sleep(0.1)

    def kill(self) -> None:
        """End it at once: it says goodbye to nobody."""
        if self._process is not None:
            supervisor, self._process = self._process, None
            for child in psutil.Process(supervisor.pid).children(recursive=True):
                child.kill()
            supervisor.wait()


def answers(url: str) -> bool:
    """Whether a server says that it is well."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _program(name: str) -> str:
    """A program of PostgreSQL's, which Debian keeps out of the way; without it, the test is left out."""
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    if found is None:
        pytest.skip(f"no PostgreSQL is installed: looked for {name} (Debian's package `postgresql`)")
    return found


@contextmanager
def postgres() -> Iterator[str]:
    """A throw-away cluster; gives HOST:PORT, where the user `proximal` may do everything without a password."""
    initdb, server = _program("initdb"), _program("postgres")
    folder = Path(tempfile.mkdtemp(prefix="proximal-postgres-"))
    as_user: list[str] = []
    if os.getuid() == 0:  # which PostgreSQL refuses
        as_user = ["runuser", "-u", "nobody", "--"]
        shutil.chown(folder, "nobody")
    try:
        options = ("--pgdata", str(folder / "data"), "--username", "proximal", "--auth", "trust", "--no-sync")
        made = subprocess.run([*as_user, initdb, *options], cwd="/", capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        port = free_port()
        command = [*as_user, server, "-D", str(folder / "data"), "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
        process = subprocess.Popen(
            [sys.executable, "-P", supervise.__file__, str(os.getpid()), *command],
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        try:
            _wait_for_connections(port)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()
    finally:
        shutil.rmtree(folder)


def _wait_for_connections(port: int) -> None:
    import psycopg2

    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            psycopg2.connect(f"host=127.0.0.1 port={port} user=proximal dbname=postgres").close()
            return
        except psycopg2.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@contextmanager
def mlflow_on_postgres(folder: Path) -> Iterator[tuple[Server, str]]:
    """MLflow's server, which keeps files in `folder`; gives it, running, and its address."""
    with postgres() as cluster, mlflow(f"postgresql+psycopg2://proximal@{cluster}/postgres", folder) as started:
        yield started


@contextmanager
def mlflow(store: str, folder: Path) -> Iterator[tuple[Server, str]]:
    """MLflow's server on a database, which keeps files in `folder`; gives it, running, and its address."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "files"), "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = Server(command, f"{uri}/health", folder / "server.log", **quiet)
    try:
        server.start()
        yield server, uri
    finally:
        server.kill()
