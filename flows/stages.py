"""One Prefect task a stage: DVC decides whether it runs; the task launches, shows, times and retries."""

from __future__ import annotations

import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture, wait
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed
from prefect.tasks import Task

from components.errors import USER_ERROR_STATUS, ArtifactError, ProximalError
from components.launch import STATUS_FILE_VARIABLE
from flows.graph import Stage
from flows.processes import Processes

PROMOTION = "promotion"
# What DVC says at every stage and nobody needs here.
_CHATTER = re.compile(
    r"\s*$|Running stage '|> |Updating lock file|Generating lock file|Verifying data sources in stage"
    r"|To track the changes with git|\tgit add |To enable auto staging|\tdvc config core.autostage"
    r"|Use `dvc push`|Data and pipelines are up to date"
)
_RESTORED = re.compile(r"Stage '.*' is cached - skipping run")
_UNCHANGED = re.compile(r"(Stage )?'.*' didn't change, skipping$")
_DVC_FAULT = re.compile(r"ERROR: (?P<fault>.*)")
_DVC_STATUS = re.compile(r", exited with (?P<status>-?\d+)$")
_ENTRY_FAULT = "error: "  # how components.launch begins the message of a fault that the user can mend


class Outcome(StrEnum):
    """What a stage's task did."""

    UNCHANGED = "unchanged"  # nothing to do
    RESTORED = "restored"  # DVC had the result and put it in place
    PINNED = "pinned"  # new raw data, now named by its .dvc file
    RAN = "ran"


class StageFailure(Exception):
    """A stage that did not reach its end.

    Args:
        stage: its name.
        status: what the flow exits with for it: 2 where the user can mend it, else 1.
        message: what the stage said, without traceback.
        environment: the machine's fault, not the stage's: worth another try.
    """

    def __init__(self, stage: str, status: int, message: str, *, environment: bool = False) -> None:
        super().__init__(stage, status, message)
        self.stage, self.status, self.message, self.environment = stage, status, message, environment

    def __str__(self) -> str:
        return f"stage {self.stage}: {self.message}"


class PipelineFailure(Exception):
    """One or more stages failed; the others that could run did."""

    def __init__(self, failures: list[StageFailure]) -> None:
        super().__init__("\n".join(str(failure) for failure in failures))
        self.status = USER_ERROR_STATUS if all(f.status == USER_ERROR_STATUS for f in failures) else 1


def failed(failure: ProximalError | PipelineFailure) -> State[Any]:
    """The final state of a flow: FAILED is for us and the machine; what the user can mend is no alarm, but refused."""
    if isinstance(failure, ProximalError) or failure.status == USER_ERROR_STATUS:
        return Cancelled(name="Refused", message=str(failure), data=failure)
    return Failed(message=str(failure), data=failure)


class Transcript:
    """Passes on what a stage prints, line by line, and keeps the message of its failure for the end."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._message: list[str] = []
        self._dvc_fault = ""
        self._last_line = ""
        self.unchanged = False  # DVC looked again and found nothing to do
        self.restored = False  # DVC had the result

    def __call__(self, line: str) -> None:
        if line.startswith(_ENTRY_FAULT) and not self._message:
            self._message.append(line.removeprefix(_ENTRY_FAULT))
        elif self._message and line.startswith("  "):
            self._message.append(line)
        elif fault := _DVC_FAULT.match(line):
            self._dvc_fault = fault["fault"]
        elif _UNCHANGED.match(line):
            self.unchanged = True
        elif _RESTORED.match(line):
            self.restored = True
        elif not _CHATTER.match(line):
            self._last_line = line.strip()
            self._show(line)

    def failure(self, stage: str, stage_status: int | None) -> StageFailure:
        """What went wrong, by what was printed and by the status that the stage's entry left behind."""
        if stage_status is None and (found := _DVC_STATUS.search(self._dvc_fault)):
            stage_status = int(found["status"])
        if not stage_status:  # the stage's command never started, or DVC could not take what it made
            return StageFailure(stage, USER_ERROR_STATUS, self._dvc_fault or self._last_line)
        if (killed := _killed(stage, stage_status)) is not None:
            return killed
        status = USER_ERROR_STATUS if stage_status == USER_ERROR_STATUS else 1
        return StageFailure(stage, status, "\n".join(self._message) or self._last_line)


def _killed(stage: str, status: int, what: str = "") -> StageFailure | None:
    """The failure of a stage of which a process ended with this status, if a signal ended it."""
    number = -status if status < 0 else status - 128
    if number not in set(signal.Signals):
        return None
    message = f"{what}was killed by {signal.Signals(number).name}; out of memory is the usual reason"
    return StageFailure(stage, 1, message, environment=True)


