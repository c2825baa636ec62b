"""The MLflow run of one pipeline run, opened before its first stage and closed however it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.artifacts import read_json
from components.config import load_params
from components.place import Place
from components.promotion.verdict import Verdict
from flows.outcome import Outcome

if TYPE_CHECKING:
    from components.tracking.history import RunRecord


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
        """Whether there was nothing to do, once all stages have ended; taken for work where nobody can tell."""
        from components.tracking.pipeline import was_idle
        from components.tracking.store import StoreAway

        try:
            return was_idle(self.run_id, self.stages)
        except StoreAway:
            return False


@contextmanager
def recorded(
    folder: Path, flow_run_id: str, tags: Mapping[str, str] | None = None, sweep: str | None = None
) -> Iterator[PipelineRun]:
    """Record a pipeline run in MLflow, unless there was nothing to do.

    Args:
        tags: of the run, beside its own.
        sweep: the name under which it is one of several runs of its commit.

    Raises:
        ConfigError: params.yaml is not valid; nothing is recorded then.
        StoreAway: the tracking store does not answer at the start; later it is not waited for.
    """
    from components.tracking import finish_pipeline_run, start_pipeline_run

    run = PipelineRun(start_pipeline_run(load_params(Place(folder).params), flow_run_id, folder, tags, sweep))
    status: Literal["FINISHED", "FAILED", "KILLED"] = "KILLED"
    try:
        yield run
        if not run.was_idle:
            _record_result(run, folder)
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
    machine: MLflow has them from the runs that made the policies. No seconds where another store has a run, or none
    answers.
    """
    place = Place(folder)
    if not (place.selection / "selection.json").exists():
        return {}
    selection = read_json(place.selection / "selection.json")
    policies = [place.alignment / str(cycle) / "policy" for cycle in range(1, selection["cycle"] + 1)]
    makers = [_maker(policy, folder) for policy in policies]
    cost: dict[str, float] = dict(selection["cost"])
    seconds = [maker.metrics["cost/seconds"] for maker in makers if maker is not None]
    return cost | ({"seconds": sum(seconds)} if len(seconds) == len(policies) else {})


def _maker(made: Path, folder: Path) -> RunRecord | None:
    from components.digests import digest
    from components.tracking.history import find_maker
    from components.tracking.store import StoreAway

    try:
        return find_maker({made.relative_to(folder).as_posix(): digest(made)})
    except StoreAway:
        return None


def _record_result(run: PipelineRun, folder: Path) -> None:
    """Figures, curves and cost, by which pipelines compare; the stage has told them where it ran in this one."""
    from components.evaluation.curves import training_rows
    from components.evaluation.recording import description, record_curves, record_figures
    from components.tracking.runs import PROMOTION, reopened

    evaluation = read_evaluation(folder)
    if evaluation is None:
        return
    place = Place(folder)
    with reopened(run.run_id, "pipeline") as told:
        if run.stages.get("evaluation") != Outcome.RAN:
            record_figures(told, evaluation)
            if (cycles := place.selection / "cycles.json").exists():
                curves = [place.alignment / cycle / "curve.json" for cycle in load_params(place.params).cycles]
                record_curves(told, training_rows(curves), read_json(cycles))
        told.metrics({f"spent/{name}": value for name, value in read_cost(folder).items()})
        verdict = Verdict.read(place.promotion).sentence() if PROMOTION in run.stages else None
        told.describe(description(evaluation, verdict, report_page(folder)))


def report_page(folder: Path) -> str | None:
    """Where MLflow shows the report; None without one, and where the run that made it is in another store."""
    from components.tracking import store
    from components.tracking.pages import run_page

    report = Place(folder).evaluation / "report.html"
    maker = _maker(report, folder) if report.exists() else None
    return run_page(store.experiment_id(), maker.run_id, report.name) if maker else None
