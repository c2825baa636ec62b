"""The MLflow run of one pipeline run, opened before its first stage and closed however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from components.artifacts import read_json
from components.config import load_params
from components.paths import EVALUATION, PARAMS

EVALUATION_METRICS = EVALUATION / "metrics.json"


@dataclass
class PipelineRun:
    """What is known about a pipeline run while it goes on.

    Args:
        run_id: of the MLflow run, the parent of the stages' runs.
        stages: what became of each stage so far.
    """

    run_id: str
    stages: dict[str, str] = field(default_factory=dict)


@contextmanager
def recorded(folder: Path, flow_run_id: str) -> Iterator[PipelineRun]:
    """Record a pipeline run in MLflow.

    Raises:
        ConfigError: params.yaml is not valid; nothing is recorded then.
    """
    from components.tracking import finish_pipeline_run, start_pipeline_run

    with chdir(folder):  # the record names the commit and the data of the folder
        run = PipelineRun(start_pipeline_run(load_params(PARAMS), flow_run_id))
    status: Literal["FINISHED", "FAILED", "KILLED"] = "KILLED"
    try:
        yield run
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:  # also when the flow is cancelled, which is no Exception
        with chdir(folder):
            figures = _figures(read_evaluation(Path())) if status == "FINISHED" else {}
            finish_pipeline_run(run.run_id, status, run.stages, figures)


def read_evaluation(folder: Path) -> dict[str, Any] | None:
    """SFT against candidate, with intervals; None in a pipeline that does not evaluate."""
    file = folder / EVALUATION_METRICS
    return read_json(file) if file.exists() else None


def _figures(evaluation: dict[str, Any] | None) -> dict[str, float]:
    from components.evaluation.compare import flat

    return flat(evaluation) if evaluation else {}