def _is_worth_another_try(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, StageFailure) and state.data.environment


@task(
    name="stage",
    task_run_name="{stage.name}",
    cache_policy=NO_CACHE,  # DVC's cache is the only one
    retries=1,
    retry_delay_seconds=5,
    retry_condition_fn=_is_worth_another_try,
)
def run_stage(
    stage: Stage, repository: Path, environment: dict[str, str], processes: Processes, upstream: list[Any]
) -> State[Any]:
    """Bring one stage up to date with `dvc repro --single-item`, or see that it is.

    Args:
        upstream: the outcomes of the stages that it needs, given as futures.
    """
    if not stage.changed and all(outcome is Outcome.UNCHANGED for outcome in upstream):
        get_run_logger().info("unchanged")
        return Completed(name="Unchanged", data=Outcome.UNCHANGED)
    # Two stages may start or end at once: DVC holds its lock then, and releases it while a command runs.
    command = [sys.executable, "-P", "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage.name]
    return _run(stage.name, command, repository, environment, processes, stage.timeout_minutes)


@task(
    name=PROMOTION,
    task_run_name=PROMOTION,
    cache_policy=NO_CACHE,
    retries=1,
    retry_delay_seconds=5,
    retry_condition_fn=_is_worth_another_try,
)
def promote(repository: Path, environment: dict[str, str], processes: Processes, upstream: list[Any]) -> State[Any]:
    """Offer the candidate for promotion: no DVC stage, for the registry is outside of DVC's sight."""
    del upstream  # needed for the order only
    command = [sys.executable, "-m", "components.launch", PROMOTION]
    return _run(PROMOTION, command, repository, environment, processes, None)


def conclude(stages: Mapping[str, PrefectFuture[Any]], outcomes: dict[str, str]) -> None:
    """Wait for all stages, and note in `outcomes` what became of each.

    Raises:
        PipelineFailure: a stage failed.
    """
    wait(list(stages.values()))
    failures = []
    for name, future in stages.items():
        if not future.state.is_final():  # something that it needs failed
            outcomes[name] = "not run"
            continue
        result = future.state.result(raise_on_failure=False)
        if isinstance(result, Outcome):
            outcomes[name] = str(result)
        elif isinstance(result, StageFailure):
            outcomes[name] = "failed"
            failures.append(result)
        else:
            raise result  # a fault of the task itself
    if failures:
        raise PipelineFailure(failures)


def _run(
    name: str,
    command: list[str],
    repository: Path,
    environment: dict[str, str],
    processes: Processes,
    timeout_minutes: float | None,
) -> State[Any]:
    logger = get_run_logger()
    transcript = Transcript(logger.info)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="proximal-") as folder:
        status_file = Path(folder) / "status"
        ended = processes.run(
            command,
            folder=repository,
            environment={**environment, STATUS_FILE_VARIABLE: str(status_file)},
            timeout_s=timeout_minutes * 60 if timeout_minutes is not None else None,
            show=transcript,
        )
        stage_status = int(status_file.read_text()) if status_file.exists() else None
    if stage_status is None and name == PROMOTION:
        stage_status = ended.status  # no DVC in between
    if ended.status == 0:
        outcome = _outcome(name, transcript)
        if outcome is Outcome.RESTORED and (damage := _damage(name, repository)) is not None:
            logger.error("restored, and damaged")
            return Failed(message=str(damage), data=damage)
        logger.info("%s, %.0f s", outcome, time.monotonic() - begin)
        return Completed(name=outcome.capitalize(), data=outcome)
    if ended.stopped:
        failure = StageFailure(name, 1, "ended with the run")
    elif ended.timed_out:
        message = f"ended after {timeout_minutes:g} minutes, its `meta.timeout_minutes` in dvc.yaml"
        failure = StageFailure(name, 1, message)
    else:
        # DVC or its supervisor: the stage was ended with it.
        killed = _killed(name, ended.status, "the process that ran it ") if stage_status in (None, 0) else None
        failure = killed or transcript.failure(name, stage_status)
    logger.error("failed, %.0f s", time.monotonic() - begin)
    return Failed(message=str(failure), data=failure)


def _damage(name: str, repository: Path) -> StageFailure | None:
    """What DVC put in place is not what the stage once made: DVC does not look."""
    from components.tracking.verification import verify_outputs

    try:
        verify_outputs(name, repository)
    except ArtifactError as fault:
        return StageFailure(name, USER_ERROR_STATUS, str(fault))
    return None


def _outcome(name: str, transcript: Transcript) -> Outcome:
    if transcript.unchanged:
        return Outcome.UNCHANGED
    if name.endswith(".dvc"):
        return Outcome.PINNED
    return Outcome.RESTORED if transcript.restored else Outcome.RAN
