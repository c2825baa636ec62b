"""MLflow's pages: how they show the experiment, and where a person finds them."""

from __future__ import annotations

import json

_VIEW = "figures"
_COLUMNS = (*(f"metrics.`eval/{name}`" for name in ("gold", "judge", "kl", "win_rate")), "tags.`decision`")
# A stored view is a tag of the experiment: what MLflow's own "Share" writes.
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    f"mlflow.sharedViewState.{_VIEW}": json.dumps(
        {
            "searchFilter": "tags.stage = 'pipeline'",
            "orderByKey": "attributes.start_time",
            "orderByAsc": False,
            "selectedColumns": _COLUMNS,
        }
    ),
}
_TRAINING = "workflowType=machine_learning"  # without it these pages are those of GenAI, whatever the experiment's kind


def runs_page(server: str, experiment: str) -> str:
    """All pipelines, one a row, by gold, judge, KL, win rate and decision."""
    return f"{server}/#/experiments/{experiment}/runs?viewStateShareKey={_VIEW}&{_TRAINING}"


def run_page(experiment: str, run_id: str, artifact: str | None = None) -> str:
    """One run, or a file of it, as a link from another of MLflow's pages."""
    place = f"/artifacts/{artifact}" if artifact else ""
    return f"#/experiments/{experiment}/runs/{run_id}{place}?{_TRAINING}"
