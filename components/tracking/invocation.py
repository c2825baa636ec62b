"""The DVC command that runs a stage, where no flow does (`dvc repro`, `dvc exp run`, the queue): the parent's run."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from components.config import Params
from components.tracking import store
from components.tracking.history import get_run, search_tag
from components.tracking.naming import run_name
from components.tracking.provenance import HOST, PID, STARTED, flatten, pipeline_tags
from components.tracking.sweeps import of_queue, open_sweep, refresh_sweep, tags_below
from components.tracking.writing import create_run

STAGE_VARIABLE = "DVC_STAGE"  # set by DVC for the command of a stage
_NAME_VARIABLE = "DVC_EXP_NAME"  # set by DVC in experiments
_INVOCATION = "dvc_invocation"
_OF_QUEUE = "exec-run"  # `dvc exp exec-run` is what a worker of DVC's queue starts for each experiment


def _dvc_command() -> tuple[dict[str, str], bool] | None:
    """The DVC command that started this process: the tags by which its other stages find its run, and whether DVC's
    queue started it; None: none did."""
    process: psutil.Process | None = psutil.Process()
    try:
        if STAGE_VARIABLE not in os.environ:
            return None
        while process is not None and STAGE_VARIABLE in process.environ():
            process = process.parent()  # up to DVC itself, past the shell and the processes of other ranks
        if process is None or process.pid == os.getpid():  # a fork of another process, which has DVC's word only
            return None
        pid, started, queued = str(process.pid), str(process.create_time()), _OF_QUEUE in process.cmdline()
    except psutil.Error:  # a process that ends, or of another user
        return None
    host, name = socket.gethostname(), os.environ.get(_NAME_VARIABLE, "")
    return {HOST: host, PID: pid, STARTED: started, _INVOCATION: f"{host} {pid} {name}".strip()}, queued


def _experiment() -> dict[str, str]:
    """DVC's name of the experiment as a tag, in which `dvc exp` finds it again; none outside of one."""
    name = os.environ.get(_NAME_VARIABLE)
    return {"dvc_experiment": name} if name else {}


def invocation(params: Params, root: Path) -> dict[str, Any] | None:
    """What the run of the DVC command that started this process is made of; None where DVC did not start it."""
    if (command := _dvc_command()) is None:
        return None
    dvc, queued = command
    tags = pipeline_tags(params, root) | {"mlflow.source.name": "dvc", **_experiment(), **dvc}
    return {
        "name": run_name(params, root),
        "tags": tags,
        "params": flatten(params.values()),
        "sweep": of_queue(root) if queued else None,
    }


def open_parent(told: Mapping[str, Any]) -> tuple[str, str]:
    """The run of this DVC command, made by its first stage, and its status before.

    It is open while one of its stages runs: nobody tells when the command has ended.
    """
    tags, of_sweep = told["tags"], told.get("sweep")
    sweep = tags_below(open_sweep(of_sweep), of_sweep) if of_sweep else {}
    for run in search_tag(_INVOCATION, tags[_INVOCATION]):
        # A number is given again, a start time is not; psutil derives it from the boot time, which may drift.
        if abs(float(run.tags[STARTED]) - float(tags[STARTED])) < 2.0:
            with store.tracking_faults():
                store.client().update_run(run.run_id, status="RUNNING")
            return run.run_id, run.status
    return create_run(told["name"], tags | sweep, told["params"]), "RUNNING"


def close_parent(parent: str, before: str, status: str) -> None:
    """What has failed stays so: DVC may go on with other stages."""
    with store.tracking_faults():
        store.client().set_terminated(parent, before if before in ("FAILED", "KILLED") else status)
    refresh_sweep(get_run(parent))
