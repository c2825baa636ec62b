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
from flows.environment import stage_variables
from flows.graph import Stage, read_stages
from flows.measured_with import MEASURED_WITH, needed_to_measure, submit
from flows.operation import Operations
from flows.outcome import PipelineFailure, came_to, failed
from flows.progress import followed
from flows.shown import name_run, show_evaluation, show_progress
from flows.stages import MEASUREMENT, conclude, measure
from flows.work import at_work


@flow(name="evaluate", flow_run_name="evaluate", task_runner=ThreadPoolTaskRunner(max_workers=1))  # type: ignore[arg-type]
def evaluate(repository: Path, policy: str, revision: str | None = None) -> State[Any]:
    """Measure a policy against the SFT policy on the held-out prompts, and show the figures as an artifact.

    Args:
        repository: as of `flows.rlhf.rlhf`, and so is revision.
        policy: NAME@ALIAS, NAME@NUMBER or models:/... of a registered one, or a folder of the repository.
    """
    repository = repository.resolve()
    try:
        with at_work(repository, revision) as folder, tempfile.TemporaryDirectory(prefix="proximal-") as scratch:
            variables, out = stage_variables(repository), Path(scratch) / "evaluation"
            params, whole = load_params(Place(folder).params), read_stages(folder)
            name_run(folder, [policy], [params.seed])
            graph, operations = needed_to_measure(whole), Operations(params, whole, folder, repository)
            last = Stage(MEASUREMENT, MEASURED_WITH, True, "the policy on the held-out prompts")
            with followed(str(flow_run.id), [*graph, last], repository):
                stages = submit(graph, folder, variables, operations)
                named = policy if "@" in policy or policy.startswith("models:") else str(repository / policy)
                stages[MEASUREMENT] = measure.submit(
                    named, out, folder, variables, list(stages.values()), operations.here("evaluation")
                )
                show_progress(stages.values())
                conclude(stages, {})
            evaluation = read_json(out / "metrics.json")
            show_evaluation(policy, evaluation)
            return came_to(Completed(data=evaluation))
    except (ProximalError, PipelineFailure) as failure:
        return came_to(failed(failure))
