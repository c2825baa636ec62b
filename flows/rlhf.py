"""The main job: every stage of dvc.yaml in graph order, then promotion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from components.config import load_params
from components.errors import ProximalError
from components.interface.terminal import Ending
from components.place import Place
from components.promotion.champions import require_champion
from flows.alarms import watched
from flows.approval import answered, ask
from flows.ending import ending
from flows.environment import set_environment, stage_variables
from flows.graph import read_stages, sort_lock
from flows.operation import Operations
from flows.outcome import PipelineFailure, came_to, failed
from flows.processes import end_with_worker, processes
from flows.progress import followed
from flows.record import read_cost, read_evaluation, recorded, report_page
from flows.server import orderly
from flows.shown import name_run, show_links, show_progress, show_result
from flows.stages import PROMOTION, conclude, promote, promotion_after, run_stage
from flows.workspace import place_of_run

# Stages that need nothing of each other run side by side on CPUs: the reward model and the judge. GPUs have room for
# the models of one stage, so that there each waits for the one before.
CONCURRENT_STAGES = 2
IDLE = "Nothing to do"  # the name of the final state; infra/automations.yaml has it


@dataclass(frozen=True)
class Result:
    """What a pipeline run came to.

    Args:
        stages: what became of each stage.
        evaluation: components.evaluation's metrics.json; None in a pipeline that does not evaluate.
        cost: what the chosen policy took; see `read_cost`.
        ending: what to tell whoever asked for the run.
    """

    stages: dict[str, str]
    evaluation: dict[str, Any] | None
    cost: dict[str, float]
    ending: Ending


@flow(name="rlhf", flow_run_name="rlhf", task_runner=ThreadPoolTaskRunner(max_workers=CONCURRENT_STAGES))  # type: ignore[arg-type]
def rlhf(
    repository: Path,
    revision: str | None = None,
    overrides: dict[str, Any] | None = None,
    promotion: bool = True,
    more_cycles: int = 0,
    start: str | None = None,
    tags: dict[str, str] | None = None,
) -> State[Any]:
    """From raw preferences to a promoted model: what has changed since the last run, and nothing else.

    Args:
        repository: the folder with dvc.yaml; it keeps the DVC cache and the MLflow records.
        revision: run this git revision in a clone of its own; without it, run in the repository itself.
        overrides: values for dotted keys of params.yaml in that clone.
        promotion: offer the result for promotion.
        more_cycles: in a clone, go on for so many cycles after those of params.yaml, from the policy and the state of
            the last one. They stay in DVC's cache: a later run that is asked for more of them begins after them.
        start: in a clone, the registered policy that the first cycle begins with, such as policy@3; without it that is
            the SFT policy.
        tags: of the run in MLflow, beside its own.
    """
    repository = repository.resolve()
    set_environment(repository)  # a worker's process has not done it
    end_with_worker()
    try:
        if (end := answered(repository)) is not None:
            return came_to(end)
        with (
            orderly(),
            place_of_run(repository, str(flow_run.id), revision, overrides, more_cycles, start) as folder,
            recorded(folder, str(flow_run.id), tags) as run,
            processes(str(flow_run.id)),
        ):
            variables = stage_variables(
                repository, PROXIMAL_PARENT_RUN_ID=run.run_id, PROXIMAL_FLOW_RUN_ID=str(flow_run.id)
            )
            params = load_params(Place(folder).params)
            asked = {"more_cycles": more_cycles, "start": start}
            others = {**(overrides or {}), **{key: value for key, value in asked.items() if value}}
            name = name_run(folder, [params.method], [params.seed], others)
            if promotion:
                require_champion(params.promotion.registered_model)
            graph = read_stages(folder)
            operations = Operations(params, graph, folder, repository)
            stages: dict[str, PrefectFuture[Any]] = {}
            last = promotion_after(graph)
            with followed(str(flow_run.id), [*graph, *([last] if promotion else [])], repository):
                for stage in graph:
                    upstream = [stages[name] for name in stage.upstream]
                    operation = operations.of(stage.name)
                    on_gpus = [future for name, future in stages.items() if operations.of(name).gpus]
                    before = on_gpus[-1:] if operation.gpus else []
                    stages[stage.name] = run_stage.submit(
                        stage, folder, variables, upstream, operation, wait_for=before, return_state=False
                    )
                if promotion:
                    upstream = [stages[name] for name in last.upstream]
                    stages[PROMOTION] = promote.submit(folder, variables, upstream, operations.here(PROMOTION))
                show_progress(stages.values())
                resource = {"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.name": name}
                with watched(stages, folder, params, resource):
                    conclude(stages, run.stages)
            sort_lock(folder, graph)
            told = ending(folder, repository, run.run_id, offered=promotion, idle=run.was_idle)
            evaluation = read_evaluation(folder)
            show_result(evaluation, told, repository)
            if not told.idle:
                show_links(run.run_id, report_page(folder))
            result = Result(run.stages, evaluation, read_cost(folder), told)
        ask(params.orchestration.approval, told, evaluation)
        return came_to(Completed(name=IDLE if told.idle else "Completed", message=told.idle, data=result))
    except (ProximalError, PipelineFailure) as failure:
        return came_to(failed(failure))
