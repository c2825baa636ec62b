"""A process that has made the slow imports already, and forks DVC and the stages of one pipeline run.

`python -P warm.py serve SOCKET` imports what they need from other projects, nothing of this one, and forks a
process for each that asks over the socket: it runs the same module with the same arguments, folder, environment and
output, without the seconds that the imports take. `components.launch` asks where $PROXIMAL_WARM_SOCKET names such a
process, and otherwise imports for itself; `python -P warm.py run MODULE ARGUMENTS` does it for any module. For the CPU
only: a device that is in use does not survive a fork.
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
# In the order in which a run needs them: DVC and validation ask before the models' libraries are there.
_SLOW = (
    "dvc.commands.repro",
    "dvc.repo.reproduce",
    "dvc.stage.run",
    "mlflow.store.tracking.sqlalchemy_store",
    "pandera.pandas",
    "torch",
    "accelerate",
    "transformers.modeling_utils",
    "transformers.models.llama.modeling_llama",
    "matplotlib.figure",
)
_STATUS = struct.Struct("!i")  # negative: the signal that ended the process
_LENGTH = struct.Struct("!I")
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def hand_over(module: str, *, starts_others: bool = False) -> None:
    """Let the warm process run `module` with this process's arguments, and exit as it does; return if there is none.

    This process stays to be waited for. Signals that ask it to end are passed on; when it is killed, so is the other.

    Args:
        starts_others: what the module starts may ask, too.
    """
    environment = dict(os.environ)
    path = os.environ.pop(SOCKET_VARIABLE, None)
    if path is None:
        return
    if not starts_others:
        del environment[SOCKET_VARIABLE]
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
        except OSError:  # it has ended: the imports take their time, nothing else is lost
            return
        request = {"module": module, "argv": sys.argv, "folder": os.getcwd(), "environment": environment}
        content = json.dumps(request).encode()
        socket.send_fds(connection, [_LENGTH.pack(len(content))], [0, 1, 2])

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
        if -status in _PASSED_ON:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


class _Server:
    """Forks a process for each request and tells the asker how it ended."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._askers: dict[int, socket.socket] = {}  # by the pid of the process that runs for it
        self._told: list[socket.socket] = []
        self._ending = False
        # Handlers run in the middle of an import, too: the end of a process is told at once.
        signal.signal(signal.SIGCHLD, self._report)
        signal.signal(signal.SIGTERM, self._end)

    def serve(self, seconds: float | None) -> dict[str, Any] | None:
        """Answer for so long, or for ever; returns in the forked process only, with what it has to run."""
        while True:
            while self._told:
                self._told.pop().close()
            ready, _, _ = select.select([self._listener, *self._askers.values()], [], [], seconds)
            if not ready:
                return None
            for pid, asker in list(self._askers.items()):
                if asker in ready:
                    self._pass_on(pid, asker)
            if self._listener in ready and (request := self._fork()) is not None:
                return request

    def _fork(self) -> dict[str, Any] | None:
        asker, _ = self._listener.accept()
        header, files, _, _ = socket.recv_fds(asker, _LENGTH.size, 3)
        if len(header) < _LENGTH.size:  # the asker was killed
            asker.close()
            return None
        content = asker.recv(_LENGTH.unpack(header)[0], socket.MSG_WAITALL)
        server = os.getpid()
        if (pid := os.fork()) != 0:
            self._askers[pid] = asker
            for file in files:
                os.close(file)
            self._report()  # it may have ended before it was known
            return None
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        _die_with(server)
        os.setsid()
        for file, standard in zip(files, range(3), strict=True):
            os.dup2(file, standard)
            os.close(file)
        for opened in (asker, self._listener, *self._askers.values(), *self._told):
            opened.close()
        request: dict[str, Any] = json.loads(content)
        return request

    def _report(self, *_signal: Any) -> None:
        """Tell those whose process has ended."""
        for pid in list(self._askers):
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # this call interrupts another, which has just taken it
                continue
            if ended:
                asker = self._askers.pop(pid)
                with contextlib.suppress(OSError):  # the asker may have been killed
                    asker.sendall(_STATUS.pack(os.waitstatus_to_exitcode(status)))
                self._told.append(asker)
        if self._ending and not self._askers:
            sys.exit(0)

    def _end(self, *_signal: Any) -> None:
        """End with the last process that runs: they would be killed with this one, in the middle of their closing."""
        self._ending = True
        if not self._askers:
            sys.exit(0)

    def _pass_on(self, pid: int, asker: socket.socket) -> None:
        """Pass on the signals an asker received; one that is gone takes its process with it."""
        try:
            numbers = asker.recv(64)
        except ConnectionError:
            numbers = b""
        with contextlib.suppress(ProcessLookupError):
            for number in numbers:
                os.kill(pid, number)
            if not numbers and pid in self._askers:
                os.killpg(pid, signal.SIGKILL)


def serve(path: str) -> None:
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
    sys.path.insert(0, request["folder"])  # its own code, which may be that of another revision
    sys.argv = request["argv"]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def _die_with(parent: int) -> None:
    """Whatever ends the parent, SIGKILL included, ends this process too."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def run(module: str, arguments: list[str]) -> None:
    """Do what `python -m MODULE ARGUMENTS` does, in a fork of the warm process where there is one."""
    sys.argv = [module, *arguments]
    hand_over(module, starts_others=True)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        run(sys.argv[2], sys.argv[3:])
