"""Flow runs that a killed process left open in Prefect's local database: ended at the next start, as MLflow's are.

A server that deployments run on has an automation for that (infra/automations.yaml).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_AT_WORK: list[int] = []  # the lock, which goes with the process, however that ends


def end_dead_runs(home: Path) -> list[str]:
    """End as CRASHED what is open in the database that `home` holds, unless another process works with it.

    From then on, until its end, this process is one that does. Returns the names of the runs that it ended.
    """
    with alone(home) as is_alone:
        return end_open_runs() if is_alone else []


@contextmanager
def alone(home: Path) -> Iterator[bool]:
    """Whether no other process works with the database that `home` holds; none begins to in the block.

    From then on, until its end, this process is one that does.
    """
    lock = os.open(home / "at_work.lock", os.O_RDWR | os.O_CREAT, 0o600)
    _AT_WORK.append(lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # what is open may be that process's: whoever is alone some day sees to the rest
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(lock, fcntl.LOCK_SH)


def end_open_runs() -> list[str]:
    """End as CRASHED all that is open on the server of PREFECT_API_URL; returns the names of these runs."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    at_work = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    # A run that is scheduled has not begun; a task that is so awaits another try.
    open_runs = FlowRunFilter.model_validate({"state": {"type": {"any_": at_work}}})
    open_tasks = TaskRunFilter.model_validate({"state": {"type": {"any_": [*at_work, StateType.SCHEDULED]}}})
    ended, message = [], "the process ended without a word (killed, or the machine stopped)"
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=open_runs):
            of_it = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
            for task_run in client.read_task_runs(flow_run_filter=of_it, task_run_filter=open_tasks):
                client.set_task_run_state(task_run.id, Crashed(message=message), force=True)
            client.set_flow_run_state(run.id, Crashed(message=message), force=True)
            ended.append(run.name)
    return ended


if __name__ == "__main__":
    end_open_runs()
