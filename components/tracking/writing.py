"""A run's first lines, and its texts, in as few calls as MLflow's limits allow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from components.tracking import store
from components.tracking.tag_names import all_stored

_TAGS_AT_ONCE = 100  # MLflow's limit, of params too


def create_run(name: str, tags: Mapping[str, str], params: Mapping[str, str], started: int | None = None) -> str:
    """A new run with its tags and params; returns its id.

    Args:
        started: in milliseconds since 1970; None for now.
    """
    with store.tracking_faults():
        run = store.client().create_run(store.experiment_id(), started, all_stored(tags), name)
    log_texts(run.info.run_id, params=params)
    return str(run.info.run_id)


def log_texts(run_id: str, *, tags: Mapping[str, str] | None = None, params: Mapping[str, str] | None = None) -> None:
    """Tags and params in as few calls as MLflow's limits allow."""
    with store.tracking_faults():
        from mlflow.entities import Param, RunTag

        for part in _parts(all_stored(tags or {})):
            store.client().log_batch(run_id, tags=[RunTag(*item) for item in part])
        for part in _parts(params or {}):
            store.client().log_batch(run_id, params=[Param(*item) for item in part])


def _parts(values: Mapping[str, str]) -> Iterator[list[tuple[str, str]]]:
    items = list(values.items())
    for start in range(0, len(items), _TAGS_AT_ONCE):
        yield items[start : start + _TAGS_AT_ONCE]
