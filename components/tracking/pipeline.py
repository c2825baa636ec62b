"""The run of a whole pipeline: the parent of its stages' runs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from components.config import Params
from components.tracking import store
from components.tracking.dvc_files import locked_outputs
from components.tracking.history import RunRecord, children, find_maker, get_run, search, search_tag
from components.tracking.journal import folder
from components.tracking.naming import run_name
from components.tracking.provenance import PIPELINE, flatten, pipeline_tags, process_is_gone
from components.tracking.runs import PROMOTION, reopened
from components.tracking.store import StoreAway
from components.tracking.sweeps import (
    SWEEP,
    open_sweep,
    refresh_open_sweeps,
    refresh_sweep,
    sweep_named,
    tags_below,
)
from components.tracking.sync import AT_WORK, deliver_left
from components.tracking.writing import create_run, log_texts

_UNCHANGED = "unchanged"
_THERE = {_UNCHANGED, "restored", "confirmed"}  # outcomes of a stage whose result was made before


def start_pipeline_run(
    params: Params, flow_run_id: str, root: Path, more: Mapping[str, str] | None = None, sweep: str | None = None
) -> str:
    """Open the parent run and return its id; the caller exports it to the stages as PROXIMAL_PARENT_RUN_ID.

    Runs that a killed process left open are closed first.

    Args:
        root: of the repository, whose commit and data the run names.
        more: tags beside those of every run.
        sweep: the name under which it is one of several runs of that commit.
    """
    reconcile_dead_runs()
    tags = (
        pipeline_tags(params, root)
        | dict(more or {})
        | {"prefect_flow_run_id": flow_run_id, "mlflow.source.name": "flows.rlhf"}
    )
    if sweep is not None:
        told = sweep_named(sweep, root)
        tags |= tags_below(open_sweep(told), told)
    return create_run(run_name(params, root), tags, flatten(params.values()))


def finish_pipeline_run(
    run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"], stages: Mapping[str, str], root: Path
) -> None:
    """Close the parent run; one in which there was nothing to do is deleted with its stages' runs.

    Args:
        stages: what became of each stage, by its DVC name ("sft", "alignment@2"), e.g. "ran", "unchanged". The id
            of the run that made the stage's present outputs is put beside it, also when that was long ago.
        root: of the repository.
    """
    try:
        if status == "FINISHED" and was_idle(run_id, stages):
            _delete(run_id)
            reconcile_dead_runs()
            return
        makers = _makers(stages, root)
    except StoreAway:  # kept as what a run told: who made what is found by digests all the same
        makers = {}
    outcomes = {f"outcome:{_allowed(stage)}": outcome for stage, outcome in stages.items()}
    with reopened(run_id, PIPELINE) as run:
        run.tags(outcomes | makers)
        run.end(status)
    with suppress(StoreAway):
        refresh_sweep(get_run(run_id))
        reconcile_dead_runs()


def _makers(stages: Mapping[str, str], root: Path) -> dict[str, str]:
    locked = locked_outputs(root / "dvc.lock")
    tags: dict[str, str] = {}
    for stage in stages:
        outputs = locked.get(stage, {})
        if outputs and all((root / path).exists() for path in outputs):
            maker = find_maker(outputs)
            tags[f"made_by:{_allowed(stage)}"] = maker.run_id if maker else "not in this tracking store"
    return tags


def was_idle(run_id: str, stages: Mapping[str, str]) -> bool:
    """Whether nothing was made, and promotion found its decision made before ("already champion").

    In a clone every result is restored from DVC's cache. That is no news either, where a finished run of the same
    params and data is in this store; but a sweep has all of its runs, also what was known before it.
    """
    outcomes = {outcome for stage, outcome in stages.items() if stage != PROMOTION}
    run = get_run(run_id)
    if run is None or SWEEP in run.tags or not outcomes <= _THERE:
        return False
    if PROMOTION in stages and not run.tags.get("decision", "").startswith("already"):
        return False
    return outcomes <= {_UNCHANGED} or _is_known(run)


def _is_known(run: RunRecord) -> bool:
    """Whether another pipeline of the same params and data came to its end."""
    found = search_tag("params_sha256", run.tags["params_sha256"], " AND attributes.status = 'FINISHED'")
    same = (other for other in found if other.run_id != run.run_id)
    return any(all(other.tags.get(name) == run.tags[name] for name in ("stage", "data_md5")) for other in same)


def _delete(run_id: str) -> None:
    for child in [*(run.run_id for run in children(run_id)), run_id]:
        with store.tracking_faults():
            store.client().set_terminated(child)
            store.client().delete_run(child)


def reconcile_dead_runs() -> list[str]:
    """End as KILLED the runs whose process died on this host without a word; returns their ids.

    What they had told before is delivered first.
    """
    at_work = {one.folder for one in deliver_left() if one.outcome == AT_WORK}  # their end is being delivered
    dead = [
        run.run_id
        for run in search("attributes.status = 'RUNNING'")
        if process_is_gone(run.tags) and str(folder() / run.tags.get("journal", "none")) not in at_work
    ]
    for run_id in dead:
        log_texts(run_id, tags={"error": "the process ended without a word (killed, or the machine stopped)"})
        with store.tracking_faults():
            store.client().set_terminated(run_id, "KILLED")
    refresh_open_sweeps()
    return dead


def _allowed(stage: str) -> str:
    return stage.replace("@", "-")  # MLflow takes no @ in names
