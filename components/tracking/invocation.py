"""The DVC command that runs a stage, where no flow does: `dvc repro`, `dvc exp run`, its queue and its temporary folders."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil

from components.tracking.provenance import HOST, PID, STARTED

STAGE_VARIABLE = "DVC_STAGE"  # set by DVC for the command of a stage
_NAME_VARIABLE = "DVC_EXP_NAME"  # set by DVC in experiments
INVOCATION = "dvc_invocation"


def repository() -> Path:
    """The present folder; where it is a temporary one of DVC's (REPOSITORY/.dvc/tmp/exps/...), the repository."""
    here = Path.cwd()
    for folder in here.parents:
        if folder.parts[-3:] == (".dvc", "tmp", "exps"):
            return folder.parents[2]
    return here


def dvc_tags() -> dict[str, str] | None:
    """Tags of the DVC command that started this process, which tell it from all others; None where none did."""
    process: psutil.Process | None = psutil.Process()
    try:
        if STAGE_VARIABLE not in os.environ:
            return None
        while process is not None and STAGE_VARIABLE in process.environ():
            process = process.parent()  # up to DVC itself, past the shell and the processes of other ranks
        if process is None:
            return None
        pid, started = str(process.pid), str(process.create_time())
    except psutil.Error:  # a process that ends, or of another user
        return None
    host, name = socket.gethostname(), experiment_name()
    return {HOST: host, PID: pid, STARTED: started, INVOCATION: f"{host} {pid} {started} {name}"}


def experiment_name() -> str:
    """DVC's name of the experiment, or what runs outside of one."""
    return os.environ.get(_NAME_VARIABLE) or "dvc repro"
