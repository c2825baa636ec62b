"""What MLflow remembers of a run. Only this package imports MLflow, and only when something is recorded."""

from components.tracking.pipeline import finish_pipeline_run, reconcile_dead_runs, start_pipeline_run
from components.tracking.recorder import StageRun
from components.tracking.runs import stage_run
from components.tracking.store import runs_url

__all__ = ["StageRun", "finish_pipeline_run", "reconcile_dead_runs", "runs_url", "stage_run", "start_pipeline_run"]
