"""Stages that are ended from outside, by the machine, a time limit or a signal: tried again, or with nothing left."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_project import Tiny, is_running, longest_s

from components import supervise
from components.errors import EnvironmentFault


@pytest.mark.parametrize("killed", ["repro", str(Path(supervise.__file__))], ids=["DVC", "supervisor"])
def test_a_stage_ends_with_the_process_that_runs_it_and_is_tried_again(
    tiny: Tiny, run_flow: Callable[..., Any], killed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "/bin/sh")  # what DVC takes where a service runs it, and on Debian it does not exec
    tiny.stages(a={"kills_once": killed})
    assert run_flow().result().stages == {"a": "ran"}
    assert [entry["event"] for entry in tiny.log()] == ["begin", "begin", "end"]
    assert not is_running(tiny.log()[0]["pid"])


def test_a_stage_that_the_machine_killed_is_tried_again(tiny: Tiny, run_flow: Callable[..., Any]) -> None:
    tiny.stages(a={"killed_once": True})
    assert run_flow().result().stages == {"a": "ran"}
    assert tiny.began() == ["a", "a"]


def test_the_time_limit_ends_the_stage_and_all_it_started(tiny: Tiny, run_flow: Callable[..., Any]) -> None:
    tiny.stages(sft={"seconds": 600, "detached_child": True}, b={"needs": ["sft"]})
    tiny.limit(sft=0.1)
    begin = time.monotonic()
    state = run_flow()
    assert time.monotonic() - begin < 30
    assert state.message.startswith(
        "stage sft: ended after 0.1 minutes, its orchestration.timeout_minutes in params.yaml"
    )
    assert tiny.began() == ["sft"]
    pids = [tiny.log()[0]["pid"], int((tiny.folder / "child.pid").read_text())]
    assert not any(is_running(pid) for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_second_run_is_refused_and_nothing_outlives_the_first(
    tiny: Tiny,
    proximal: Callable[..., subprocess.Popen[str]],
    run_flow: Callable[..., Any],
    number: signal.Signals,
) -> None:
    tiny.stages(a={"seconds": 600, "detached_child": True})
    process = proximal("run", "--no-promotion")
    pids = _wait_for_child(tiny)
    assert all(is_running(pid) for pid in pids)
    refusal = run_flow().result(raise_on_failure=False)
    assert isinstance(refusal, EnvironmentFault) and refusal.where == str(tiny.folder)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode not in (0, None), output
    deadline = time.monotonic() + longest_s()
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(is_running(pid) for pid in pids)
    if number != signal.SIGKILL:
        assert _pipeline_status(tiny) == "KILLED"
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted: finished stages are kept" in output and "Crash detected" not in output
        assert "Traceback" not in output and "Aborted" not in output


def _wait_for_child(tiny: Tiny) -> list[int]:
    """The pids of a running stage and of the child that it has detached."""
    file = tiny.folder / "child.pid"
    deadline = time.monotonic() + 90
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline, "the stage did not begin"
        time.sleep(0.1)
    return [tiny.log()[-1]["pid"], int(file.read_text())]


def _pipeline_status(tiny: Tiny) -> str:
    """How MLflow recorded the pipeline run of the stage that ran last."""
    from components.tracking import store

    return str(store.client().get_run(tiny.log()[-1]["parent_run"]).info.status)
