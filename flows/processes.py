"""The processes of one flow run: started, read line by line, and ended with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components import supervise

_PATIENCE_S = 30.0  # longer than the supervisor's own grace period
_LOOK_S = 0.5


@dataclass(frozen=True)
class Ended:
    """How a command ended: by itself, when its time was over, or because the run stopped."""

    status: int
    timed_out: bool
    stopped: bool


class Processes:
    """Commands of one flow run, each under a supervisor and in a session of its own: see components.supervise."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopping = False

    def run(
        self,
        command: list[str],
        *,
        folder: Path,
        environment: dict[str, str],
        timeout_s: float | None,
        show: Callable[[str], None],
    ) -> Ended:
        """Run a command and pass each line it prints to `show`; a progress bar's every state is a line.

        The command is ended, with everything it started, when `timeout_s` is over or `stop` is called.
        """
        with self._lock:
            if self._stopping:
                return Ended(status=143, timed_out=False, stopped=True)
            process = subprocess.Popen(
                [*supervised(), *command],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._running.add(process)
        timed_out = threading.Event()

        def end_late() -> None:
            timed_out.set()
            process.terminate()

        clock = threading.Timer(timeout_s, end_late) if timeout_s is not None else None
        if clock:
            clock.start()
        try:
            assert process.stdout is not None  # PIPE
            for line in process.stdout:
                show(line.rstrip("\n"))
            return Ended(process.wait(), timed_out=timed_out.is_set(), stopped=self._stopping)
        finally:
            if clock:
                clock.cancel()
            with self._lock:
                self._running.discard(process)

    def stop(self) -> None:
        """End whatever still runs, and start nothing more."""
        with self._lock:
            self._stopping = True
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            _wait(process)


def end_with_worker() -> None:
    """From now on the end of the worker that started this process ends it, in order: nobody else could cancel it."""
    from prefect.runtime import deployment  # `proximal --help` needs no Prefect

    if deployment.id is None:  # no worker did
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def supervised() -> list[str]:
    """How a command begins that must not outlive this process."""
    return [sys.executable, "-P", supervise.__file__, str(os.getpid())]


def signal_of(status: int) -> str | None:
    """The signal that ended a process of this exit status, a shell's or Python's; None if none did."""
    number = -status if status < 0 else status - 128
    return signal.Signals(number).name if number in set(signal.Signals) else None


def _wait(process: subprocess.Popen[Any]) -> None:
    try:
        process.wait(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()


# By the id of the flow run. Tasks find theirs here, since a task's parameters must be plain. A stopped one stays:
# a task that begins after the end of its run must find it stopped.
_RUNS: dict[str, Processes] = {}


def processes_of(flow_run: str) -> Processes:
    """The processes of a flow run; a task that runs elsewhere than its flow gets ones of its own."""
    return _RUNS.get(flow_run) or Processes()


@contextmanager
def processes(flow_run: str) -> Iterator[None]:
    """The part of a flow run that starts processes: none of them outlives it, however it ends."""
    _RUNS[flow_run] = Processes()
    try:
        yield
    finally:
        _RUNS[flow_run].stop()


def stop_all() -> None:
    """End the processes of every flow run here, and start nothing more."""
    for started in list(_RUNS.values()):
        started.stop()
