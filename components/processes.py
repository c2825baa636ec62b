"""How processes on one machine find each other, and end with each other."""

from __future__ import annotations

import ctypes
import signal
import socket


def ranks(count: int) -> list[dict[str, str]]:
    """For each of the processes that train together, the variables by which it finds the others on this machine."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def die_with_parent() -> None:
    """Whatever ends the parent of this process, SIGKILL included, ends this one too (Linux only)."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
