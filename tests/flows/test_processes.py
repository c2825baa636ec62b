"""Commands of a run: their lines, their limits, and that none of them outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tiny_project import is_running

from components import supervise
from flows.processes import Ended, Processes, processes, processes_of, stop_all

# Two sleeping processes: one in the same session, one in a session of its own whose parent has ended.
TREE = "sleep 600 & echo $!; setsid sh -c 'sleep 600 & echo $!' & wait"


def test_every_state_of_a_progress_bar_is_a_line(tmp_path: Path) -> None:
    lines: list[str] = []
    started = Processes()
    ended = started.run(
        [sys.executable, "-c", r"print('1/2\r2/2\rdone')"],
        folder=tmp_path,
        environment=dict(os.environ),
        timeout_s=None,
        show=lines.append,
    )
    assert lines == ["1/2", "2/2", "done"]
    assert (ended.status, ended.timed_out, ended.stopped) == (0, False, False)


def test_the_status_is_the_commands(tmp_path: Path) -> None:
    started = Processes()
    for command, status in (("exit 3", 3), ("kill -9 $$", 137)):
        ended = started.run(
            ["sh", "-c", command],
            folder=tmp_path,
            environment=dict(os.environ),
            timeout_s=None,
            show=print,
        )
        assert ended.status == status


def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    lines: list[str] = []
    started = Processes()
    started.run(
        ["sh", "-c", "setsid sleep 600 & echo $!"],
        folder=tmp_path,
        environment=dict(os.environ),
        timeout_s=None,
        show=lines.append,
    )
    assert not is_running(int(lines[0]))


def test_a_limit_of_time_ends_the_whole_tree(tmp_path: Path) -> None:
    lines: list[str] = []
    started = Processes()
    ended = started.run(
        ["sh", "-c", TREE],
        folder=tmp_path,
        environment=dict(os.environ),
        timeout_s=1.5,
        show=lines.append,
    )
    assert ended.timed_out
    assert len(lines) == 2
    assert not any(is_running(int(pid)) for pid in lines)


def test_a_killed_parent_takes_the_whole_tree_with_it() -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, subprocess, sys\n"
            "subprocess.run([sys.executable, sys.argv[1], str(os.getpid()), 'sh', '-c', sys.argv[2]])",
            supervise.__file__,
            TREE,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    assert all(is_running(pid) for pid in pids)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 15
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in pids)


def test_requests_to_end_that_come_together_end_the_whole_tree() -> None:
    # As when a parent with threads is killed: the kernel sends the signal once for each that ends.
    for _ in range(5):
        supervisor = subprocess.Popen(
            [sys.executable, supervise.__file__, str(os.getpid()), "sh", "-c", TREE], stdout=subprocess.PIPE, text=True
        )
        assert supervisor.stdout is not None
        pids = [int(supervisor.stdout.readline()) for _ in range(2)]
        while supervisor.poll() is None:
            supervisor.send_signal(signal.SIGTERM)
        supervisor.stdout.close()
        assert not any(is_running(pid) for pid in pids)


def test_a_process_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
    begin = time.monotonic()
    started = Processes()
    ended = started.run(
        [sys.executable, "-c", stubborn],
        folder=tmp_path,
        environment=dict(os.environ),
        timeout_s=1,
        show=print,
    )
    assert ended.timed_out
    assert time.monotonic() - begin < 20


def test_what_a_flow_run_starts_ends_with_it_and_nothing_is_started_afterwards(tmp_path: Path) -> None:
    lines: list[str] = []
    ended: list[Ended] = []

    def task(run: str) -> None:
        command = ["sh", "-c", "echo $$; exec sleep 600"]
        environment = dict(os.environ)
        ended.append(
            processes_of(run).run(command, folder=tmp_path, environment=environment, timeout_s=None, show=lines.append)
        )

    with processes("other"):
        for stop in (lambda: None, stop_all):  # the run ends by itself, or all of them are told to
            lines.clear()
            ended.clear()
            with processes("one"):
                thread = threading.Thread(target=task, args=["one"])
                thread.start()
                deadline = time.monotonic() + 15
                while not lines:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                assert is_running(int(lines[0]))
                stop()
            thread.join(15)
            assert ended[0].stopped and not is_running(int(lines[0]))
            task("one")
            assert ended[1].stopped and len(lines) == 1
        task("other")
        assert ended[2].stopped and len(lines) == 1


def test_a_task_that_runs_elsewhere_than_its_flow_starts_its_command_all_the_same(tmp_path: Path) -> None:
    lines: list[str] = []
    ended = processes_of("elsewhere").run(
        ["echo", "here"], folder=tmp_path, environment=dict(os.environ), timeout_s=None, show=lines.append
    )
    assert lines == ["here"] and ended.status == 0
