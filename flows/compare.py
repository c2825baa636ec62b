"""Methods side by side: the runs of compare/dvc.yaml, each the whole pipeline in a clone, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from components.artifacts import read_json
from components.errors import ProximalError
from components.interface.comparison_tables import Figures
from flows.environment import set_environment, stage_variables
from flows.matrix import FIGURES, methods_there, read_runs
from flows.outcome import PipelineFailure, came_to, failed
from flows.processes import end_with_worker, processes
from flows.progress import followed
from flows.server import orderly
from flows.shown import show_comparison, show_progress
from flows.stages import conclude, run_stage
from flows.workspace import place_of_run


def _name() -> str:
    """By what is compared."""
    methods, seeds = (", ".join(map(str, flow_run.parameters[each])) for each in ("methods", "seeds"))
    return f"{methods or 'all methods'}: seeds {seeds}"


@flow(name="compare", flow_run_name=_name, task_runner=ThreadPoolTaskRunner(max_workers=1))  # type: ignore[arg-type]
def compare(repository: Path, methods: Sequence[str], seeds: Sequence[int], revision: str | None = None) -> State[Any]:
    """Bring the runs of these methods and seeds up to date; gives their `Figures`, and shows them as an artifact.

    Args:
        methods: none for all of the matrix.
        revision: as of `flows.rlhf.rlhf`.
    """
    repository = repository.resolve()
    set_environment(repository)
    end_with_worker()
    try:
        with (
            orderly(),
            place_of_run(repository, str(flow_run.id), revision) as folder,
            processes(str(flow_run.id)),
        ):
            methods = methods or methods_there(folder)
            variables = stage_variables(repository)
            runs: dict[str, PrefectFuture[Any]] = {}
            stages = read_runs(folder, methods, seeds)
            with followed(str(flow_run.id), stages, repository):
                for stage in stages:
                    upstream = [runs[name] for name in stage.upstream]
                    runs[stage.name] = run_stage.submit(stage, folder, variables, upstream)
                show_progress(runs.values())
                conclude(runs, {})
            figures: Figures = {
                (method, seed): read_json(folder / FIGURES / f"{method}-{seed}.json")
                for method in methods
                for seed in seeds
            }
            show_comparison(figures)
        return came_to(Completed(data=figures))
    except (ProximalError, PipelineFailure) as failure:
        return came_to(failed(failure))
