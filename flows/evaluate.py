"""Any policy on the held-out prompts: the models that measure it are brought up to date, then it is measured."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from components.artifacts import read_json
from components.config import load_params
from components.errors import ProximalError
from components.place import Place
from flows.environment import set_environment, stage_variables
from flows.gpus import gpus_of
from flows.graph import Stage, read_stages
from flows.measured_with import MEASURED_WITH, needed_to_measure, submit
from flows.outcome import PipelineFailure, came_to, failed
from flows.pools import dispatches
from flows.processes import end_with_worker, processes
from flows.progress import followed
from flows.server import orderly
from flows.shown import show_evaluation
from flows.stages import MEASUREMENT, conclude, measure
from flows.workspace import place_of_run


@flow(name="evaluate", flow_run_name="{policy}", task_runner=ThreadPoolTaskRunner(max_workers=1))  # type: ignore[arg-type]
def evaluate(repository: Path, policy: str, revision: str | None = None) -> State[Any]:
    """Measure a policy against the SFT policy on the held-out prompts, and show the figures as an artifact.

    Args:
        repository: as of `flows.rlhf.rlhf`, and so is revision.
        policy: NAME@ALIAS, NAME@NUMBER or models:/... of a registered one, or a folder of the repository.
    """
    repository = repository.resolve()
    set_environment(repository)
    end_with_worker()
    try:
        with (
            orderly(),
            place_of_run(repository, str(flow_run.id), revision) as folder,
            processes(str(flow_run.id)),
            tempfile.TemporaryDirectory(prefix="proximal-") as scratch,
        ):
            variables, out = stage_variables(repository), Path(scratch) / "evaluation"
            whole, gpus = read_stages(folder), gpus_of(folder)
            graph, params = needed_to_measure(whole), load_params(Place(folder).params)
            limits, elsewhere = params.orchestration.timeout_minutes, dispatches(params, whole, folder, repository)
            last = Stage(MEASUREMENT, MEASURED_WITH, True, "the policy on the held-out prompts")
            with followed(str(flow_run.id), [*graph, last], repository):
                stages = submit(graph, folder, variables, params, gpus, elsewhere)
                named = policy if "@" in policy or policy.startswith("models:") else str(repository / policy)
                stages[MEASUREMENT] = measure.submit(
                    named, out, folder, variables, list(stages.values()), limits.evaluation, gpus
                )
                conclude(stages, {})
            evaluation = read_json(out / "metrics.json")
            show_evaluation(policy, evaluation)
            return came_to(Completed(data=evaluation))
    except (ProximalError, PipelineFailure) as failure:
        return came_to(failed(failure))
