"""Runs that are tried side by side from one commit: a run above them, under which MLflow's pages group them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock

from components.place import Place
from components.tracking import store
from components.tracking.dvc_files import pinned_data
from components.tracking.history import RunRecord, children, search
from components.tracking.pages import run_page
from components.tracking.provenance import commit_of
from components.tracking.writing import create_run, log_texts

SWEEP = "sweep"  # the tag that its runs share, and the `stage` of the run above them
_NAME_VARIABLE, _BASELINE_VARIABLE = "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"  # set by DVC in experiments
_NUMBERED = re.compile(r"(.+)-\d+")  # what `dvc exp run --queue --name NAME` makes of the values of a list
_FIGURES = {"gold": "eval/gold", "judge": "eval/judge", "KL": "eval/kl", "win rate": "eval/win_rate"}
_DESCRIPTION = "mlflow.note.content"
_RUNS = 1000


def of_queue(root: Path) -> dict[str, str]:
    """The sweep of an experiment that DVC's queue runs: by the name that it was queued with, else by its commit."""
    commit = os.environ.get(_BASELINE_VARIABLE) or commit_of(root)
    numbered = _NUMBERED.fullmatch(os.environ.get(_NAME_VARIABLE, ""))
    return _told(numbered.group(1) if numbered else f"queue on {commit[:7]}", commit, root)


def sweep_named(name: str, root: Path) -> dict[str, str]:
    """A sweep on the commit that is checked out."""
    return _told(name, commit_of(root), root)


def _told(name: str, commit: str, root: Path) -> dict[str, str]:
    plain = re.sub(r"[^\w.+ -]", "-", name)  # it stands in queries
    data = pinned_data(root) or "none"
    return {"stage": SWEEP, SWEEP: plain, "git_commit": commit, "mlflow.source.git.commit": commit, "data_md5": data}


def open_sweep(told: Mapping[str, str]) -> str:
    """The run above a sweep's runs, made by its first: a name and a commit have one, whatever runs them."""
    lock = Place(store.repository()).work / "sweep.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):  # several workers of a queue begin at once
        query = " AND ".join(f"tags.{tag} = '{told[tag]}'" for tag in ("stage", SWEEP, "git_commit"))
        found = search(query)
        run_id = found[-1].run_id if found else create_run(told[SWEEP], told, {})
        with store.tracking_faults():
            store.client().update_run(run_id, status="RUNNING")
    return run_id


def tags_below(sweep: str, told: Mapping[str, str]) -> dict[str, str]:
    """What a run of a sweep says of it."""
    return {SWEEP: told[SWEEP], "mlflow.parentRunId": sweep, "parent_run_id": sweep}


def refresh_sweep(run: RunRecord | None) -> None:
    """After a run of a sweep has ended: the table of all, and whether any of them goes on. Of other runs nothing."""
    if run is None or SWEEP not in run.tags:
        return
    _refresh(run.tags["parent_run_id"])


def refresh_open_sweeps() -> None:
    """The same for those that are left open by runs that could not tell their end."""
    for sweep in search(f"tags.stage = '{SWEEP}' AND attributes.status = 'RUNNING'"):
        _refresh(sweep.run_id)


def _refresh(sweep: str) -> None:
    runs = children(sweep, _RUNS)
    log_texts(sweep, tags={_DESCRIPTION: table(runs)})
    with store.tracking_faults():
        if any(run.status == "RUNNING" for run in runs):
            store.client().update_run(sweep, status="RUNNING")
        else:
            store.client().set_terminated(sweep)


def table(runs: Sequence[RunRecord]) -> str:
    """Markdown: a row a run, the first started first, with its figures and the params in which any two differ."""
    names = {name for run in runs for name in run.params}
    differ = sorted(name for name in names if len({run.params.get(name) for run in runs}) > 1)
    head = ["run", *differ, *_FIGURES, "ended as"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for run in reversed(runs):
        figures = (f"{run.metrics[key]:.3f}" if key in run.metrics else "-" for key in _FIGURES.values())
        ended = run.tags.get("trial_state") or run.status
        link = f"[{run.tags.get('mlflow.runName', run.run_id)}]({run_page(store.experiment_id(), run.run_id)})"
        values = (run.params.get(name, "-").replace("|", "\\|").replace("\n", " ") for name in differ)
        lines.append("| " + " | ".join([link, *values, *figures, ended]) + " |")
    return "\n".join(lines)
