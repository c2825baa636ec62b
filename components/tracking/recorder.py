"""What a stage tells of itself, and how that is written to MLflow."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.digests import digest
from components.tracking import store
from components.tracking.history import tagged
from components.tracking.pages import run_page
from components.tracking.provenance import content_digests
from components.tracking.writing import log_texts

if TYPE_CHECKING:
    from mlflow.entities import Metric

_METRICS_AT_ONCE = 1000  # MLflow's limit
_SECONDS_BETWEEN_WRITES = 1.0
_DESCRIPTION = "mlflow.note.content"


class StageRun:
    """What a stage tells of itself. This class keeps nothing: every process but the first gets it.

    Args:
        run_id: of the run; the first process has it alone, and so it is with the inputs.
        inputs: path -> digest of all that the stage reads, of folders with all that is in them.
    """

    def __init__(self, run_id: str = "", inputs: Mapping[str, str] | None = None) -> None:
        self.run_id = run_id
        self.inputs = dict(inputs or {})

    @property
    def pipeline(self) -> StageRun:
        """The run of the whole pipeline, for what people compare pipelines by."""
        return StageRun()

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Numbers at a step, under the names given."""

    def check(self, name: str, found: float, step: int) -> None:
        """What the stage found when it checked itself; see components.self_checks."""
        self.metrics({f"check/{name}": found}, step=step)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows as a table that the MLflow UI shows; `name` ends in .json."""

    def figure(self, path: Path) -> None:
        """A picture, into the folder figures/ of the run."""

    def artifact(self, path: Path) -> None:
        """A file, or a folder with all that is in it."""

    def dataset(self, name: str, path: Path) -> None:
        """A file of rows that the stage read, with its digest; it is not copied."""

    def outputs(self, paths: Iterable[Path]) -> None:
        """What the stage made, by digest: later stages and `proximal lineage` find this run by it."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Short texts to find the run by."""

    def page(self, artifact: str | None = None) -> str:
        """Where MLflow shows this run, or a file of it, for a link from another of its pages."""
        return ""

    def describe(self, markdown: str) -> None:
        """What stands above all else on the run's page; it replaces what stood there."""


class RecordedRun(StageRun):
    """What a stage tells of itself, written to MLflow; metrics wait up to a second to go together."""

    def __init__(
        self,
        run_id: str,
        stage: str,
        inputs: Mapping[str, str] | None = None,
        root: Path = Path(),
        parent: str | None = None,
    ) -> None:
        super().__init__(run_id, inputs)
        self._root = root
        self._stage = stage
        self._pipeline = StageRun() if parent is None else RecordedRun(parent, "pipeline")
        self._waiting: list[Metric] = []
        self._written = time.monotonic()

    @property
    def pipeline(self) -> StageRun:
        return self._pipeline

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, float(value), now, step) for name, value in values.items()]
        if time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES:
            self.flush()

    def flush(self) -> None:
        """Send the metrics that wait."""
        if isinstance(self._pipeline, RecordedRun):
            self._pipeline.flush()
        waiting, self._waiting = self._waiting, []
        with store.tracking_faults():
            for start in range(0, len(waiting), _METRICS_AT_ONCE):
                store.client().log_batch(self.run_id, metrics=waiting[start : start + _METRICS_AT_ONCE])
        self._written = time.monotonic()

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        columns = dict.fromkeys(column for row in rows for column in row)
        with store.tracking_faults():
            store.client().log_table(
                self.run_id, {column: [row.get(column) for row in rows] for column in columns}, name
            )

    def figure(self, path: Path) -> None:
        with store.tracking_faults():
            store.client().log_artifact(self.run_id, str(path), "figures")

    def artifact(self, path: Path) -> None:
        with store.tracking_faults():
            store.client().log_artifact(self.run_id, str(path))

    def dataset(self, name: str, path: Path) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile = {"rows": path.read_bytes().count(b"\n")} if path.suffix == ".jsonl" else {}
        entity = Dataset(
            name,
            digest(path),
            source_type="local",
            source=json.dumps({"uri": path.as_posix()}),
            profile=json.dumps(profile),
        )
        with store.tracking_faults():
            context = [InputTag("mlflow.data.context", self._stage)]
            store.client().log_inputs(self.run_id, [DatasetInput(entity, context)])

    def outputs(self, paths: Iterable[Path]) -> None:
        self.tags(tagged("out", content_digests(paths, self._root)))

    def tags(self, values: Mapping[str, str]) -> None:
        log_texts(self.run_id, tags=values)

    def page(self, artifact: str | None = None) -> str:
        return run_page(store.experiment_id(), self.run_id, artifact)

    def describe(self, markdown: str) -> None:
        log_texts(self.run_id, tags={_DESCRIPTION: markdown})

    def end(self, status: str) -> None:
        """Send what waits and close the run."""
        self.flush()
        with store.tracking_faults():
            store.client().set_terminated(self.run_id, status)
