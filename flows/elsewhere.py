"""A stage that runs on another pool, as its task sees it: a command in place of DVC's, `flows.dispatch`."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect.runtime import flow_run

from components import status_file
from components.errors import USER_ERROR_STATUS
from flows.environment import stage_environment
from flows.outcome import Outcome, StageFailure, killed
from flows.processes import processes_of, signal_of
from flows.talk import Talk
from flows.transcript import Transcript

CRASHED_STATUS = 75  # of a dispatch: the other machine is to blame, and another try may go better (sysexits' TEMPFAIL)


@dataclass(frozen=True)
class Dispatch:
    """Where a stage runs, and what its machine has to know; plain, as all of a task's parameters.

    Args:
        pool: Prefect's work pool.
        deployment: the id of the flow `stage` on that pool.
        remote: the DVC remote that hands over.
        revision: the commit that the stage runs at.
        overrides: values for dotted keys of params.yaml at that commit.
    """

    pool: str
    deployment: str
    remote: str
    revision: str
    overrides: dict[str, Any]


def run_elsewhere(
    stage: str,
    talk: Talk,
    folder: Path,
    variables: dict[str, str],
    timeout_minutes: float | None,
    dispatch: Dispatch,
) -> Outcome | StageFailure:
    """Let a stage run on its pool; when it has, the run cache here knows its result, and `dvc repro` restores it.

    Args:
        folder: the repository, or a clone.
        variables: what the stage's command must know of its run.
        timeout_minutes: when it is ended there, counted from when it begins.
    """
    request = json.dumps(
        {
            **asdict(dispatch),
            "stage": stage,
            "variables": variables,
            "sent_by": str(flow_run.id),
            "timeout_minutes": timeout_minutes,
        }
    )
    transcript = Transcript(talk.line)
    with tempfile.TemporaryDirectory(prefix="proximal-") as scratch:
        file = Path(scratch) / "status"
        ended = processes_of(str(flow_run.id)).run(
            [sys.executable, "-P", "-m", "flows.dispatch", request],
            folder=folder,
            environment=stage_environment({**variables, status_file.VARIABLE: str(file)}),
            timeout_s=None,  # the stage may wait for a free worker as long as it takes
            show=transcript,
        )
        ran = status_file.read(file).began
    if ended.status == 0:
        return Outcome.RAN if ran else Outcome.RESTORED
    if ended.stopped:
        return StageFailure(stage, 1, "ended with the run")
    if name := signal_of(ended.status):
        return killed(stage, f"the process that waited for it was killed by {name}")
    status = USER_ERROR_STATUS if ended.status == USER_ERROR_STATUS else 1
    return StageFailure(stage, status, transcript.message(), environment=ended.status == CRASHED_STATUS)
