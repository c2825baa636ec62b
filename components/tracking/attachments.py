"""What a page outside of MLflow needs of a run: where MLflow shows it, its params, and a place for a copy."""

from __future__ import annotations

from pathlib import Path

from components.tracking import store
from components.tracking.pages import run_page


def attach(run_id: str, path: Path) -> None:
    """Put a file into a run, one that has ended too."""
    with store.tracking_faults():
        store.client().log_artifact(run_id, str(path))


def page_in_mlflow(run_id: str) -> str:
    """The page of a run, for a link from another of MLflow's pages."""
    return run_page(store.experiment_id(), run_id)


def address(run_id: str) -> str:
    """The page of a run; see `store.server_url`."""
    return f"{store.server_url()}/{run_page(store.experiment_id(), run_id)}"


def params_of(run_id: str) -> dict[str, str]:
    """The params of a run by dotted name; empty where the run is not in this store any more."""
    with store.tracking_faults():
        from mlflow.exceptions import MlflowException

        try:
            return dict(store.client().get_run(run_id).data.params)
        except MlflowException as fault:
            if fault.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}
