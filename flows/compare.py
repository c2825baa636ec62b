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
from flows.environment import stage_variables
from flows.matrix import FIGURES, methods_there, read_runs
from flows.operation import Operation
from flows.outcome import PipelineFailure, came_to, failed
from flows.progress import followed
from flows.shown import name_run, show_comparison, show_progress
from flows.stages import conclude, run_stage
from flows.work import at_work


@flow(name="compare", flow_run_name="compare", task_runner=ThreadPoolTaskRunner(max_workers=1))  # type: ignore[arg-type]
def compare(repository: Path, methods: Sequence[str], seeds: Sequence[int], revision: str | None = None) -> State[Any]:
    """Bring the runs of these methods and seeds up to date; gives their `Figures`, and shows them as an artifact.

    Each is a run of its own, `proximal run` of compare/dvc.yaml, with its own time limits, pools and budget.

    Args:
        methods: none for all of the matrix.
        revision: as of `flows.rlhf.rlhf`.
    """
    repository = repository.resolve()
    try:
        with at_work(repository, revision) as folder:
            methods = methods or methods_there(folder)
            name_run(folder, methods, seeds)
            variables = stage_variables(repository)
            runs: dict[str, PrefectFuture[Any]] = {}
            stages = read_runs(folder, methods, seeds)
            with followed(str(flow_run.id), stages, repository):
                for stage in stages:
                    upstream = [runs[name] for name in stage.upstream]
                    runs[stage.name] = run_stage.submit(stage, folder, variables, upstream, Operation())
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
