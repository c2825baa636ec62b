"""What a page outside of MLflow needs of a run: where MLflow shows it, its params, and a place for a copy."""

from __future__ import annotations

from pathlib import Path

from components.tracking import store

_ON_THIS_MACHINE = "http://127.0.0.1:5000"  # where `proximal ui` serves a store that is a file


def attach(run_id: str, path: Path) -> None:
    """Put a file into a run, one that has ended too."""
    with store.tracking_faults():
        store.client().log_artifact(run_id, str(path))


def address(run_id: str) -> str:
    """The page of a run. Of a store that is a file it answers while `proximal ui` runs."""
    uri = store.tracking_uri()
    server = uri.rstrip("/") if uri.startswith(("http://", "https://")) else _ON_THIS_MACHINE
    return f"{server}/#/experiments/{store.experiment_id()}/runs/{run_id}"


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
