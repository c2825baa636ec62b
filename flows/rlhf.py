"""The main job: every stage of dvc.yaml in graph order, then promotion."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from components.config import load_params
from components.config.accelerate import accelerate_config
from components.errors import ProximalError
from components.interface.terminal import Ending
from components.place import Place
from flows.ending import ending
from flows.environment import set_environment, stage_variables
from flows.graph import read_stages, sort_lock
from flows.outcome import PipelineFailure, failed
from flows.pools import dispatches
from flows.processes import processes
from flows.progress import followed
from flows.record import read_cost, read_evaluation, recorded
from flows.server import orderly
from flows.shown import name_run, show_progress, show_result
from flows.stages import PROMOTION, conclude, promote, promotion_after, run_stage
from flows.workspace import RUNS, whole_repository, workspace

# Stages that need nothing of each other run side by side on CPUs: the reward model and the judge. GPUs have room for
# the models of one stage, so that there each waits for the one before.
CONCURRENT_STAGES = 2


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
) -> State[Any]:
    """From raw preferences to a promoted model: what has changed since the last run, and nothing else.

    Args:
        repository: the folder with dvc.yaml; it keeps the DVC cache and the MLflow records.
        revision: run this git revision in a clone of its own; without it, run in the repository itself.
        overrides: values for dotted keys of params.yaml in that clone.
        promotion: offer the result for promotion.
    """
    repository = repository.resolve()
    set_environment(repository)  # a worker's process has not done it
    try:
        with (
            orderly(),
            _place(repository, revision, overrides or {}) as folder,
            recorded(folder, str(flow_run.id)) as run,
            processes(str(flow_run.id)),
        ):
            name_run(folder, overrides or {})
            variables = stage_variables(
                repository, PROXIMAL_PARENT_RUN_ID=run.run_id, PROXIMAL_FLOW_RUN_ID=str(flow_run.id)
            )
            graph, shares_gpus = read_stages(folder), _computes_on_gpus(folder)
            elsewhere = dispatches(load_params(Place(folder).params), graph, folder, repository, overrides or {})
            stages: dict[str, PrefectFuture[Any]] = {}
            last = promotion_after(graph)
            with followed(str(flow_run.id), [*graph, *([last] if promotion else [])], repository):
                for stage in graph:
                    upstream = [stages[name] for name in stage.upstream]
                    here = [future for name, future in stages.items() if name not in elsewhere]
                    before = here[-1:] if shares_gpus and stage.name not in elsewhere else []
                    stages[stage.name] = run_stage.submit(
                        stage,
                        folder,
                        variables,
                        upstream,
                        elsewhere.get(stage.name),
                        wait_for=before,
                        return_state=False,
                    )
                if promotion:
                    stages[PROMOTION] = promote.submit(folder, variables, [stages[name] for name in last.upstream])
                show_progress(stages.values())
                conclude(stages, run.stages)
            sort_lock(folder, graph)
            told = ending(folder, repository, run.run_id, offered=promotion)
            evaluation = read_evaluation(folder)
            show_result(evaluation, told, repository)
            return Completed(data=Result(run.stages, evaluation, read_cost(folder), told))
    except (ProximalError, PipelineFailure) as failure:
        return failed(failure)


def _computes_on_gpus(folder: Path) -> bool:
    """Raises: ConfigError, the params or the Accelerate config that they name are not valid."""
    params = load_params(Place(folder).params)
    return not accelerate_config(folder / params.compute.accelerate_config).use_cpu


def _place(repository: Path, revision: str | None, overrides: Mapping[str, Any]) -> AbstractContextManager[Path]:
    if revision is None and not overrides:
        return whole_repository(repository)
    name = str(flow_run.id)
    get_run_logger().info("works in %s, which stays there if the run fails", repository / RUNS / name)
    return workspace(repository, name=name, revision=revision or "HEAD", overrides=overrides)
