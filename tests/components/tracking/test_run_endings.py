"""How a run ends: with an error, with a signal, without a word; real processes where they matter."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from recorded_runs import python, run_of

from components.config import Params
from components.errors import DataError
from components.tracking import reconcile_dead_runs, stage_run
from components.tracking import store as tracking_store
from components.tracking.writing import create_run


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        (DataError("a row is bad", where="row 3"), "FAILED", "DataError: a row is bad"),
        (RuntimeError("first\nsecond"), "FAILED", "RuntimeError: first"),
        (KeyboardInterrupt(), "KILLED", "KeyboardInterrupt"),
        (SystemExit(3), "KILLED", "SystemExit: 3"),
    ],
)
def test_what_goes_wrong_ends_the_run_and_goes_on(
    workspace: Path, params: Params, fault: BaseException, status: str, error: str
) -> None:
    with pytest.raises(type(fault)) as caught, stage_run("sft", params) as run:
        run.metrics({"loss": 1.0})
        raise fault
    assert caught.value is fault
    ended = run_of(run)
    assert (ended.info.status, ended.data.tags["error"]) == (status, error)
    assert ended.data.metrics == {"loss": 1.0}, "what was measured before is kept"


def test_sigterm_ends_the_run_as_killed(workspace: Path, params: Params) -> None:
    code = (
        "from components.tracking import stage_run\n"
        "with stage_run('sft', params) as run:\n"
        "    print(run.run_id, flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = python(code, folder=workspace)
    run_id = process.stdout.readline().strip()  # type: ignore[union-attr]
    process.terminate()
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    ended = tracking_store.client().get_run(run_id)
    assert (ended.info.status, ended.data.tags["error"]) == ("KILLED", "SystemExit: 143")


def test_a_run_whose_process_was_killed_is_reconciled_and_a_living_one_is_not(workspace: Path, params: Params) -> None:
    code = (
        "from components.tracking import stage_run\n"
        "with stage_run('sft', params) as run:\n"
        "    print(run.run_id, flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = python(code, folder=workspace)
    killed = process.stdout.readline().strip()  # type: ignore[union-attr]
    with stage_run("judge", params) as living:
        assert reconcile_dead_runs() == []
        process.kill()
        process.communicate()
        assert run_of(living).info.status == "RUNNING"
        assert tracking_store.client().get_run(killed).info.status == "RUNNING"
        assert reconcile_dead_runs() == [killed]
        assert reconcile_dead_runs() == []
        assert run_of(living).info.status == "RUNNING"
    ended = tracking_store.client().get_run(killed)
    assert ended.info.status == "KILLED"
    assert "without a word" in ended.data.tags["error"]


def test_a_run_of_another_machine_or_of_a_reused_pid_is_told_apart(workspace: Path) -> None:
    here = {"process_host": socket.gethostname(), "process_pid": str(os.getpid()), "process_started": "1.0"}
    elsewhere = create_run("sft", here | {"process_host": "another-machine", "process_pid": "999999999"}, {})
    reused = create_run("judge", here, {})
    assert reconcile_dead_runs() == [reused]
    tracking_store.client().set_terminated(elsewhere)


def test_a_store_that_fails_at_the_end_does_not_cover_the_first_fault(
    workspace: Path, params: Params, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good = os.environ["MLFLOW_TRACKING_URI"]
    with pytest.raises(DataError, match="the real fault"), stage_run("sft", params) as run:
        Path("broken.db").write_bytes(b"this is no database, " * 100)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace / 'broken.db'}")
        raise DataError("the real fault")
    assert "`proximal sync` delivers it" in caplog.text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", good)
    assert run_of(run).info.status == "RUNNING"
    reconcile_dead_runs()
    assert run_of(run).info.status == "FAILED"
    assert run_of(run).data.tags["error"] == "DataError: the real fault"
