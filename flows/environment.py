"""What must stand in the environment before prefect or mlflow is imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from components.place import UNDELIVERED_VARIABLE, Place

TRACKING_URI_VARIABLE = "MLFLOW_TRACKING_URI"
ANALYTICS_VARIABLE = "DVC_NO_ANALYTICS"
# What a terminal shows of Prefect's run logs: the time, the stage, the line.
_LINE = "%(asctime)s  %(task_run_name)-16s %(message)s"


def set_environment(repository: Path) -> None:
    """Say where this run keeps its records, and switch telemetry off; what the user has set stays."""
    chosen = {
        "PREFECT_HOME": str(repository.resolve() / ".prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_CLIENT_MAX_RETRIES": "6",  # after 2, 4, 8 ... seconds: longer than a minute
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": _LINE,
        "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": _LINE.replace("%(task_run_name)", "%(flow_name)"),
        TRACKING_URI_VARIABLE: tracking_uri(repository),
    }
    for name, value in chosen.items():
        os.environ.setdefault(name, value)
    quiet_dvc(repository)
    os.environ[UNDELIVERED_VARIABLE] = str(Place(repository.resolve()).undelivered)  # nothing that a user sets


def quiet_dvc(repository: Path) -> None:
    """Keep DVC from reporting the commands that are ours: it does unless told, and starts a process for each of them.

    Whoever sets core.analytics in a configuration of DVC's has the last word.
    """
    from dvc.config import Config

    if "analytics" not in Config(dvc_dir=str(repository.resolve() / ".dvc"), validate=False).get("core", {}):
        os.environ.setdefault(ANALYTICS_VARIABLE, "1")


def tracking_uri(repository: Path) -> str:
    """The MLflow store of a repository; absolute, so that every process of a run means the same one."""
    return os.environ.get(TRACKING_URI_VARIABLE) or f"sqlite:///{repository.resolve() / 'mlflow.db'}"


def stage_variables(repository: Path, **more: str) -> dict[str, str]:
    """What a stage's command must know of its run; plain names, so that a task could run elsewhere."""
    undelivered = str(Place(repository.resolve()).undelivered)  # outlives a clone that the stage works in
    return {TRACKING_URI_VARIABLE: tracking_uri(repository), UNDELIVERED_VARIABLE: undelivered, **more}


def stage_environment(variables: dict[str, str]) -> dict[str, str]:
    """The environment of a stage: `python` in a stage's command is the interpreter that runs the task."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, **variables}
