"""Flow runs that a killed process left open are ended by the next one that is alone with Prefect's database."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import left_open


@pytest.fixture(autouse=True)
def locks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process's locks are let go of, as at its end."""
    held: list[int] = []
    monkeypatch.setattr(left_open, "_AT_WORK", held)
    yield
    for lock in held:
        os.close(lock)


def test_what_is_open_is_ended_as_crashed_and_what_has_ended_stays(prefect_api: str, tmp_path: Path) -> None:
    from prefect import flow, task
    from prefect.client.orchestration import get_client
    from prefect.states import AwaitingRetry, Completed, Running, Scheduled

    @flow
    def nothing() -> None: ...

    @task
    def little() -> None: ...

    left_open.end_open_runs()  # of other tests
    with get_client(sync_client=True) as client:
        dead = client.create_flow_run(nothing, state=Running(), name="dead")
        work = client.create_task_run(little, dead.id, "0", state=Running())
        again = client.create_task_run(little, dead.id, "1", state=AwaitingRetry())
        later = client.create_flow_run(nothing, state=Scheduled(), name="later")
        done = client.create_flow_run(nothing, state=Completed(), name="done")
        with (tmp_path / "at_work.lock").open("w") as another:
            fcntl.flock(another, fcntl.LOCK_SH)
            assert left_open.end_dead_runs(tmp_path) == []  # it may be the other's
            assert client.read_flow_run(dead.id).state.is_running()  # type: ignore[union-attr]
        for lock in left_open._AT_WORK:
            os.close(lock)
        left_open._AT_WORK.clear()
        assert left_open.end_dead_runs(tmp_path) == ["dead"]
        states = [client.read_flow_run(run.id).state for run in (dead, done, later)]
        assert [state.name for state in states if state] == ["Crashed", "Completed", "Scheduled"]
        for task_run in (work, again):
            ended = client.read_task_run(task_run.id).state
            assert ended is not None and ended.is_crashed() and "without a word" in (ended.message or "")
    with (tmp_path / "at_work.lock").open("w") as another, pytest.raises(BlockingIOError):
        fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)  # this process is at work until its end
