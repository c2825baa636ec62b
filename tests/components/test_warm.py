"""The process that has made the slow imports: what it forks is like a process of its own, and ends with its asker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from components import warm

ROOT = Path(__file__).resolve().parents[2]
# A module that hands itself over, then says where it runs and does what its argument says.
JOB = """
if __name__ == "__main__":
    from components.warm import hand_over
    hand_over("job")

import os, signal, sys, time

def stop(number, frame):
    print("asked to end", flush=True)
    time.sleep(0.5)
    print("ended in order", flush=True)
    sys.exit(7)

signal.signal(signal.SIGTERM, stop)
print(os.getpid(), os.getcwd(), os.environ["COLOUR"], sys.argv[1:], "dvc" in sys.modules, flush=True)
print("to stderr", file=sys.stderr, flush=True)
if sys.argv[1] == "exit":
    sys.exit(int(sys.argv[2]))
if sys.argv[1] == "fail":
    raise KeyError("a fault")
if sys.argv[1] == "die":
    os.kill(os.getpid(), int(sys.argv[2]))
if sys.argv[1] == "sleep":
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The socket of a warm process for the tests of this file."""
    path = str(tmp_path_factory.mktemp("warm") / "socket")
    with subprocess.Popen([sys.executable, "-P", warm.__file__, "serve", path]) as process:
        while not Path(path).exists():
            time.sleep(0.02)
        yield path
        process.kill()


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts the job in a folder of its own."""
    (tmp_path / "job.py").write_text(JOB)

    def begin(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "job", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLOUR": "blue", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


def test_it_runs_elsewhere_and_looks_as_if_it_did_not(server: str, start: Start, tmp_path: Path) -> None:
    alone = start("exit", "3")
    warmed = start("exit", "3", PROXIMAL_WARM_SOCKET=server)
    for process, imported in ((alone, False), (warmed, True)):
        output, errors = process.communicate(timeout=60)
        pid, said = output.split(maxsplit=1)
        assert said == f"{tmp_path} blue ['exit', '3'] {imported}\n"
        assert (int(pid) == process.pid) != imported
        assert errors == "to stderr\n"
        assert process.returncode == 3


def test_where_it_has_ended_a_stage_imports_for_itself(start: Start, tmp_path: Path) -> None:
    process = start("exit", "0", PROXIMAL_WARM_SOCKET=str(tmp_path / "nothing"))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.startswith(f"{process.pid} ")


def test_a_fault_is_told_with_its_traceback(server: str, start: Start) -> None:
    process = start("fail", PROXIMAL_WARM_SOCKET=server)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "KeyError: 'a fault'"


def test_who_asked_ends_by_the_same_signal(server: str, start: Start) -> None:
    process = start("die", "9", PROXIMAL_WARM_SOCKET=server)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


def test_a_request_to_end_is_passed_on_and_waited_for(server: str, start: Start) -> None:
    process = start("sleep", PROXIMAL_WARM_SOCKET=server)
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert output == "asked to end\nended in order\n"
    assert process.returncode == 7


def test_who_is_killed_takes_the_fork_along(server: str, start: Start) -> None:
    process = start("sleep", PROXIMAL_WARM_SOCKET=server)
    assert process.stdout is not None
    pid = int(process.stdout.readline().split()[0])
    process.kill()
    process.communicate(timeout=60)  # the fork holds the pipes: this ends when it does
    assert process.returncode == -signal.SIGKILL
    _wait_until(lambda: not psutil.pid_exists(pid))


def test_the_warm_process_ends_after_those_that_run(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    warm_process = subprocess.Popen([sys.executable, "-P", warm.__file__, "serve", path])
    _wait_until(lambda: Path(path).exists())
    process = start("sleep", PROXIMAL_WARM_SOCKET=path)
    assert process.stdout is not None
    process.stdout.readline()
    warm_process.terminate()
    time.sleep(0.5)
    assert warm_process.poll() is None
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert output.endswith("ended in order\n")
    assert warm_process.wait(timeout=30) == 0


def test_nothing_survives_the_warm_process(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    warm_process = subprocess.Popen([sys.executable, "-P", warm.__file__, "serve", path])
    _wait_until(lambda: Path(path).exists())
    process = start("sleep", PROXIMAL_WARM_SOCKET=path)
    assert process.stdout is not None
    process.stdout.readline()
    warm_process.kill()
    warm_process.wait()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.endswith("the process that ran this stage is gone\n")


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
