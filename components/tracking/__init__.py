"""What MLflow remembers of a run. Only this package imports MLflow, and only when something is recorded."""

from components.tracking.pipeline import finish_pipeline_run, reconcile_dead_runs, start_pipeline_run
from components.tracking.runs import StageRun, stage_run

__all__ = ["StageRun", "finish_pipeline_run", "reconcile_dead_runs", "stage_run", "start_pipeline_run"]
