"""A Prefect API for one run on one machine, for those who run none."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import EnvironmentFault
from components.processes import free_port
from flows import supervise

if TYPE_CHECKING:
    from fastapi import FastAPI

API_VARIABLE = "PREFECT_API_URL"


def app() -> FastAPI:
    """Prefect's own ephemeral server: no web pages, and only the services that a flow run needs."""
    from prefect.server.api.server import create_app

    return create_app(ephemeral=True, final=True)


class LocalApi:
    """A server that is starting; other work can be done until it answers."""

    def __init__(self, process: subprocess.Popen[bytes] | None, log: Path) -> None:
        self._process, self._log = process, log

    def wait(self) -> None:
        """Return when the server answers.

        Raises:
            EnvironmentFault: it ended, or does not answer in time.
        """
        if self._process is None:
            return
        deadline = time.monotonic() + float(os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"])
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{os.environ[API_VARIABLE]}/health", timeout=5):
                    return
            except (urllib.error.URLError, TimeoutError, ConnectionError):
                time.sleep(0.05)
        raise EnvironmentFault(
            "Prefect's local server did not start",
            where=str(self._log),
            found="\n".join(self._log.read_text(errors="replace").splitlines()[-3:]) or "no output",
            do="read that file; `make clean` drops Prefect's local database",
        )


def start_local_api(home: Path) -> LocalApi:
    """Start a Prefect API that ends with this process, unless PREFECT_API_URL names one already.

    Prefect could start its ephemeral server by itself; this one starts while the rest is being imported, is
    quiet, and does not outlive a killed flow. Call it before prefect is imported: what Prefect still sends
    when the process exits needs the server, and exit functions run in reverse order.
    """
    log = home / "server.log"
    if os.environ.get(API_VARIABLE):
        return LocalApi(None, log)
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    uvicorn = [sys.executable, "-m", "uvicorn", "--factory", "flows.server:app", "--host", "127.0.0.1"]
    uvicorn += ["--port", str(port), "--log-level", "error", "--lifespan", "on"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", supervise.__file__, str(os.getpid()), *uvicorn],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    atexit.register(_end, process)
    os.environ[API_VARIABLE] = f"http://127.0.0.1:{port}/api"
    return LocalApi(process, log)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()
