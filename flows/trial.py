"""One of several runs that are tried side by side: in a clone, asked after each cycle whether it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from components.artifacts import read_json
from components.config import load_params
from components.errors import ProximalError
from components.place import Place
from flows.environment import set_environment, stage_variables
from flows.graph import read_stages
from flows.operation import Operations
from flows.outcome import PipelineFailure, came_to, failed
from flows.processes import end_with_worker, processes
from flows.progress import followed
from flows.record import read_evaluation, recorded
from flows.server import orderly
from flows.stages import conclude, run_stage
from flows.workspace import place_of_run

_CYCLE = "alignment@"


@dataclass(frozen=True)
class Tried:
    """What a trial came to.

    Args:
        run_id: of its run in MLflow.
        selected: what selection chose and why, from validation prompts; None where it was left early.
        evaluation: of the candidate on held-out prompts; None where it was left early.
    """

    run_id: str
    selected: dict[str, Any] | None
    evaluation: dict[str, Any] | None


@flow(name="trial", flow_run_name="{sweep} {number}", task_runner=ThreadPoolTaskRunner(max_workers=1))  # type: ignore[arg-type]
def trial(
    repository: Path,
    sweep: str,
    number: int,
    overrides: dict[str, Any],
    goes_on: Callable[[int, dict[str, float]], bool],
) -> State[Any]:
    """Run the pipeline of the last commit with other values, as a run of a sweep; gives what it came to, a `Tried`.

    Args:
        repository: as of `flows.rlhf.rlhf`, and so is overrides.
        sweep: the name that its runs share; in MLflow they lie below one run.
        number: of this trial.
        goes_on: is told a cycle and its means on validation prompts, and says whether the next cycle is worth it.
    """
    repository = repository.resolve()
    set_environment(repository)
    end_with_worker()
    try:
        with (
            orderly(),
            place_of_run(repository, str(flow_run.id), "HEAD", overrides) as folder,
            recorded(folder, str(flow_run.id), sweep=sweep) as run,
            processes(str(flow_run.id)),
        ):
            _tell(run.run_id, trial=str(number))
            variables = stage_variables(
                repository, PROXIMAL_PARENT_RUN_ID=run.run_id, PROXIMAL_FLOW_RUN_ID=str(flow_run.id)
            )
            graph = read_stages(folder)
            operations = Operations(load_params(Place(folder).params), graph, folder, repository)
            cycles = [stage.name for stage in graph if stage.name.startswith(_CYCLE)]
            stages: dict[str, PrefectFuture[Any]] = {}
            with followed(str(flow_run.id), graph, repository):
                for stage in graph:
                    upstream = [stages[name] for name in stage.upstream]
                    operation = operations.of(stage.name)
                    future = run_stage.submit(stage, folder, variables, upstream, operation, return_state=False)
                    stages[stage.name] = future
                    if stage.name in cycles[:-1] and not _is_worth_more(stage.name, future, folder, goes_on):
                        _tell(run.run_id, trial_state="PRUNED")
                        break
                conclude(stages, run.stages)
            chosen = Place(folder).selection / "selection.json"
            came = Tried(run.run_id, read_json(chosen) if chosen.exists() else None, read_evaluation(folder))
        return came_to(Completed(data=came))
    except (ProximalError, PipelineFailure) as failure:
        return came_to(failed(failure))


def _is_worth_more(
    stage: str, future: PrefectFuture[Any], folder: Path, goes_on: Callable[[int, dict[str, float]], bool]
) -> bool:
    future.wait()
    if not future.state.is_completed():  # what has failed is told by `conclude`
        return True
    cycle = stage.removeprefix(_CYCLE)
    return goes_on(int(cycle), read_json(Place(folder).alignment / cycle / "metrics.json")["validation"])


def _tell(run_id: str, **tags: str) -> None:
    from components.tracking.provenance import PIPELINE
    from components.tracking.runs import reopened

    with reopened(run_id, PIPELINE) as told:
        told.tags(tags)
