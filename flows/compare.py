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
from components.errors import ConfigError, ProximalError
from components.interface.comparison_tables import Figures
from flows.environment import set_environment, stage_variables
from flows.graph import Stage, read_stages
from flows.outcome import PipelineFailure, failed
from flows.processes import processes
from flows.progress import followed
from flows.server import orderly
from flows.stages import conclude, run_stage
from flows.workspace import whole_repository

PIPELINE = Path("compare") / "dvc.yaml"
FIGURES = Path("artifacts") / "compare"


@flow(name="compare", task_runner=ThreadPoolTaskRunner(max_workers=1))  # type: ignore[arg-type]
def compare(repository: Path, methods: Sequence[str], seeds: Sequence[int]) -> State[Any]:
    """Bring the runs of these methods and seeds up to date; gives their `Figures`."""
    repository = repository.resolve()
    set_environment(repository)
    wanted = {f"{PIPELINE}:run@{method}-{seed}": (method, seed) for method in methods for seed in seeds}
    try:
        with orderly(), whole_repository(repository), processes(str(flow_run.id)):
            variables = stage_variables(repository)
            runs: dict[str, PrefectFuture[Any]] = {}
            stages = _stages(repository, wanted)
            with followed(str(flow_run.id), stages, repository):
                for stage in stages:
                    upstream = [runs[name] for name in stage.upstream]
                    runs[stage.name] = run_stage.submit(stage, repository, variables, upstream)
                conclude(runs, {})
            figures: Figures = {
                (method, seed): read_json(repository / FIGURES / f"{method}-{seed}.json")
                for method, seed in wanted.values()
            }
            return Completed(data=figures)
    except (ProximalError, PipelineFailure) as failure:
        return failed(failure)


def _stages(repository: Path, wanted: dict[str, tuple[str, int]]) -> list[Stage]:
    """The wanted runs, and the pinned data that they read.

    Raises:
        ConfigError: the matrix has no such run.
    """
    there = read_stages(repository, PIPELINE)
    if missing := wanted.keys() - {stage.name for stage in there}:
        raise ConfigError(
            "no such run",
            where=f"{PIPELINE}: stages.run.matrix",
            expected=", ".join(stage.name.partition("@")[2] for stage in there if "@" in stage.name),
            found=", ".join(sorted(name.partition("@")[2] for name in missing)),
            do="add the method or the seed to the matrix",
        )
    return [stage for stage in there if stage.name in wanted or "@" not in stage.name]
