"""Runs as they were recorded, found again by what they made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from components.tracking import store
from components.tracking.tag_names import all_plain, spellings

_CANDIDATES = 50


@dataclass(frozen=True)
class RunRecord:
    """A recorded run. Times in milliseconds since 1970; of each metric the last value."""

    run_id: str
    status: str
    started: int
    tags: dict[str, str]
    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The stage, with its cycle where it has one, e.g. "alignment 3"."""
        cycle = self.tags.get("cycle")
        return self.tags.get("stage", "run") + (f" {cycle}" if cycle else "")

    @property
    def inputs(self) -> dict[str, str]:
        """Path -> digest of all that the run read."""
        return digests_in(self.tags, "in")


def tagged(direction: str, digests: Mapping[str, str]) -> dict[str, str]:
    """Path -> digest as the tags `in:<path>` or `out:<path>`."""
    return {f"{direction}:{path}": value for path, value in digests.items()}


def digests_in(tags: Mapping[str, str], direction: str) -> dict[str, str]:
    """Path -> digest from the tags `in:<path>` or `out:<path>`."""
    prefix = f"{direction}:"
    return {name.removeprefix(prefix): value for name, value in tags.items() if name.startswith(prefix)}


def get_run(run_id: str) -> RunRecord | None:
    """A run by its id; None when it was deleted or never was in this store."""
    with store.tracking_faults():
        from mlflow.exceptions import MlflowException

        try:
            run = store.client().get_run(run_id)
        except MlflowException as fault:
            if fault.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
    return None if run.info.lifecycle_stage == "deleted" else _record(run)


def find_maker(outputs: Mapping[str, str], before: int | None = None) -> RunRecord | None:
    """The last finished run that made these outputs (path -> digest): at least one, none with another digest.

    Args:
        before: only runs that started before this time, so that a stage is not linked to a later repetition.
    """
    more = " AND attributes.status = 'FINISHED'"
    if before is not None:
        more += f" AND attributes.start_time < {before}"
    for path, value in outputs.items():
        for run in search_tag(f"out:{path}", value, more):
            if all(run.tags.get(f"out:{other}", expected) == expected for other, expected in outputs.items()):
                return run
    return None


def children(parent: str, at_most: int = _CANDIDATES) -> list[RunRecord]:
    """The runs of a pipeline's stages, or of a sweep, the last started first."""
    return search(f"tags.mlflow.parentRunId = '{parent}'", at_most)


def search_tag(name: str, value: str, more: str = "") -> Iterator[RunRecord]:
    """Runs with this tag, the last started first; `more` of the query begins with AND."""
    for key in spellings(name):
        yield from search(f"tags.`{key}` = '{value}'{more}")


def search(query: str, at_most: int = _CANDIDATES) -> list[RunRecord]:
    """Runs of this project that match, the last started first."""
    with store.tracking_faults():
        runs = store.client().search_runs(
            [store.experiment_id()], query, order_by=["attributes.start_time DESC"], max_results=at_most
        )
    return [_record(run) for run in runs]


def _record(run: Any) -> RunRecord:
    info, data = run.info, run.data
    return RunRecord(
        info.run_id, info.status, info.start_time, all_plain(data.tags), dict(data.metrics), dict(data.params)
    )
