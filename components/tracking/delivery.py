"""Brings what a run told from its journal to the tracking store, in order, each thing once.

A delivery may be cut off anywhere and done again from the last offset that was noted. What was sent and not noted is
sent twice, and nothing comes of it: MLflow's databases have one row for a point of a run (metric, step, time and value
are its key), tags, params, inputs and files are written over, and a run is found again by its journal's name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from components.tracking import store
from components.tracking.history import search_tag
from components.tracking.invocation import close_parent, open_parent
from components.tracking.journal import Entry, Journal
from components.tracking.writing import create_run, log_texts

_METRICS_AT_ONCE = 1000  # MLflow's limit
_JOURNAL = "journal"  # the tag
_TABLES = "mlflow.loggedArtifacts"  # what MLflow's pages show as tables


def deliver(journal: Journal) -> None:
    """Send what waits in a journal, and note how far that came.

    Raises:
        StoreAway: the store does not answer.
        EnvironmentFault: it refuses what it is told.
    """
    points: list[tuple[Entry, int]] = []
    for entry, behind in journal.waiting():
        if "metrics" in entry and _fits(points, entry):
            points.append((entry, behind))
            continue
        _send_points(journal, points)
        points = [(entry, behind)] if "metrics" in entry else []
        if not points:
            _send(journal, entry)
            journal.note(offset=behind)
    _send_points(journal, points)


def _fits(points: list[tuple[Entry, int]], entry: Entry) -> bool:
    """Whether an entry's metrics go with those that wait: to the same run, within one request."""
    if not points:
        return True
    together = sum(len(other["metrics"]) for other, _ in points) + len(entry["metrics"])
    return points[0][0].get("of") == entry.get("of") and together <= _METRICS_AT_ONCE


def _send_points(journal: Journal, points: list[tuple[Entry, int]]) -> None:
    from mlflow.entities import Metric

    if not points:
        return
    metrics = [
        Metric(name, value, entry["at"], entry["step"])
        for entry, _ in points
        for name, value in entry["metrics"].items()
    ]
    if run := _run_of(journal, points[0][0]):
        with store.tracking_faults():
            for start in range(0, len(metrics), _METRICS_AT_ONCE):
                store.client().log_batch(run, metrics=metrics[start : start + _METRICS_AT_ONCE])
    journal.note(offset=points[-1][1])


def _run_of(journal: Journal, entry: Entry) -> str | None:
    """The run that an entry is of: its own, or the pipeline's, if there is one."""
    run: str | None = journal.state.get("parent" if entry.get("of") == "pipeline" else "run")
    return run


def _send(journal: Journal, entry: Entry) -> None:
    if "open" in entry:
        _open(journal, entry["open"])
    elif "end" in entry:
        _end(journal, entry["end"], entry["at"])
    elif run := _run_of(journal, entry):
        if "tags" in entry:
            log_texts(run, tags=entry["tags"])
        elif "dataset" in entry:
            _log_dataset(run, entry["dataset"])
        else:
            _log_file(journal, run, entry)


def _open(journal: Journal, opened: Mapping[str, Any]) -> None:
    state, tags = journal.state, {**opened["tags"], _JOURNAL: journal.path.name}
    if opened["invocation"] and "parent" not in state:
        parent, before = open_parent(opened["invocation"])
        journal.note(parent=parent, parent_before=before)
    if "parent" in state:
        tags |= {"mlflow.parentRunId": state["parent"], "parent_run_id": state["parent"]}
    if "run" in state:
        return
    known = next(search_tag(_JOURNAL, journal.path.name), None) if "opening" in state else None
    journal.note(opening=True)  # from here on it may be there, though nobody has heard of it
    if known is None:
        journal.note(run=create_run(opened["name"], tags, opened["params"], opened["at"]))
    else:
        log_texts(known.run_id, params=opened["params"])
        journal.note(run=known.run_id)


def _end(journal: Journal, status: str, at: int) -> None:
    run, state = journal.state["run"], journal.state
    with store.tracking_faults():
        if status == "FINISHED" and "error" in store.client().get_run(run).data.tags:
            store.client().delete_tag(run, "error")  # of whoever found its process gone, and this not delivered
        store.client().set_terminated(run, status, at)
    if "parent_before" in state:
        close_parent(state["parent"], state["parent_before"], status)


def _log_dataset(run: str, told: Mapping[str, Any]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source, profile = json.dumps({"uri": told["path"]}), json.dumps(told["profile"])
    entity = Dataset(told["name"], told["digest"], source_type="local", source=source, profile=profile)
    with store.tracking_faults():
        context = [InputTag("mlflow.data.context", told["stage"])]
        store.client().log_inputs(run, [DatasetInput(entity, context)])


def _log_file(journal: Journal, run: str, entry: Entry) -> None:
    path = journal.path / entry["file"]
    with store.tracking_faults():
        store.client().log_artifact(run, str(path), entry["to"])
        if entry["table"]:
            there = json.loads(store.client().get_run(run).data.tags.get(_TABLES, "[]"))
            table = {"path": path.name, "type": "table"}
            if table not in there:
                store.client().set_tag(run, _TABLES, json.dumps([*there, table]))
