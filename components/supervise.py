"""Runs one command so that nothing of it outlives the process that asked for it.

`python supervise.py PARENT_PID COMMAND...` ends the whole tree of the command when it receives SIGTERM, and
when the parent dies in any way, SIGKILL included. Signals to a process group would not do: training launchers
put their workers in sessions of their own. On Linux this process adopts every orphan below it, so that a
search finds them all.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import NoReturn

import psutil

_GRACE_S = 10.0
_REQUESTS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main(parent: int, command: list[str]) -> int:
    """Run the command to its end, or until this process is told to stop; return its exit status."""
    for number in _REQUESTS:
        signal.signal(number, _stop)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent:  # it died before the line above
        return 128 + signal.SIGTERM
    try:
        try:
            status = subprocess.Popen(command, preexec_fn=_die_with_parent).wait()
            return status if status >= 0 else 128 - status
        finally:
            _ignore_requests()
    finally:  # also where a request came just before the line above
        _end_descendants()


def _die_with_parent() -> None:
    """Runs in the command's process: nobody would end its tree once this supervisor was killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    """End by the first request. More may come at once: a parent's death sends one for each of its threads."""
    _ignore_requests()
    sys.exit(128 + number)


def _ignore_requests() -> None:
    """From now on none may interrupt the clean-up."""
    for number in _REQUESTS:
        signal.signal(number, signal.SIG_IGN)


def _end_descendants() -> None:
    """Ask everything below this process to end, and kill what is still there after the grace period."""
    asked: set[psutil.Process] = set()
    deadline = time.monotonic() + _GRACE_S
    while True:
        _reap()
        left = psutil.Process().children(recursive=True)
        if not left:
            return
        for process in left:
            try:
                if time.monotonic() > deadline:
                    process.kill()
                elif process not in asked:
                    process.terminate()
                    asked.add(process)
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.02)


def _reap() -> None:
    """Take the exit status of ended children: until then they count as processes."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
