"""A Prefect server for one run on one machine, for those who run none."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.errors import EnvironmentFault
from components.processes import free_port
from flows.processes import signal_of, stop_all, supervised

API_VARIABLE = "PREFECT_API_URL"
START_VARIABLE = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"
_START = ("-m", "prefect", "server", "start", "--no-ui", "--host", "127.0.0.1")
# Prefect's services that serve deployments, schedules, automations and workers: a run without a server has none.
_UNUSED = (
    "SCHEDULER",
    "LATE_RUNS",
    "FOREMAN",
    "PAUSE_EXPIRATIONS",
    "CANCELLATION_CLEANUP",
    "REPOSSESSOR",
    "TRIGGERS",
)
WITHOUT_SERVICES = {f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false" for service in _UNUSED}
_PATIENCE_S = 45.0  # longer than it takes to end the processes of a run
_ORDERLY = threading.Event()  # no flow of this process is at work
_ORDERLY.set()


class LocalServer:
    """A server that is starting; other work can be done until it answers.

    Args:
        process: its supervisor; None where the user has named a server.
        log: what it prints.
    """

    def __init__(self, process: subprocess.Popen[bytes] | None, log: Path) -> None:
        self._process, self._log = process, log
        self._ending = False

    @property
    def is_ours(self) -> bool:
        """Whether this process started it; else the user has named one."""
        return self._process is not None

    def wait(self) -> None:
        """Return when the server answers; from then on, the end of one of ours is the end of this process.

        Raises:
            EnvironmentFault: it ended, or does not answer in time.
        """
        if self._process is None:
            _wait_for_named()
            return
        deadline = time.monotonic() + float(os.environ[START_VARIABLE])
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{os.environ[API_VARIABLE]}/health", timeout=5):
                    threading.Thread(target=self._end_with, args=[self._process], daemon=True).start()
                    return
            except (urllib.error.URLError, TimeoutError, ConnectionError):
                time.sleep(0.05)
        raise EnvironmentFault(
            "Prefect's local server did not start",
            where=str(self._log),
            found=self._last_lines(),
            do="read that file; `make clean` drops Prefect's local database",
        )

    def end(self) -> None:
        """End the server, if it is ours."""
        if self._process is not None:
            self._ending = True
            self._process.terminate()
            self._process.wait()

    def _end_with(self, process: subprocess.Popen[bytes]) -> None:
        """Without the server, Prefect would try for minutes to reach it: put the run in order, and end."""
        status = process.wait()
        if self._ending:
            return
        stop_all()
        _ORDERLY.wait(_PATIENCE_S)
        killed = signal_of(status)
        fault = EnvironmentFault(
            "Prefect's local server ended before the run did",
            where=str(self._log),
            expected="a server until the end of the run",
            found=f"it was killed by {killed}" if killed else f"exit status {status}: {self._last_lines()}",
            do="run the same command again, finished stages are kept; out of memory is the usual reason",
        )
        sys.stdout.flush()
        print(f"error: {fault}", file=sys.stderr, flush=True)
        os._exit(1)  # functions that run at exit would wait for the server, too

    def _last_lines(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return "\n".join(lines[-3:]) or "no output"


def _wait_for_named() -> None:
    """Of a server that the user named; one that is started anew just now takes a while."""
    deadline = time.monotonic() + float(os.environ[START_VARIABLE])
    while True:
        try:
            with urllib.request.urlopen(f"{os.environ[API_VARIABLE]}/health", timeout=5):
                return
        except urllib.error.HTTPError:  # it answers; what it makes of a request of ours, Prefect says
            return
        except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as fault:
            if time.monotonic() > deadline:
                raise away(fault) from fault
            time.sleep(0.5)


def away(fault: Exception) -> EnvironmentFault:
    """What to say where the server does not answer that PREFECT_API_URL names."""
    return EnvironmentFault(
        "Prefect's server does not answer",
        where=f"{API_VARIABLE}={os.environ[API_VARIABLE]}",
        expected="a server that answers",
        found=str(fault),
        do=f"see that it runs and can be reached, or unset {API_VARIABLE}: a run brings a server of its own",
    )


@contextmanager
def orderly() -> Iterator[None]:
    """What a flow does by itself: with a lost server, the process ends when this block has put things in order."""
    _ORDERLY.clear()
    try:
        yield
    finally:
        _ORDERLY.set()


def start_local_server(home: Path) -> LocalServer:
    """Start a Prefect server that ends with this process, unless PREFECT_API_URL names one already.

    Prefect could start an ephemeral server by itself; this one starts while the rest is being imported, is
    quiet, and does not outlive a killed flow. Call it before prefect is imported: what Prefect still sends
    when the process exits needs the server, and exit functions run in reverse order.
    """
    log = home / "server.log"
    if os.environ.get(API_VARIABLE):
        return LocalServer(None, log)
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*supervised(), sys.executable, "-P", *_START, "--port", str(port)],
            env={**os.environ, **WITHOUT_SERVICES, API_VARIABLE: url},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    os.environ[API_VARIABLE] = url
    server = LocalServer(process, log)
    atexit.register(server.end)
    return server
