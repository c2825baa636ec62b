"""A process that has made the slow imports already, and forks the stages of one pipeline run.

`python -m components.warm SOCKET` imports what stages need from other projects, nothing of this one, and then forks
a process for each stage that asks over the socket: it runs the same module with the same arguments, folder,
environment and output, without the seconds that the imports take. `components.launch` asks where
$PROXIMAL_WARM_SOCKET names such a process, and otherwise imports for itself. For the CPU only: a device that is in use
does not survive a fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
from types import FrameType
from typing import Any

SOCKET_VARIABLE = "PROXIMAL_WARM_SOCKET"
# In the order in which a run needs them: validation asks before the models' libraries are there.
_SLOW = (
    "mlflow.store.tracking.sqlalchemy_store",
    "pandera.pandas",
    "torch",
    "accelerate",
    "transformers.modeling_utils",
    "transformers.models.llama.modeling_llama",
    "matplotlib.figure",
)
_STATUS = struct.Struct("!i")  # negative: the signal that ended the process
_LONGEST_REQUEST = 1 << 20
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def hand_over(module: str) -> None:
    """Let the warm process run `module` with this process's arguments, and exit as it does; return if there is none.

    This process stays to be waited for. Signals that ask it to end are passed on; when it is killed, so is the other.
    """
    path = os.environ.pop(SOCKET_VARIABLE, None)
    if path is None:
        return
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
        except OSError:  # it has ended: the imports take their time, nothing else is lost
            return
        request = {"module": module, "argv": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ)}
        content = json.dumps(request).encode()
        socket.send_fds(connection, [struct.pack("!I", len(content))], [0, 1, 2])

        def pass_on(number: int, _frame: FrameType | None) -> None:
            connection.send(bytes([number]))

        connection.sendall(content)
        for number in _PASSED_ON:
            signal.signal(number, pass_on)
        answer = connection.recv(_STATUS.size, socket.MSG_WAITALL)
    if len(answer) < _STATUS.size:
        sys.exit("the process that ran this stage is gone")
    (status,) = _STATUS.unpack(answer)
    if status < 0:  # end the same way, for those who look at how this process ended
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


class _Server:
    """Forks a process for each request and tells the asker how it ended."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._askers: dict[int, socket.socket] = {}  # by the pid of the process that runs for it
        self._wake, signal_end = socket.socketpair()
        signal_end.setblocking(False)
        signal.set_wakeup_fd(signal_end.fileno())
        self._signal_end = signal_end
        self._ending = False
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        """End with the last process that runs: they would be killed with this one, in the middle of their closing."""
        self._ending = True
        if not self._askers:
            sys.exit(0)

    def serve(self, seconds: float | None) -> dict[str, Any] | None:
        """Answer for so long, or for ever; returns in the forked process only, with what it has to run."""
        while True:
            ready, _, _ = select.select([self._listener, self._wake, *self._askers.values()], [], [], seconds)
            if not ready:
                return None
            if self._wake in ready:
                self._wake.recv(4096)
                self._report()
            for pid, asker in list(self._askers.items()):
                if asker in ready:
                    self._signal(pid, asker)
            if self._listener in ready and (request := self._fork()) is not None:
                return request

    def _fork(self) -> dict[str, Any] | None:
        asker, _ = self._listener.accept()
        header, files, _, _ = socket.recv_fds(asker, 4, 3)
        content = asker.recv(struct.unpack("!I", header)[0], socket.MSG_WAITALL)
        server = os.getpid()
        if (pid := os.fork()) != 0:
            self._askers[pid] = asker
            for file in files:
                os.close(file)
            return None
        _die_with(server)
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        for file, standard in zip(files, range(3), strict=True):
            os.dup2(file, standard)
            os.close(file)
        for opened in (asker, self._listener, self._wake, self._signal_end, *self._askers.values()):
            opened.close()
        request: dict[str, Any] = json.loads(content)
        return request

    def _report(self) -> None:
        """Tell those whose process has ended."""
        for pid, asker in list(self._askers.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._askers[pid]
                with asker, contextlib.suppress(OSError):  # it may have been killed
                    asker.sendall(_STATUS.pack(os.waitstatus_to_exitcode(status)))
        if self._ending and not self._askers:
            sys.exit(0)

    def _signal(self, pid: int, asker: socket.socket) -> None:
        """Pass on the signals an asker received; one that is gone takes its process with it."""
        try:
            numbers = asker.recv(64)
        except ConnectionError:
            numbers = b""
        for number in numbers:
            os.kill(pid, number)
        if not numbers:
            os.killpg(pid, signal.SIGKILL)


def main(path: str) -> None:
    """Listen at once, import, and fork whoever asks; an early request gets what is imported by then."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    server = _Server(listener)
    gc.disable()  # what is imported stays; looking for garbage in it is a fifth of the time
    request = None
    for module in _SLOW:
        importlib.import_module(module)
        if (request := server.serve(seconds=0.0)) is not None:
            break
    gc.freeze()
    request = request or server.serve(seconds=None)
    assert request is not None  # without a limit of time, only a forked process comes here
    gc.enable()
    _become(request)


def _become(request: dict[str, Any]) -> None:
    """Do what `python -m MODULE ARGUMENTS` does in the asker's folder."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[0] = request["folder"]
    for name in [name for name in sys.modules if name.partition(".")[0] == "components"]:
        del sys.modules[name]  # the folder's own code, which may be that of another revision
    sys.argv = request["argv"]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def _die_with(parent: int) -> None:
    """Whatever ends the parent, SIGKILL included, ends this process too."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
