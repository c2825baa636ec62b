"""The MLflow run of one pipeline run, opened before its first stage and closed however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from components.artifacts import read_json
from components.config import load_params
from components.place import Place


@dataclass
class PipelineRun:
    """What is known about a pipeline run while it goes on.

    Args:
        run_id: of the MLflow run, the parent of the stages' runs.
        stages: what became of each stage so far.
    """

    run_id: str
    stages: dict[str, str] = field(default_factory=dict)

    @property
    def was_idle(self) -> bool:
        """Whether there was nothing to do, once all stages have ended."""
        from components.tracking.pipeline import was_idle

        return was_idle(self.run_id, self.stages)


@contextmanager
def recorded(folder: Path, flow_run_id: str) -> Iterator[PipelineRun]:
    """Record a pipeline run in MLflow, unless there was nothing to do.

    Raises:
        ConfigError: params.yaml is not valid; nothing is recorded then.
    """
    from components.tracking import finish_pipeline_run, start_pipeline_run

    run = PipelineRun(start_pipeline_run(load_params(Place(folder).params), flow_run_id, folder))
    status: Literal["FINISHED", "FAILED", "KILLED"] = "KILLED"
    try:
        yield run
        if not run.was_idle:
            _record_result(run.run_id, folder)
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:  # also when the flow is cancelled, which is no Exception
        finish_pipeline_run(run.run_id, status, run.stages, folder)


def read_evaluation(folder: Path) -> dict[str, Any] | None:
    """SFT against candidate, with intervals; None in a pipeline that does not evaluate."""
    file = Place(folder).evaluation / "metrics.json"
    return read_json(file) if file.exists() else None


def read_cost(folder: Path) -> dict[str, float]:
    """What the chosen policy took from the SFT policy on; empty in a pipeline that selects none.

    sampled_tokens and trained_tokens of its cycles, and the seconds that these took when they ran, on whatever
    machine: MLflow has them from the runs that made the policies. No seconds where another store has a run.
    """
    from components.digests import digest
    from components.tracking.history import find_maker

    place = Place(folder)
    if not (place.selection / "selection.json").exists():
        return {}
    selection = read_json(place.selection / "selection.json")
    policies = [place.alignment / str(cycle) / "policy" for cycle in range(1, selection["cycle"] + 1)]
    makers = [find_maker({policy.relative_to(folder).as_posix(): digest(policy)}) for policy in policies]
    cost: dict[str, float] = dict(selection["cost"])
    seconds = [maker.metrics["cost/seconds"] for maker in makers if maker is not None]
    return cost | ({"seconds": sum(seconds)} if len(seconds) == len(policies) else {})


def _record_result(run_id: str, folder: Path) -> None:
    """Figures, curves and cost, by which pipelines compare; the stage has told them where it ran in this one."""
    from components.evaluation.curves import training_rows
    from components.evaluation.recording import description, record_curves, record_figures
    from components.tracking.history import get_run
    from components.tracking.recorder import RecordedRun

    evaluation, recorded = read_evaluation(folder), get_run(run_id)
    if evaluation is None or recorded is None:
        return
    place, run = Place(folder), RecordedRun(run_id, "pipeline")
    if not any(name.startswith("eval/") for name in recorded.metrics):
        record_figures(run, evaluation)
        if (cycles := place.selection / "cycles.json").exists():
            curves = [place.alignment / cycle / "curve.json" for cycle in load_params(place.params).cycles]
            record_curves(run, training_rows(curves), read_json(cycles))
    run.metrics({f"spent/{name}": value for name, value in read_cost(folder).items()})
    run.describe(description(evaluation, recorded.tags.get("verdict"), _report_page(folder)))
    run.flush()


def _report_page(folder: Path) -> str | None:
    """Where MLflow shows the report; None where the run that made it is in another store."""
    from components.digests import digest
    from components.tracking.history import find_maker
    from components.tracking.recorder import RecordedRun

    report = Place(folder).evaluation / "report.html"
    maker = find_maker({report.relative_to(folder).as_posix(): digest(report)})
    return RecordedRun(maker.run_id, "evaluation").page(report.name) if maker else None
