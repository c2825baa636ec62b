"""The DVC command that runs a stage, where no flow does (`dvc repro`, `dvc exp run`, the queue): the parent's run."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from components.config import Params
from components.errors import EnvironmentFault
from components.tracking import store
from components.tracking.history import search_tag
from components.tracking.naming import run_name
from components.tracking.pipeline import pipeline_tags
from components.tracking.provenance import HOST, PID, STARTED, flatten
from components.tracking.writing import create_run

STAGE_VARIABLE = "DVC_STAGE"  # set by DVC for the command of a stage
_NAME_VARIABLE = "DVC_EXP_NAME"  # set by DVC in experiments
_INVOCATION = "dvc_invocation"


def _dvc_tags() -> dict[str, str] | None:
    """Tags of the DVC command that started this process, by which its other stages find its run; None: none did."""
    process: psutil.Process | None = psutil.Process()
    try:
        if STAGE_VARIABLE not in os.environ:
            return None
        while process is not None and STAGE_VARIABLE in process.environ():
            process = process.parent()  # up to DVC itself, past the shell and the processes of other ranks
        if process is None or process.pid == os.getpid():  # a fork of another process, which has DVC's word only
            return None
        pid, started = str(process.pid), str(process.create_time())
    except psutil.Error:  # a process that ends, or of another user
        return None
    host, name = socket.gethostname(), os.environ.get(_NAME_VARIABLE, "")
    return {HOST: host, PID: pid, STARTED: started, _INVOCATION: f"{host} {pid} {name}".strip()}


def _experiment() -> dict[str, str]:
    """DVC's name of the experiment as a tag, in which `dvc exp` finds it again; none outside of one."""
    name = os.environ.get(_NAME_VARIABLE)
    return {"dvc_experiment": name} if name else {}


@contextmanager
def child_of_dvc(params: Params, root: Path) -> Iterator[str | None]:
    """The run of the DVC command, open while one of its stages runs: nobody tells when the command has ended.

    Gives its id, or None where DVC did not start this process.
    """
    if (dvc := _dvc_tags()) is None:
        yield None
        return
    parent, before = _open(params, dvc, root)
    try:
        yield parent
    except BaseException as fault:
        with suppress(EnvironmentFault):  # the stage's run has met the same, and said so
            _close(parent, before, status_after(fault))
        raise
    _close(parent, before, "FINISHED")


def status_after(fault: BaseException) -> str:
    """What a run that this ended is."""
    return "FAILED" if isinstance(fault, Exception) else "KILLED"


def _open(params: Params, dvc: Mapping[str, str], root: Path) -> tuple[str, str]:
    """The run of this DVC command, made by its first stage, and its status before."""
    for run in search_tag(_INVOCATION, dvc[_INVOCATION]):
        # A number is given again, a start time is not; psutil derives it from the boot time, which may drift.
        if abs(float(run.tags[STARTED]) - float(dvc[STARTED])) < 2.0:
            with store.tracking_faults():
                store.client().update_run(run.run_id, status="RUNNING")
            return run.run_id, run.status
    tags = pipeline_tags(params, root) | {"mlflow.source.name": "dvc", **_experiment(), **dvc}
    return create_run(run_name(params, root), tags, flatten(params.values())), "RUNNING"


def _close(parent: str, before: str, status: str) -> None:
    """What has failed stays so: DVC may go on with other stages."""
    with store.tracking_faults():
        store.client().set_terminated(parent, before if before in ("FAILED", "KILLED") else status)
