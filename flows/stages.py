"""One Prefect task a stage: DVC decides whether it runs; the task launches, shows, times and retries."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.tasks import Task

from components import status_file
from components.errors import USER_ERROR_STATUS, ArtifactError
from components.place import Place
from components.status_file import Status
from components.work_folder import KEPT_VARIABLE, remove_all
from flows.budget import OverBudget
from flows.elsewhere import run_elsewhere
from flows.environment import stage_environment
from flows.gpus import held
from flows.graph import Stage, has_changed
from flows.operation import Operation
from flows.outcome import Outcome, PipelineFailure, StageFailure, failure, outcome
from flows.processes import processes_of
from flows.talk import Talk
from flows.transcript import Transcript

PROMOTION, MEASUREMENT, SAMPLING = "promotion", "measurement", "sampling"


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
    stage: Stage,
    folder: Path,
    variables: dict[str, str],
    upstream: list[Any],
    operation: Operation,
) -> State[Any]:
    """Bring one stage up to date with `dvc repro --single-item`, or see that it is.

    Args:
        folder: the repository, or a clone.
        variables: what the stage's command must know of its run.
        upstream: the outcomes of the stages that it needs, given as futures.
    """
    with Talk(stage.name) as talk:
        anew = any(outcome is not Outcome.UNCHANGED for outcome in upstream)
        changed = has_changed(folder, stage.name) if anew else stage.changed  # what was made may be as it was before
        if not changed:
            talk.end(Outcome.UNCHANGED)
            # What comes after it may read what a stage before it has made, and has to look.
            return Completed(name="Unchanged", data=Outcome.CONFIRMED if anew else Outcome.UNCHANGED)
        try:
            with operation.admitted(stage.name):
                return _bring_up_to_date(stage.name, talk, folder, variables, operation)
        except OverBudget as fault:
            return _failed(talk, StageFailure(stage.name, USER_ERROR_STATUS, str(fault)), stopped=False)


def _bring_up_to_date(
    name: str, talk: Talk, folder: Path, variables: dict[str, str], operation: Operation
) -> State[Any]:
    elsewhere: Outcome | None = None
    if operation.dispatch is not None:
        became = run_elsewhere(name, talk, folder, variables, operation.timeout_minutes, operation.dispatch)
        if isinstance(became, StageFailure):
            return _failed(talk, became, stopped=False)
        elsewhere = became
    # Two stages may start or end at once: DVC holds its lock then, and releases it while a command runs.
    command = [sys.executable, "-P", "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
    return _run(name, talk, command, folder, variables, operation, elsewhere)


@task(
    name=PROMOTION,
    task_run_name=PROMOTION,
    cache_policy=NO_CACHE,
    retries=1,
    retry_delay_seconds=5,
    retry_condition_fn=_is_worth_another_try,
)
def promote(folder: Path, variables: dict[str, str], upstream: list[Any], operation: Operation) -> State[Any]:
    """Offer the candidate for promotion: no DVC stage, for the registry is outside of DVC's sight.

    Whatever the budget: it decides on what is paid for.
    """
    del upstream  # needed for the order only
    with Talk(PROMOTION) as talk, held(operation.gpus):
        command = [sys.executable, "-m", "components.launch", PROMOTION]
        return _run(PROMOTION, talk, command, folder, variables, operation)


@task(name=MEASUREMENT, task_run_name=MEASUREMENT, cache_policy=NO_CACHE)
def measure(
    policy: str,
    out: Path,
    folder: Path,
    variables: dict[str, str],
    upstream: list[Any],
    operation: Operation,
) -> State[Any]:
    """Measure a policy as `proximal evaluate POLICY --out OUT` does: what the stage evaluation does with its own."""
    del upstream  # needed for the order only
    with Talk(MEASUREMENT) as talk:
        command = [sys.executable, "-m", "flows.cli", "evaluate", "--out", str(out), "--", policy]
        try:
            with operation.admitted("evaluation"):
                return _run(MEASUREMENT, talk, command, folder, variables, operation)
        except OverBudget as fault:
            return _failed(talk, StageFailure(MEASUREMENT, USER_ERROR_STATUS, str(fault)), stopped=False)


@task(name=SAMPLING, task_run_name=SAMPLING, cache_policy=NO_CACHE)
def sample(
    policy: str,
    prompts: int,
    draw: int,
    queue: Path,
    folder: Path,
    variables: dict[str, str],
    upstream: list[Any],
    operation: Operation,
) -> State[Any]:
    """Make a queue of pairs of a policy's answers as `proximal label POLICY --sample-only` does."""
    del upstream  # needed for the order only
    with Talk(SAMPLING) as talk, held(operation.gpus):
        command = [sys.executable, "-m", "flows.cli", "label", "--sample-only", "--policy", policy]
        command += ["--prompts", str(prompts), "--draw", str(draw), "--queue", str(queue)]
        return _run(SAMPLING, talk, command, folder, variables, operation)


def promotion_after(stages: Sequence[Stage]) -> Stage:
    """Promotion as the last of a pipeline's stages, which DVC does not know."""
    meaning = "the candidate against the champion; the better one is the champion"
    needed = {name for stage in stages for name in stage.upstream}
    last = tuple(stage.name for stage in stages if stage.name not in needed)
    return Stage(PROMOTION, last, True, meaning)


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
    talk: Talk,
    command: list[str],
    folder: Path,
    variables: dict[str, str],
    operation: Operation,
    elsewhere: Outcome | None = None,
) -> State[Any]:
    """Run a stage's command to its end. What became of one that ran elsewhere is known, and its result is there."""
    transcript, limit = Transcript(talk.line), operation.timeout_minutes
    with tempfile.TemporaryDirectory(prefix="proximal-") as scratch:
        file = Path(scratch) / "status"
        ended = processes_of(str(flow_run.id)).run(
            command,
            folder=folder,
            environment=stage_environment({**variables, status_file.VARIABLE: str(file), KEPT_VARIABLE: "1"}),
            timeout_s=limit * 60 if limit is not None else None,
            show=transcript,
        )
        told = status_file.read(file)
    if name in (PROMOTION, MEASUREMENT, SAMPLING) and told.exit_status is None:
        told = Status(began=True, exit_status=ended.status)  # no DVC in between
    if ended.status:
        return _failed(talk, failure(name, told, ended, transcript, limit), stopped=ended.stopped)
    became = outcome(name, told)
    if became is Outcome.RESTORED and (damage := _damage(name, folder)) is not None:
        talk.fail(": restored, and damaged")
        return Failed(message=str(damage), data=damage)
    remove_all(Place(folder).work, name)  # DVC has what was made: nothing is to go on any more
    became = elsewhere or became
    talk.end(became)
    return Completed(name=became.capitalize(), data=became)


def _failed(talk: Talk, fault: StageFailure, *, stopped: bool) -> State[Any]:
    why = f": {fault.message}" if fault.environment else ""  # it is tried again: nobody else would tell
    talk.fail(why, stopped=stopped)
    return Failed(message=str(fault), data=fault)


def _damage(name: str, folder: Path) -> StageFailure | None:
    """What DVC put in place is not what the stage once made: DVC does not look."""
    from components.tracking.verification import verify_outputs

    try:
        verify_outputs(name, folder)
    except ArtifactError as fault:
        return StageFailure(name, USER_ERROR_STATUS, str(fault))
    return None
