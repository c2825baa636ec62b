"""How processes on one machine find a port, and end with each other."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def die_with_parent(parent: int | None = None) -> None:
    """Whatever ends the parent of this process, SIGKILL included, ends this one too (Linux only).

    Args:
        parent: the process id that the parent should have, where it is known: it may have ended before this call.
    """
    if not sys.platform.startswith("linux"):
        return
    before = os.getppid() if parent is None else parent
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != before:
        os.kill(os.getpid(), signal.SIGKILL)
