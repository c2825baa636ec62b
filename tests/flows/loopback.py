"""Servers and workers as a team runs them, on the loopback address, for one test."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from components import supervise
from components.processes import free_port

_PATIENCE_S = 600.0


@contextmanager
def background(command: list[str], environment: dict[str, str], folder: Path, log: Path) -> Iterator[None]:
    """A process that goes on for the block, and ends with it and with this test process, with all it started."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", supervise.__file__, str(os.getpid()), *command],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def server(command: list[str], environment: dict[str, str], folder: Path, health: str) -> Iterator[str]:
    """A server that answers; gives its address. PORT in the command is its port.

    Args:
        health: the path that answers once the server does.
    """
    port = str(free_port())
    address, log = f"http://127.0.0.1:{port}", folder / f"server-{port}.log"
    with background([word.replace("PORT", port) for word in command], environment, folder, log):
        wait_until(lambda: _answers(address + health), f"a server: {' '.join(command)}", log)
        yield address


def wait_until(condition: Callable[[], object], what: str, log: Path) -> None:
    """Wait for a condition, for minutes where the machine is busy."""
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come:\n{log.read_text()[-3000:]}"
        time.sleep(0.3)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
