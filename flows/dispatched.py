"""The flow of a stage that another run has sent to this pool: it works in a clone of this machine's repository."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed
from ruamel.yaml import YAML

from components.errors import USER_ERROR_STATUS, ConfigError, ProximalError
from flows.environment import TRACKING_URI_VARIABLE, set_environment, stage_environment
from flows.gpus import gpus_of
from flows.graph import PIPELINE, Stage
from flows.operation import Operation
from flows.outcome import PipelineFailure, StageFailure, failed
from flows.processes import end_with_worker, processes, processes_of, stop_all
from flows.progress import followed
from flows.stages import run_stage
from flows.transcript import Transcript
from flows.workspace import bring_commit, workspace

REPOSITORY_VARIABLE = "PROXIMAL_REPOSITORY"
_LOOKS_EVERY_S = 15.0


@flow(name="stage")
def stage(
    stage: str,
    revision: str,
    overrides: dict[str, Any],
    variables: dict[str, str],
    remote: str,
    sent_by: str,
    lock: dict[str, Any],
    reads: dict[str, Any],
    timeout_minutes: float | None,
) -> State[Any]:
    """Run one stage as the run that sent it would have, and hand the result over; see `flows.dispatch`.

    Args:
        stage: what `dvc repro` calls it.
        revision: the commit that it runs at, which this machine's repository or its origin has.
        overrides: values for dotted keys of params.yaml at that commit.
        variables: what the stage's command must know of its run.
        remote: the DVC remote that has the inputs and takes the result.
        sent_by: the id of the flow run that waits for it.
        lock: what dvc.lock says of the inputs.
        reads: a digest or value of all that the stage goes by, where its run is.
        timeout_minutes: when the stage is ended; None for never.
    """
    end_with_worker()
    try:
        repository = _repository()
        # Where this machine names an MLflow server, it may be the same one by another address.
        variables[TRACKING_URI_VARIABLE] = os.environ.setdefault(
            TRACKING_URI_VARIABLE, variables[TRACKING_URI_VARIABLE]
        )
        set_environment(repository)
        bring_commit(repository, revision)
        clone = workspace(repository, name=str(flow_run.id), revision=revision, overrides=overrides, with_data=False)
        with (
            clone as folder,
            _reconciled(),
            processes(str(flow_run.id)),
            _ended_with(sent_by),
        ):
            YAML().dump({"schema": "2.0", "stages": lock}, folder / PIPELINE.with_suffix(".lock"))
            _hand_over(folder, stage, remote, json.dumps(reads))
            work, operation = Stage(stage, (), True), Operation(timeout_minutes, gpus_of(folder))
            with followed(str(flow_run.id), [work], repository):
                state = run_stage(work, folder, variables, [], operation, return_state=True)
            became = state.result(raise_on_failure=False)
            if isinstance(became, StageFailure):
                raise PipelineFailure([became])
            if isinstance(became, Exception):
                raise became  # a fault of the task itself
            _hand_over(folder, stage, remote)
            return Completed(name=state.name)
    except (ProximalError, PipelineFailure) as failure:
        return failed(failure)


def _repository() -> Path:
    """This machine's clone of the project. Raises: ConfigError, the worker was not told where it is."""
    named = os.environ.get(REPOSITORY_VARIABLE, "")
    if not (Path(named) / PIPELINE).is_file() or not Path(named).is_absolute():
        raise ConfigError(
            "the worker does not know where its clone of the project is",
            where=f"{REPOSITORY_VARIABLE} of the worker on {socket.gethostname()}",
            expected="the whole path of a folder with dvc.yaml",
            found=named or "nothing",
            do="set the variable where `prefect worker start` is called",
        )
    return Path(named)


def _hand_over(folder: Path, name: str, remote: str, *reads: str) -> None:
    """Fetch what the stage reads, or send what it made, in a process that ends with this run.

    Raises:
        PipelineFailure: it did not arrive.
    """
    transcript = Transcript(get_run_logger().info)
    ended = processes_of(str(flow_run.id)).run(
        [sys.executable, "-P", "-m", "flows.hand_over", name, remote, *reads],
        folder=folder,
        environment=stage_environment({}),
        timeout_s=None,
        show=transcript,
    )
    if ended.status:
        status = USER_ERROR_STATUS if ended.status == USER_ERROR_STATUS else 1
        message = "ended with the run" if ended.stopped else transcript.message()
        raise PipelineFailure([StageFailure(name, status, message)])


@contextmanager
def _reconciled() -> Iterator[None]:
    """Close the MLflow runs of processes that were killed on this machine, before and after."""
    from components.tracking import reconcile_dead_runs

    reconcile_dead_runs()
    try:
        yield
    finally:
        reconcile_dead_runs()


@contextmanager
def _ended_with(parent: str) -> Iterator[None]:
    """End the stage when the run that sent it has ended: its machine may be gone, and nobody would take the result."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOKS_EVERY_S):
            try:
                with get_client(sync_client=True) as client:
                    state = client.read_flow_run(parent).state  # type: ignore[arg-type]
            except httpx.HTTPError:
                continue  # the server is away, and may come back
            except ObjectNotFound:
                state = None
            if state is None or state.is_final():
                stop_all()
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()
